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
constexpr unsigned kRound = 64;     // candidates of a query after which its threshold is reconsidered
constexpr int kHits = 1024;         // that a block remembers before it takes them up among the candidates
constexpr int kSampleThreads = 1024, kSampleStep = 4;  // of a block, and codes that a thread compares at a time

struct Filter {
  Codes queries, database;
  Codes sampled;  // the sample side by side, for many queries; without data: it is read where it is
  int k;
  int capacity;                    // candidates a query
  int sample_bits;                 // log2 of the number of codes that a threshold is guessed from
  int* thresholds;                 // [queries]; -1: given up
  unsigned* counts;                // [queries], candidates; above `capacity`: given up
  unsigned* histogram;             // [queries, distances], candidates at each distance
  unsigned long long* candidates;  // [queries, capacity], keys in any order
  int* list;                       // [queries], those still to be ranked, in any order
  unsigned* list_size;             // zero at first

  __host__ __device__ int64_t sample_size() const {
    return database.count >> sample_bits == 0 ? database.count : int64_t{1} << sample_bits;
  }
  // The i-th code of the sample: any of the i-th of equal stretches, but of all codes where they fit. Without a
  // division, which takes a GPU longer than the comparison.
  __device__ int64_t sample_index(int64_t i) const {
    if (database.count >> sample_bits == 0) return i;
    const int64_t first = i * database.count >> sample_bits, end = (i + 1) * database.count >> sample_bits;
    const uint32_t mixed = static_cast<uint32_t>(i + 1) * 2654435761u;
    return first + static_cast<int64_t>(uint64_t{mixed ^ mixed >> 15} * static_cast<uint32_t>(end - first) >> 32);
  }
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

// Puts the codes of the sample side by side, whole words each, with whether they are allowed.
__global__ void __launch_bounds__(kThreads) gather_kernel(Filter f, uint32_t* words, bool* allowed) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= f.sample_size()) return;
  const int64_t index = f.sample_index(i);
  const int num_words = f.database.num_words();
  for (int w = 0; w < num_words; ++w) load_words<1>(f.database, index, w, words + i * num_words + w);
  if (allowed != nullptr) allowed[i] = f.database.is_allowed(index);
}

// A block a query: empties what the filter fills and guesses the threshold from the sample. Where that is all codes the
// guess is exact.
template <int kWords, bool kWide>
__global__ void __launch_bounds__(kSampleThreads) sample_kernel(const Filter f) {
  ADSQ_SHARED(sample, unsigned[8 * 512 + 1]);
  const int64_t query = blockIdx.x;
  const int last = f.queries.num_distances() - 1, threads = static_cast<int>(blockDim.x);
  unsigned* histogram = f.histogram + query * (last + 1);
  for (int d = threadIdx.x; d <= last; d += threads) sample[d] = histogram[d] = 0;
  if (threadIdx.x == 0) {
    f.counts[query] = 0;
    if (query == 0) *f.list_size = 0;
  }
  __syncthreads();
  const bool gathered = f.sampled.data != nullptr;
  const Codes codes = gathered ? f.sampled : f.database;
  const int64_t size = f.sample_size();
  uint32_t words[kWords], wanted_words[kWords];
  if constexpr (!kWide) load_words<kWords>(f.queries, query, 0, wanted_words);
  for (int64_t start = threadIdx.x; start < size; start += threads * kSampleStep) {
    int distances[kSampleStep];  // first all of them, so that their codes are on their way at the same time
#pragma unroll
    for (int s = 0; s < kSampleStep; ++s) {
      const int64_t i = start + s * threads, index = gathered || i >= size ? i : f.sample_index(i);
      distances[s] = -1;
      if (i >= size || !codes.is_allowed(index)) continue;
      distances[s] = 0;
      for (int w = 0; w < (kWide ? f.queries.num_words() : 1); w += kWords) {
        if constexpr (kWide) load_words<kWords>(f.queries, query, w, wanted_words);
        load_words<kWords>(codes, index, w, words);
        distances[s] = add_distance<kWords>(distances[s], wanted_words, words);
      }
    }
#pragma unroll
    for (int s = 0; s < kSampleStep; ++s) {
      if (distances[s] >= 0) atomicAdd(&sample[distances[s]], 1u);
    }
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    // Four deviations above the rank that is expected of the k-th neighbour in the sample, and some for small ranks
    const float expected = static_cast<float>(f.k) * static_cast<float>(size) / static_cast<float>(f.database.count);
    const unsigned wanted = size == f.database.count ? f.k : static_cast<unsigned>(expected + 4 * sqrt(expected) + 4);
    const int threshold = rank_distance(sample, last, wanted);
    if (threadIdx.x == 0) f.thresholds[query] = threshold;
  }
}

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

