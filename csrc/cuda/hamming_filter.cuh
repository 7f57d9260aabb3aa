// Search for a few nearest codes in one pass over the database: a sample gives each query a threshold, the filter keeps
// the codes within it, the selection orders them.
//
// Exactness: the filter lowers a query's threshold to T only where at least k codes within T are among its candidates,
// so no code that belongs to the result is ever left out by that. Where the sample's threshold was too small or there
// is no room for the candidates, the selection finds so and puts the query on the list of those that are still to be
// ranked (hamming_rank.cuh).
#pragma once
#include <cmath>

#include "cuda/hamming_compare.cuh"

namespace adsq::cuda {

constexpr int kMaxSelected = 2048;  // the k up to which this way is taken
constexpr unsigned kRound = 256;    // candidates of a query after which its threshold is reconsidered

struct Filter {
  Codes queries, database;
  int k;
  int capacity;                    // candidates a query
  int sample;                      // codes that a threshold is guessed from
  int* thresholds;                 // [queries]; -1: given up
  unsigned* counts;                // [queries], candidates; above `capacity`: given up
  unsigned* histogram;             // [queries, distances], candidates at each distance
  unsigned long long* candidates;  // [queries, capacity], keys in any order
  int* list;                       // [queries], those still to be ranked, in any order
  unsigned* list_size;             // zero at first
};

// The smallest distance within which `wanted` of the counted codes lie, or `last`. All lanes of one warp call it.
__device__ inline int rank_distance(const unsigned* counts, int last, unsigned wanted) {
  const int lane = threadIdx.x % 32;
  unsigned before = 0;
  for (int first = 0; first <= last; first += 32) {
    unsigned sum = first + lane <= last ? load_relaxed(&counts[first + lane]) : 0;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const unsigned other = __shfl_up_sync(kAllLanes, sum, step);
      if (lane >= step) sum += other;
    }
    const unsigned reached = __ballot_sync(kAllLanes, before + sum >= wanted);
    if (reached != 0) return min(first + __ffs(static_cast<int>(reached)) - 1, last);
    before += __shfl_sync(kAllLanes, sum, 31);
  }
  return last;
}

// A block a query: empties what the filter fills and guesses the threshold from one code of each of equal stretches.
// Where all codes fit the sample the guess is exact.
__global__ void __launch_bounds__(kThreads) sample_kernel(Filter f) {
  ADSQ_SHARED(sample, unsigned[8 * 512 + 1]);
  ADSQ_SHARED(sampled, unsigned);
  const int64_t query = blockIdx.x;
  const int last = f.queries.num_distances() - 1;
  unsigned* histogram = f.histogram + query * (last + 1);
  for (int d = threadIdx.x; d <= last; d += kThreads) sample[d] = histogram[d] = 0;
  if (threadIdx.x == 0) {
    f.counts[query] = sampled = 0;
    if (query == 0) *f.list_size = 0;
  }
  __syncthreads();
  const int64_t size = min(f.database.count, static_cast<int64_t>(f.sample));
  for (int64_t i = threadIdx.x; i < size; i += kThreads) {
    const int64_t first = i * f.database.count / size, end = (i + 1) * f.database.count / size;
    const uint32_t mixed = static_cast<uint32_t>(i + 1) * 2654435761u;
    const int64_t index = first + static_cast<int64_t>((mixed ^ mixed >> 15) % static_cast<uint64_t>(end - first));
    if (!f.database.is_allowed(index)) continue;
    int distance = 0;
    for (int w = 0; w < f.queries.num_words(); ++w) {
      uint32_t a, b;
      load_words<1>(f.queries, query, w, &a);
      load_words<1>(f.database, index, w, &b);
      distance = add_distance<1>(distance, &a, &b);
    }
    atomicAdd(&sample[distance], 1u);
    atomicAdd(&sampled, 1u);
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    // Four deviations above the rank that is expected of the k-th neighbour in the sample, and some for small ranks
    const float expected = static_cast<float>(f.k) * static_cast<float>(size) / static_cast<float>(f.database.count);
    const unsigned wanted = size == f.database.count ? f.k : static_cast<unsigned>(expected + 4 * sqrt(expected) + 4);
    const int threshold = wanted <= sampled ? rank_distance(sample, last, wanted) : last;
    if (threadIdx.x == 0) f.thresholds[query] = threshold;
  }
}

