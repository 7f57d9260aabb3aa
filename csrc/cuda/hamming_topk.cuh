// Top-k search on the GPU: which kernels run, on how many queries at a time, and the memory they take. All sizes come
// from shapes and the host waits for nothing, so that a CUDA graph can capture it.
#pragma once
#include <algorithm>

#include "cuda/hamming_rank_launch.cuh"
#include "cuda/hamming_select.cuh"
#include "cuda/inputs.h"

namespace adsq::cuda {

constexpr int64_t kCandidates = 8192;          // of a query at least, and eight for each that is wanted
constexpr int64_t kCandidateBytes = 64 << 20;  // of the queries that are searched at a time
constexpr int64_t kFewCandidates = 32768;      // of a query, where that leaves room for all queries
constexpr int64_t kSample = 16384;             // codes compared first
constexpr int64_t kMatrixQueries = 16;         // from how many queries on tensor cores are worth their tiles of eight

// How to search; tests choose other numbers.
struct TopkOptions {
  bool on_tensor_cores;
  int64_t capacity, queries_at_a_time, sample, max_selected;

  TopkOptions(int64_t num_queries, int64_t num_codes, int64_t k, bool on_tensor_cores)
      : on_tensor_cores(on_tensor_cores), sample(kSample), max_selected(kMaxSelected) {
    const int64_t few = std::min({kFewCandidates, num_codes, kCandidateBytes / 8 / std::max<int64_t>(num_queries, 1)});
    capacity = std::max({kCandidates, 8 * std::min(k, max_selected), few});
    queries_at_a_time = std::min(num_queries, kCandidateBytes / 8 / capacity);
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
  uint32_t* words = nullptr;                       // of the sample, which many queries share
  bool* allowed = nullptr;
  if (filters) {
    const auto array = [&](auto*& pointer, int64_t count) {
      pointer = static_cast<std::decay_t<decltype(pointer)>>(allocate(count * static_cast<int64_t>(sizeof(*pointer))));
    };
    f.k = static_cast<int>(k), f.capacity = static_cast<int>(options.capacity);
    while (options.sample >> f.sample_bits > 1) ++f.sample_bits;
    array(f.thresholds, at_a_time);
    array(f.counts, at_a_time);
    array(f.histogram, at_a_time * all.num_distances());
    array(f.candidates, at_a_time * f.capacity);
    array(f.list, at_a_time);
    array(f.list_size, 1);
    ranking.list = f.list, ranking.list_size = f.list_size;
    if (queries.count >= kMatrixQueries) {
      array(words, f.sample_size() * all.num_words());
      if (mask != nullptr) array(allowed, f.sample_size());
      f.sampled = codes_at(words, f.sample_size(), 4 * all.num_words(), allowed);
    }
  }
  choose_table(ranking);
  set_table(ranking, allocate(8 * table_words(ranking)));
  for (int64_t first = 0; first < queries.count; first += at_a_time) {
    const auto* from = static_cast<const uint8_t*>(queries.data) + first * queries.width;
    f.queries = ranking.queries = codes_at(from, std::min(at_a_time, queries.count - first), queries.width);
    ranking.num_rows = f.queries.count;
    if (filters) {
      filter(launcher, f, options.on_tensor_cores, words, allowed);
      select(launcher, f, found);
    }
    rank_neighbours(launcher, ranking, {nullptr, k, found.ids, found.distances, found.indices});
    found.distances += f.queries.count * k, found.indices += f.queries.count * k;
  }
}

}  // namespace adsq::cuda
