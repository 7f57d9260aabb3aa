// Search for a few nearest codes in one pass over the database: a sample gives each query a threshold, the filter keeps
// the codes within it, the selection orders them.
//
// Exactness: the filter lowers a query's threshold to T only where at least k codes within T are among its candidates,
// so no code that belongs to the result is ever left out by that. Where the sample's threshold was too small or there
// is no room for the candidates, the selection finds so and puts the query on the list of those that are still to be
// ranked (hamming_rank.cuh).
#pragma once
#include <cmath>

#include "cuda/hamming_codes.cuh"

namespace adsq::cuda {

constexpr int kThreads = 256;
constexpr int kMaxSelected = 2048;  // the k up to which this way is taken
constexpr int kSample = 4096;       // codes that a threshold is guessed from
constexpr unsigned kRound = 256;    // candidates of a query after which its threshold is reconsidered

struct Filter {
  Codes queries, database;
  int k;
  int capacity;                    // candidates a query
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
  const int64_t size = min(f.database.count, static_cast<int64_t>(kSample));
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

// How the filter is compiled for a number of words: codes a thread holds, queries it compares with at a time, and words
// from one query of the tile to the next.
template <int kWords, bool kWide>
struct FilterShape {
  static constexpr int kCodes = kWords <= 2 ? 8 : 4;
  static constexpr int kGroup = kWords <= 2 ? 4 / kWords : 1;  // codes in 16 bytes, which a thread reads at once
  static constexpr int kQueries = kWide ? 2 : 1;
  static constexpr int kChunk = kThreads * kCodes;  // codes a block holds
  static __host__ __device__ int stride(int num_words) {
    return kWide ? (num_words + kWords - 1) / kWords * kWords : kWords == 3 ? 4 : kWords;
  }
};

// The block's part of the database passes by its tile of queries: codes in registers, queries in shared memory.
template <int kWords, bool kWide>
__global__ void __launch_bounds__(kThreads, kWide         ? 2
                                            : kWords == 8 ? 3
                                                          : 4)
    filter_kernel(Filter f, int tile, int64_t chunks_a_part) {
  using Shape = FilterShape<kWords, kWide>;
  constexpr int kCodes = Shape::kCodes, kGroup = Shape::kGroup, kQueries = Shape::kQueries;
  ADSQ_DYNAMIC_SHARED(shared, uint32_t);
  int* const thresholds = reinterpret_cast<int*>(shared);  // [tile]
  uint32_t* const tile_words = shared + tile;              // [tile][stride]
  const int num_words = f.queries.num_words(), stride = Shape::stride(num_words), thread = threadIdx.x;
  const int pieces = kWide ? stride / kWords : 1;
  const int64_t tiles = (f.queries.count + tile - 1) / tile;
  const int64_t first_query = blockIdx.x % tiles * tile, part = blockIdx.x / tiles;
  const int rows = static_cast<int>(min(static_cast<int64_t>(tile), f.queries.count - first_query));
  for (int i = thread; i < tile * stride; i += kThreads) {
    const int row = i / stride, word = i % stride;
    tile_words[i] = 0;
    if (row < rows && word < num_words) load_words<1>(f.queries, first_query + row, word, &tile_words[i]);
  }
  const int refresh = max(1, 32 / tile);  // chunks between two looks at what other blocks have found
  for (int64_t chunk = 0; chunk < chunks_a_part; ++chunk) {
    const int64_t base = (part * chunks_a_part + chunk) * Shape::kChunk;
    if (base >= f.database.count) return;
    if (chunk % refresh == 0) {
      __syncthreads();
      for (int i = thread; i < tile; i += kThreads) {
        thresholds[i] = i < rows ? load_relaxed(&f.thresholds[first_query + i]) : -1;
      }
      __syncthreads();
    }
    const auto index_at = [&](int r) {
      return base + (static_cast<int64_t>(r / kGroup) * kThreads + thread) * kGroup + r % kGroup;
    };
    uint32_t codes[kCodes * kWords] = {};
    unsigned allowed = 0;  // a bit a code
    const bool by_group = kGroup > 1 && f.database.is_dense(4 * kWords) && base + Shape::kChunk <= f.database.count;
#pragma unroll
    for (int r = 0; r < kCodes; ++r) {
      const int64_t index = index_at(r);
      allowed |= static_cast<unsigned>(f.database.is_allowed(index)) << r;
      if constexpr (!kWide) {
        if (by_group) {
          if (r % kGroup == 0) copy_words<kGroup * kWords>(f.database.data + index * 4 * kWords, codes + r * kWords);
        } else if (index < f.database.count) {
          load_words<kWords>(f.database, index, 0, codes + r * kWords);
        }
      }
    }
    for (int row = 0; row < rows; row += kQueries) {
      int distances[kQueries][kCodes] = {};
      for (int piece = 0; piece < pieces; ++piece) {
        if constexpr (kWide) {
#pragma unroll
          for (int r = 0; r < kCodes; ++r) {
            const int64_t index = index_at(r);
            if (index < f.database.count) load_words<kWords>(f.database, index, piece * kWords, codes + r * kWords);
          }
        }
#pragma unroll
        for (int q = 0; q < kQueries; ++q) {
          uint32_t query[kWords];
          copy_words<kWords>(tile_words + (row + q) * stride + piece * kWords, query);
#pragma unroll
          for (int r = 0; r < kCodes; ++r) {
            distances[q][r] = add_distance<kWords>(distances[q][r], codes + r * kWords, query);
          }
        }
      }
#pragma unroll
      for (int q = 0; q < kQueries; ++q) {
        const int threshold = load_relaxed(&thresholds[row + q]);
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
          keep(f, first_query + row + q, distance, index_at(hit), &thresholds[row + q]);
        }
      }
    }
  }
}

// Sample and filter for all queries. `sms`: multiprocessors of the device, which only the speed depends on.
inline void launch_filter(const Filter& f, int sms, void* stream) {
  const int64_t count = f.queries.count;
  ADSQ_LAUNCH(sample_kernel, count, kThreads, 0, stream, f);
  dispatch_words(f.queries.num_words(), [&](auto words, auto wide) {
    using Shape = FilterShape<words.value, wide.value>;
    const int64_t most = wide.value ? 32 : 128;  // queries a tile: 16 KB of shared memory at most
    const int64_t tiles = (count + most - 1) / most, tile = ((count + tiles - 1) / tiles + 3) / 4 * 4;
    const int64_t chunks = (f.database.count + Shape::kChunk - 1) / Shape::kChunk;
    const int64_t parts = (8 * sms + tiles - 1) / tiles, chunks_a_part = (chunks + parts - 1) / parts;
    if (chunks == 0) return;
    const int64_t blocks = tiles * ((chunks + chunks_a_part - 1) / chunks_a_part);
    const size_t bytes = static_cast<size_t>(tile * (1 + Shape::stride(f.queries.num_words()))) * sizeof(uint32_t);
    ADSQ_LAUNCH((filter_kernel<words.value, wide.value>), blocks, kThreads, bytes, stream, f, static_cast<int>(tile),
                chunks_a_part);
  });
}

}  // namespace adsq::cuda
