// Exact search by Hamming distance on the CPU, on raw pointers. Results are ordered by (distance, index).
#pragma once
#include <cstdint>
#include <vector>

#include "cpu/hamming_pass.h"

namespace adsq::cpu {

constexpr int32_t kNoDistance = INT32_MAX;
constexpr int64_t kNoIndex = -1;

// The k nearest codes of each query: distances and indices [queries.count, k], filled up with kNoDistance and kNoIndex.
// Where `ids` is not null, ids[index] is returned for each index; ids ascend. `is_new` tells that the memory of the
// results was made for this search, not kept from others. Codes farther than bounds[query], where that is not null,
// need not be found.
void hamming_topk(const Codes& queries, const Codes& database, int64_t k, const int64_t* ids, int32_t* distances,
                  int64_t* indices, const Threads& threads, bool is_new = true, const int32_t* bounds = nullptr);

// Selections of searches within a radius, whose keys are freed with them.
struct OwnedSelections {
  std::vector<Selection> all;

  OwnedSelections() = default;
  OwnedSelections(const OwnedSelections&) = delete;
  OwnedSelections& operator=(const OwnedSelections&) = delete;
  ~OwnedSelections();
};

// All codes within a radius. The search runs in the constructor; the caller then makes room for the results.
class RangeSearch {
 public:
  RangeSearch(const Codes& queries, const Codes& database, int64_t radius, const Threads& threads);

  // Where the neighbours of each query begin, and at last how many there are in all: queries + 1 numbers.
  const std::vector<int64_t>& offsets() const { return offsets_; }
  // Writes offsets().back() distances and indices (or ids).
  void write(const int64_t* ids, int32_t* distances, int64_t* indices) const;

 private:
  const Threads& threads_;
  int num_distances_;
  int64_t parts_;
  OwnedSelections selections_;  // [query][part]
  std::vector<int64_t> offsets_;
};

}  // namespace adsq::cpu
