// Top-k search on the GPU: which kernels run, on how many queries at a time, and the memory they take. All sizes come
// from shapes and the host waits for nothing, so that a CUDA graph can capture it.
#pragma once
#include <algorithm>

#include "cuda/hamming_rank_launch.cuh"
#include "cuda/hamming_select.cuh"
#include "cuda/inputs.h"

namespace adsq::cuda {

constexpr int64_t kCandidates = 8192;           // of a query at least, and eight for each that is wanted
constexpr int64_t kCandidateBytes = 64 << 20;   // of the queries that are searched at a time
constexpr int64_t kSample = 4096, kShare = 64;  // codes compared first: at least, and one in so many for more queries
constexpr int64_t kMatrixQueries = 16;          // from how many queries on tensor cores are worth their tiles of eight

// How to search; tests choose other numbers.
struct TopkOptions {
  bool on_tensor_cores;
  int64_t capacity, queries_at_a_time, sample, max_selected;

  TopkOptions(int64_t num_queries, int64_t num_codes, int64_t k, bool on_tensor_cores)
      : on_tensor_cores(on_tensor_cores), max_selected(kMaxSelected) {
    capacity = std::max(kCandidates, 8 * std::min(k, max_selected));
    queries_at_a_time = std::min(num_queries, kCandidateBytes / 8 / capacity);
    // A single query waits for its sample; many share the GPU, and fewer candidates are worth more.
    const int64_t share = num_queries < kMatrixQueries ? 0 : num_codes / kShare;
    sample = std::min(std::max(kSample, share), 4 * kSample);
  }
};

// The k nearest codes of each query by (distance, index), filled up with kNoDistance and -1.
template <typename Launcher>
void hamming_topk(Launcher& launcher, const PackedCodes& queries, const PackedCodes& database, const bool* mask,
                  int64_t k, Neighbours found, const Allocate& allocate, const TopkOptions& options) {
  const int64_t at_a_time = options.queries_at_a_time;
  const Codes all = codes_at(database.data, database.count, database.width, mask);
  Filter f{codes_at(queries.data, at_a_time, queries.width), all};
  Ranking ranking = make_ranking(f.queries, all);
  const bool filters = k <= options.max_selected;  // else all queries are ranked
  if (filters) {
    const auto array = [&](auto*& pointer, int64_t count) {
      pointer = static_cast<std::decay_t<decltype(pointer)>>(allocate(count * static_cast<int64_t>(sizeof(*pointer))));
    };
    f.k = static_cast<int>(k), f.capacity = static_cast<int>(options.capacity);
    f.sample = static_cast<int>(options.sample);
    array(f.thresholds, at_a_time);
    array(f.counts, at_a_time);
    array(f.histogram, at_a_time * all.num_distances());
    array(f.candidates, at_a_time * f.capacity);
    array(f.list, at_a_time);
    array(f.list_size, 1);
    ranking.list = f.list, ranking.list_size = f.list_size;
  }
  choose_table(ranking);
  set_table(ranking, allocate(8 * table_words(ranking)));
  for (int64_t first = 0; first < queries.count; first += at_a_time) {
    const auto* from = static_cast<const uint8_t*>(queries.data) + first * queries.width;
    f.queries = ranking.queries = codes_at(from, std::min(at_a_time, queries.count - first), queries.width);
    ranking.num_rows = f.queries.count;
    if (filters) {
      filter(launcher, f, options.on_tensor_cores);
      select(launcher, f, found);
    }
    rank_neighbours(launcher, ranking, {nullptr, k, found.ids, found.distances, found.indices});
    found.distances += f.queries.count * k, found.indices += f.queries.count * k;
  }
}

}  // namespace adsq::cuda
