// The two ways to the nearest codes, and where they leave what they find.
#pragma once
#include <algorithm>
#include <cstdint>

#include "cpu/hamming_pass.h"
#include "cpu/hamming_topk.h"

namespace adsq::cpu {

inline int64_t distance_of(uint64_t key) { return static_cast<int64_t>(key >> kIndexBits); }
inline int64_t index_of(uint64_t key) { return static_cast<int64_t>(key & kIndexMask); }

struct Output {
  int64_t k;
  const int64_t* ids;
  int32_t* distances;
  int64_t* indices;
  bool is_new;  // memory that was made for this search

  int64_t id(int64_t index) const { return ids == nullptr ? index : ids[index]; }
  void fill_up(int64_t query, int64_t found) const {
    std::fill(distances + query * k + found, distances + (query + 1) * k, kNoDistance);
    std::fill(indices + query * k + found, indices + (query + 1) * k, kNoIndex);
  }
};

// A search of `num_queries` queries, given as words, for the `wanted` nearest of `allowed` codes, 1 <= wanted <=
// allowed.
struct Search {
  const ScanKernels& kernels;
  const Codes& database;
  const uint64_t* words;
  int64_t num_queries, allowed, wanted;
  const Output& output;
  const Threads& threads;
  const int32_t* bounds;  // of each query, as hamming_topk takes them; null: none

  // How far a query has to look.
  int32_t bound(int64_t query) const {
    const auto all = static_cast<int32_t>(8 * database.width);
    return bounds == nullptr ? all : std::min(all, bounds[query]);
  }
};

// The smallest distance up to which there are `rank` keys, and how many lie below it. All keys are at most `largest`,
// which it is where they are fewer.
struct Cut {
  int64_t distance, below;
};
Cut cut_at(const uint64_t* keys, int64_t count, int64_t rank, int32_t largest);

// Room of a selection for more than is wanted: little, since the threshold only falls once it is used up, but enough
// that counting distances, a step for each of them, costs each code little.
inline int64_t capacity_of(int64_t limit, int64_t width) {
  constexpr int64_t kLeastRoom = 16;
  return limit + std::max({limit / 2, kLeastRoom, width});
}

// For `wanted` small against the database: a selection for each query.
void select_nearest(const Search& search);

// For `wanted` near `allowed`, which fits into 32 bits: all distances of a query, then a counting sort.
void rank_all(const Search& search);

}  // namespace adsq::cpu
