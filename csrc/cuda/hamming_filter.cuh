// Search for a few nearest codes in one pass over the database: a sample gives each query a threshold, the filter keeps
// the codes within it, the selection orders them.
//
// Exactness: the filter lowers a query's threshold to T only where at least k codes within T are among its candidates,
// so no code that belongs to the result is ever left out by that. Where the sample's threshold was too small or there
// is no room for the candidates, the selection finds so and puts the query on the list of those that are still to be
// ranked (hamming_rank.cuh).
#pragma once
#include "cuda/hamming_sample.cuh"

namespace adsq::cuda {

constexpr int kMaxSelected = 2048;  // the k up to which this way is taken
constexpr unsigned kRound = 64;     // candidates of a query after which its threshold is reconsidered
constexpr int kHits = 2048;         // that a block remembers before it takes them up among the candidates

// Takes a code up among the candidates of a query; returns whether its threshold has to be reconsidered.
__device__ inline bool keep(const Filter& f, int64_t query, unsigned long long key) {
  const unsigned place = atomicAdd(&f.counts[query], 1u);
  if (place >= static_cast<unsigned>(f.capacity)) {
    atomicMin(&f.thresholds[query], -1);
    return false;
  }
  f.candidates[query * f.capacity + place] = key;
  atomicAdd(&f.histogram[query * f.queries.num_distances() + distance_of(key)], 1u);
  return (place + 1) % kRound == 0 && place + 1 >= static_cast<unsigned>(f.k);
}

// The same for a single thread, which does all of it; `copy` is the block's copy of the query's threshold.
__device__ inline void keep_alone(const Filter& f, int64_t query, unsigned long long key, int* copy) {
  int threshold = -1;
  if (keep(f, query, key)) {
    const int last = f.queries.num_distances() - 1;
    unsigned within = 0;
    for (threshold = 0; threshold < last; ++threshold) {
      within += load_relaxed(&f.histogram[query * (last + 1) + threshold]);
      if (within >= static_cast<unsigned>(f.k)) break;
    }
    atomicMin(&f.thresholds[query], threshold);
  } else if (load_relaxed(&f.counts[query]) <= static_cast<unsigned>(f.capacity)) {
    return;
  }
  atomicMin(copy, threshold);
}

// A code within a query's threshold, as a block remembers it since it last looked at the thresholds: the distance, and
// by the lowest bits the place among the chunks that have passed by since, tile of queries by tile of queries.
constexpr int kOffsetBits = 11, kRowBits = 8;  // of the code in its chunk; of the query in the tile, plus tiles before
struct Hits {
  int64_t base;                  // of the first chunk
  int first_query, tile, chunk;  // of the tile; queries; codes