// Takes up what the block remembers, a hit a thread, and reconsiders thresholds, a query a warp.
__device__ inline void keep_hits(const Filter& f, int64_t first_query, const unsigned long long* keys,
                                 const uint16_t* rows, unsigned count) {
  const int lane = threadIdx.x % 32, last = f.queries.num_distances() - 1;
  for (unsigned start = 0; start < count; start += kThreads) {
    const unsigned i = start + threadIdx.x;
    bool reconsider = false;
    int64_t query = first_query;
    if (i < count) {
      query += rows[i];
      // Other blocks may have lowered it meanwhile.
      if (distance_of(keys[i]) <= load_relaxed(&f.thresholds[query])) reconsider = keep(f, query, keys[i]);
    }
    for (unsigned left = __ballot_sync(kAllLanes, reconsider); left != 0; left &= left - 1) {
      const int64_t lowered = __shfl_sync(kAllLanes, query, __ffs(static_cast<int>(left)) - 1);
      const int threshold = rank_distance(f.histogram + lowered * (last + 1), last, static_cast<unsigned>(f.k));
      if (lane == 0) atomicMin(&f.thresholds[lowered], threshold);
    }
  }
}

// The block's part of the database passes by its tile of queries, by the way of comparing of hamming_compare.cuh. Codes
// within a threshold, hits, are remembered in shared memory: taking one up waits for global memory, several times.
template <typename Compare>
__global__ void __launch_bounds__(kThreads, Compare::kBlocks) filter_kernel(Filter f, int tile, int64_t chunks_a_part) {
  constexpr int kCodes = Compare::kCodes, kQueries = Compare::kQueries, kChunk = kThreads * Compare::kCodesAThread;
  ADSQ_SHARED(keys, unsigned long long[kHits]);
  ADSQ_SHARED(key_rows, uint16_t[kHits]);
  ADSQ_SHARED(num_hits, unsigned);
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
  if (thread == 0) num_hits = 0;
  const int refresh = max(1, 32 / tile);  // chunks between two looks at what other blocks have found
  int64_t base = part * chunks_a_part * kChunk;
  const int64_t end = min(base + chunks_a_part * kChunk, f.database.count);
  for (int chunk = 0;; ++chunk, base += kChunk) {
    const bool is_over = base >= end;
    if (is_over || chunk % refresh == 0) {
      __syncthreads();
      keep_hits(f, first_query, keys, key_rows, min(num_hits, static_cast<unsigned>(kHits)));
      if (is_over) return;
      __syncthreads();
      if (thread == 0) num_hits = 0;
      for (int i = thread; i < tile; i += kThreads) {
        thresholds[i] = i < rows ? load_relaxed(&f.thresholds[first_query + i]) : -1;
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
    const uint32_t* row_words = words + Compare::first_word(stride);
    int* row_thresholds = thresholds + Compare::row_at(0);
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
      unsigned hits = 0;  // a bit a code, all of a query side by side
      if (is_hit) {
#pragma unroll
        for (int i = 0; i < kQueries * kCodes; ++i) {
          hits |= static_cast<unsigned>(distances[i / kCodes][i % kCodes] <= threshold[i / kCodes]) << i;
        }
        hits &= kQueries == 1 ? allowed : allowed << kCodes | allowed;
      }
      for (; hits != 0; hits &= hits - 1) {
        const int hit = __ffs(static_cast<int>(hits)) - 1;
        int distance = 0;
#pragma unroll
        for (int i = 0; i < kQueries * kCodes; ++i) {  // picked without an index: registers have none
          distance = i == hit ? distances[i / kCodes][i % kCodes] : distance;
        }
        const unsigned long long key = make_key(distance, Compare::index_at(base, hit % kCodes));
        const unsigned place = atomicAdd(&num_hits, 1u);
        if (place < kHits) {
          keys[place] = key, key_rows[place] = static_cast<uint16_t>(first + Compare::row_at(hit / kCodes));
        } else {
          keep_alone(f, first_query + first + Compare::row_at(hit / kCodes), key, &row_thresholds[hit / kCodes]);
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
