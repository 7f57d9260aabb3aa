// Top-k search on the GPU: which kernels run, on how many queries at a time, and the memory they take. All sizes come
// from shapes and the host waits for nothing, so that a CUDA graph can capture it.
#pragma once
#include <algorithm>

#include "cuda/hamming_rank_launch.cuh"
#include "cuda/hamming_select.cuh"

namespace adsq::cuda {

constexpr int kCandidates = 8192;  // of a query, 64 KB
constexpr int64_t kQueriesAtATime = 1024;
constexpr int64_t kMatrixQueries = 16;  // from how many queries on tensor cores are worth their tiles of eight

// Hands out parts of one piece of memory; without one it only adds up what is needed.
class Memory {
 public:
  explicit Memory(void* start = nullptr) : start_(static_cast<char*>(start)) {}
  template <typename T>
  T* take(int64_t count) {
    T* part = start_ == nullptr ? nullptr : reinterpret_cast<T*>(start_ + bytes_);
    bytes_ += (count * static_cast<int64_t>(sizeof(T)) + 15) / 16 * 16;
    return part;
  }
  int64_t bytes() const { return bytes_; }

 private:
  char* start_;
  int64_t bytes_ = 0;
};

// How to search; tests choose other numbers.
struct TopkOptions {
  bool on_tensor_cores = false;
  int64_t queries_at_a_time = kQueriesAtATime;
  int capacity = kCandidates;
  int max_selected = kMaxSelected;
};

struct TopkSearch {
  Filter filter;
  Ranking ranking;
  bool filters;  // else all queries are ranked
};

inline TopkSearch make_topk(const Codes& queries, const Codes& database, int64_t k, const TopkOptions& options,
                            Memory& memory) {
  TopkSearch search{};
  search.filters = k <= options.max_selected;
  search.ranking = make_ranking(queries, database);
  search.ranking.k = k;
  if (search.filters) {
    Filter& f = search.filter;
    f.queries = queries, f.database = database;
    f.k = static_cast<int>(k), f.capacity = options.capacity;
    f.thresholds = memory.take<int>(queries.count);
    f.counts = memory.take<unsigned>(queries.count);
    f.histogram = memory.take<unsigned>(queries.count * queries.num_distances());
    f.candidates = memory.take<unsigned long long>(queries.count * f.capacity);
    search.ranking.list = f.list = memory.take<int>(queries.count);
    search.ranking.list_size = f.list_size = memory.take<unsigned>(1);
  }
  choose_table(search.ranking);
  set_table(search.ranking, memory.take<int64_t>(table_words(search.ranking)));
  return search;
}

// Bytes of memory that hamming_topk needs
inline int64_t topk_bytes(Codes queries, const Codes& database, int64_t k, const TopkOptions& options) {
  queries.count = std::min(queries.count, options.queries_at_a_time);
  Memory memory;
  make_topk(queries, database, k, options, memory);
  return memory.bytes();
}

// The k nearest codes of each query by (distance, index), filled up with kNoDistance and -1.
template <typename Launcher>
void hamming_topk(Launcher& launcher, const Codes& queries, const Codes& database, int64_t k, Neighbours found,
                  const TopkOptions& options, void* memory) {
  for (int64_t first = 0; first < queries.count; first += options.queries_at_a_time) {
    const int64_t count = std::min(options.queries_at_a_time, queries.count - first);
    const Codes some = codes_at(queries.data + first * queries.width, count, queries.width);
    Memory parts(memory);
    const TopkSearch search = make_topk(some, database, k, options, parts);
    if (search.filters) {
      filter(launcher, search.filter, options.on_tensor_cores);
      select(launcher, search.filter, found);
    }
    rank_neighbours(launcher, search.ranking, {nullptr, k, found.ids, found.distances, found.indices});
    found.distances += count * k, found.indices += count * k;
  }
}

}  // namespace adsq::cuda