  __device__ int row(uint32_t hit) const { return (hit >> kOffsetBits & ((1 << kRowBits) - 1)) % tile; }
  __device__ unsigned long long key(uint32_t hit) const {
    const int passed = (hit >> kOffsetBits & ((1 << kRowBits) - 1)) / tile, offset = hit & ((1 << kOffsetBits) - 1);
    return make_key(static_cast<int>(hit >> (kOffsetBits + kRowBits)), base + passed * chunk + offset);
  }
};

// Takes up what the block remembers, a hit a thread, and reconsiders thresholds, a query a warp.
__device__ inline void keep_hits(const Filter& f, const Hits& hits, const uint32_t* remembered, unsigned count) {
  const int lane = threadIdx.x % 32, last = f.queries.num_distances() - 1;
  for (unsigned start = 0; start < count; start += kThreads) {
    const unsigned i = start + threadIdx.x;
    bool reconsider = false;
    int64_t query = hits.first_query;
    if (i < count) {
      query += hits.row(remembered[i]);
      const unsigned long long key = hits.key(remembered[i]);
      // Other blocks may have lowered it meanwhile.
      if (distance_of(key) <= load_relaxed(&f.thresholds[query])) reconsider = keep(f, query, key);
    }
    for (unsigned left = __ballot_sync(kAllLanes, reconsider); left != 0; left &= left - 1) {
      const int64_t lowered = __shfl_sync(kAllLanes, query, __ffs(static_cast<int>(left)) - 1);
      const int threshold = rank_distance(f.histogram + lowered * (last + 1), last, static_cast<unsigned>(f.k));
      if (lane == 0) atomicMin(&f.thresholds[lowered], threshold);
    }
  }
}

// The block's part of the database passes by its tile of queries, by the way of comparing of hamming_compare.cuh. Hits
// are remembered in shared memory: taking one up waits for global memory, several times.
template <typename Compare>
__global__ void __launch_bounds__(kThreads, Compare::kBlocks) filter_kernel(Filter f, int tile, int64_t chunks_a_part) {
  constexpr int kCodes = Compare::kCodes, kQueries = Compare::kQueries, kChunk = kThreads * Compare::kCodesAThread;
  static_assert(kChunk <= 1 << kOffsetBits && Compare::kTile <= 1 << kRowBits);
  ADSQ_SHARED(remembered, uint32_t[kHits]);
  ADSQ_SHARED(num_hits, unsigned);
  ADSQ_DYNAMIC_SHARED(shared, uint32_t);
  int* const thresholds = reinterpret_cast<int*>(shared);  // [tile]
  uint32_t* const words = shared + tile;                   // [tile][stride]
  const int stride = Compare::stride(f.queries.num_words()), thread = threadIdx.x;
  const int queries = static_cast<int>(f.queries.count), tiles = (queries + tile - 1) / tile;
  const int first_query = static_cast<int>(blockIdx.x) % tiles * tile, rows = min(tile, queries - first_query);
  Hits hits{blockIdx.x / tiles * chunks_a_part * kChunk, first_query, tile, kChunk};
  for (int i = thread; i < tile * stride; i += kThreads) {
    const int row = i / stride;
    words[i] = row < rows ? Compare::query_word(f.queries, first_query + row, i % stride) : 0;
  }
  if (thread == 0) num_hits = 0;
  const int refresh = max(1, 32 / tile);  // chunks between two looks at what other blocks have found
  int64_t base = hits.base;
  const int64_t end = min(base + chunks_a_part * kChunk, f.database.count);
  for (int passed = refresh;; ++passed, base += kChunk) {
    if (passed == refresh || base >= end) {
      __syncthreads();
      keep_hits(f, hits, remembered, min(num_hits, static_cast<unsigned>(kHits)));
      if (base >= end) return;
      __syncthreads();
      if (thread == 0) num_hits = 0;
      for (int i = thread; i < tile; i += kThreads) {
        thresholds[i] = i < rows ? load_relaxed(&f.thresholds[first_query + i]) : -1;
      }
      __syncthreads();
      passed = 0, hits.base = base;
    }
    Compare compare;
    compare.load(f.database, base);
    unsigned allowed = 0;  // a bit a code
#pragma unroll
    for (int r = 0; r < kCodes; ++r) {
      allowed |= static_cast<unsigned>(f.database.is_allowed(Compare::index_at(base, r))) << r;
    }
    const uint32_t* row_words = words + Compare::first_word(stride);
    int* row_thresholds = thresholds + Compare::row_at(0);
    const uint32_t offset = static_cast<uint32_t>(Compare::index_at(0, 0));
#pragma unroll 1  // a step compares enough codes at a time
    for (int first = 0; first < rows; first += Compare::kRows) {
      int threshold[kQueries], distances[kQueries][kCodes];
      compare.compare(f.database, base, row_words, stride, distances);
      bool is_hit = false;
#pragma unroll
      for (int q = 0; q < kQueries; ++q) {
        int nearest = distances[q][0];
#pragma unroll
        for (int r = 1; r < kCodes; ++r) nearest = min(nearest, distances[q][r]);
        threshold[q] = load_relaxed(&row_thresholds[q]);
        is_hit |= nearest <= threshold[q];
      }
      if (is_hit) {
        const uint32_t place = (passed * tile + first + Compare::row_at(0)) << kOffsetBits | offset;
#pragma unroll
        for (int i = 0; i < kQueries * kCodes; ++i) {
          const int q = i / kCodes, r = i % kCodes;
          if (distances[q][r] > threshold[q] || (allowed >> r & 1) == 0) continue;
          const uint32_t hit = static_cast<uint32_t>(distances[q][r]) << (kOffsetBits + kRowBits) |
                               (place + (q << kOffsetBits) + Compare::offset_at(r));
          const unsigned free = atomicAdd(&num_hits, 1u);
          if (free < kHits) {
            remembered[free] = hit;
          } else if (distances[q][r] <= load_relaxed(&row_thresholds[q])) {
            keep_alone(f, first_query + hits.row(hit), hits.key(hit), &row_thresholds[q]);
          }
        }
      }
      if constexpr (Compare::kTogether) __syncwarp();
      row_words += Compare::kRows * stride, row_thresholds += Compare::kRows;
    }
  }
}

template <typename Compare, typename Launcher>
void run_filter(Launcher& launcher, const Filter& f) {
  constexpr int64_t kChunk = kThreads * Compare::kCodesAThread;
  const int64_t tiles = (f.queries.count + Compare::kTile - 1) / Compare::kTile;
  const int64_t tile = ((f.queries.count + tiles - 1) / tiles + 7) / 8 * 8;
  const int64_t chunks = (f.database.count + kChunk - 1) / kChunk;
  const int64_t parts = (8 * launcher.processors() + tiles - 1) / tiles;
  const int64_t chunks_a_part = chunks > parts ? (chunks + parts - 1) / parts : 1;
  const size_t bytes = static_cast<size_t>(tile * (1 + Compare::stride(f.queries.num_words()))) * sizeof(uint32_t);
  launcher.run(filter_kernel<Compare>, tiles * ((chunks + chunks_a_part - 1) / chunks_a_part), kThreads, bytes, f,
               static_cast<int>(tile), chunks_a_part);
}

// Sample and filter for all queries. `words` and `allowed`, or nullptr: memory of f.sampled.
template <typename Launcher>
void filter(Launcher& launcher, const Filter& f, bool on_tensor_cores, uint32_t* words, bool* allowed) {
  const int64_t size = f.sample_size();
  int64_t threads = std::min<int64_t>(kSampleThreads, (size + 32 * kSampleStep - 1) / (32 * kSampleStep) * 32);
  if (words != nullptr) {
    launcher.run(gather_kernel, (size + kThreads - 1) / kThreads, kThreads, 0, f, words, allowed);
    threads = std::min<int64_t>(threads, kThreads);
  }
  const int num_words = f.queries.num_words();
  dispatch_words(num_words, [&](auto words, auto wide) {
    launcher.run(sample_kernel<decltype(words)::value, decltype(wide)::value>, f.queries.count,
                 static_cast<int>(std::max<int64_t>(threads, 32)), 0, f);
  });
  if (on_tensor_cores && num_words <= kMatrixWords) {
    if (num_words <= 2) return run_filter<BitMatrices<2>>(launcher, f);
    if (num_words <= 4) return run_filter<BitMatrices<4>>(launcher, f);
    return run_filter<BitMatrices<8>>(launcher, f);
  }
  dispatch_words(num_words, [&](auto words, auto wide) {
    run_filter<BitCounts<decltype(words)::value, decltype(wide)::value>>(launcher, f);
  });
}

}  // namespace adsq::cuda