// Takes a code up among the candidates of a query; `shared_threshold` is the block's copy of the query's threshold.
__device__ inline void keep(const Filter& f, int64_t query, int distance, int64_t index, int* shared_threshold) {
  const int num_distances = f.queries.num_distances();
  const unsigned place = atomicAdd(&f.counts[query], 1u);
  if (place >= static_cast<unsigned>(f.capacity)) {
    atomicMin(&f.thresholds[query], -1);
    atomicMin(shared_threshold, -1);
    return;
  }
  f.candidates[query * f.capacity + place] = make_key(distance, index);
  unsigned* histogram = f.histogram + query * num_distances;
  atomicAdd(&histogram[distance], 1u);
  if ((place + 1) % kRound != 0 || place + 1 < static_cast<unsigned>(f.k)) return;
  unsigned within = 0;
  for (int d = 0; d < num_distances; ++d) {
    within += load_relaxed(&histogram[d]);
    if (within >= static_cast<unsigned>(f.k)) {
      atomicMin(&f.thresholds[query], d);
      atomicMin(shared_threshold, d);
      return;
    }
  }
}

// The block's part of the database passes by its tile of queries, by the way of comparing of hamming_compare.cuh.
template <typename Compare>
__global__ void __launch_bounds__(kThreads, Compare::kBlocks) filter_kernel(Filter f, int tile, int64_t chunks_a_part) {
  constexpr int kCodes = Compare::kCodes, kQueries = Compare::kQueries, kChunk = kThreads * Compare::kCodesAThread;
  ADSQ_DYNAMIC_SHARED(shared, uint32_t);
  int* const thresholds = reinterpret_cast<int*>(shared);  // [tile]
  uint32_t* const words = shared + tile;                   // [tile][stride]
  const int stride = Compare::stride(f.queries.num_words()), thread = threadIdx.x;
  const int64_t tiles = (f.queries.count + tile - 1) / tile;
  const int64_t first_query = blockIdx.x % tiles * tile, part = blockIdx.x / tiles;
  const int rows = static_cast<int>(min(static_cast<int64_t>(tile), f.queries.count - first_query));
  for (int i = thread; i < tile * stride; i += kThreads) {
    const int row = i / stride;
    words[i] = row < rows ? Compare::query_word(f.queries, first_query + row, i % stride) : 0;
  }
  const int refresh = max(1, 32 / tile);  // chunks between two looks at what other blocks have found
  for (int64_t chunk = 0; chunk < chunks_a_part; ++chunk) {
    const int64_t base = (part * chunks_a_part + chunk) * kChunk;
    if (base >= f.database.count) return;
    if (chunk % refresh == 0) {  // by atomics, as other warps may still use the last ones
      for (int i = thread; i < tile; i += kThreads) {
        atomicExch(&thresholds[i], i < rows ? load_relaxed(&f.thresholds[first_query + i]) : -1);
      }
      __syncthreads();
    }
    Compare compare;
    compare.load(f.database, base);
    unsigned allowed = 0;  // a bit a code
#pragma unroll
    for (int r = 0; r < kCodes; ++r) {
      allowed |= static_cast<unsigned>(f.database.is_allowed(Compare::index_at(base, r))) << r;
    }
#pragma unroll 1  // a step compares enough codes at a time
    for (int first = 0; first < rows; first += Compare::kRows) {
      int distances[kQueries][kCodes];
      compare.compare(f.database, base, words + first * stride, stride, distances);
#pragma unroll
      for (int q = 0; q < kQueries; ++q) {
        const int row = first + Compare::row_at(q), threshold = load_relaxed(&thresholds[row]);
        int nearest = distances[q][0];
#pragma unroll
        for (int r = 1; r < kCodes; ++r) nearest = min(nearest, distances[q][r]);
        if (nearest > threshold) continue;
        unsigned hits = 0;
#pragma unroll
        for (int r = 0; r < kCodes; ++r) hits |= static_cast<unsigned>(distances[q][r] <= threshold) << r;
        for (hits &= allowed; hits != 0; hits &= hits - 1) {
          const int hit = __ffs(static_cast<int>(hits)) - 1;
          int distance = 0;  // picked without an index: registers have none
#pragma unroll
          for (int r = 0; r < kCodes; ++r) distance = r == hit ? distances[q][r] : distance;
          keep(f, first_query + row, distance, Compare::index_at(base, hit), &thresholds[row]);
        }
      }
      if constexpr (Compare::kTogether) __syncwarp();
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

// Sample and filter for all queries.
template <typename Launcher>
void filter(Launcher& launcher, const Filter& f, bool on_tensor_cores) {
  launcher.run(sample_kernel, f.queries.count, kThreads, 0, f);
  const int num_words = f.queries.num_words();
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
