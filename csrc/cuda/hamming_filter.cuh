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
constexpr unsigned kRound = 32;     // candidates of a query after which its threshold is reconsidered
constexpr int kHits = 2048;         // that a block remembers before it takes them up among the candidates
constexpr int kPlaceBits = 16;      // of a pair among those of the hits

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

// What passes by a block of filter_kernel. A hit, as the block remembers it, is that one of a few pairs which a thread
// compared in a step is within its threshold; which one is looked for later, so that the comparing itself has little to
// do with what it finds.
template <typename Compare>
struct Passage {
  static constexpr int kCodes = std::min(4, Compare::kCodes), kGroups = Compare::kCodes / kCodes;
  static constexpr unsigned kPairs = Compare::kQueries * kCodes;  // of a hit
  static constexpr int kChunk = kThreads * Compare::kCodesAThread;
  int64_t base;           // of the first chunk since the block last looked at its hits
  int first_query, rows;  // of the tile of queries

  // Chunks since `base`, first row of the step, group of codes, thread
  static constexpr int kGroupBits = 8, kRowBits = kGroupBits + 2, kChunkBits = kRowBits + 9;
  static_assert(kThreads <= 1 << kGroupBits && kGroups <= 4 && Compare::kTile <= 512);
  __device__ uint32_t hit(int chunks, int first) const {
    return static_cast<uint32_t>(chunks << kChunkBits | first << kRowBits) | threadIdx.x;
  }

  // Pair `i` of a hit; its row among the queries may be beyond the last.
  struct Pair {
    int row;
    int64_t index;
  };
  __device__ Pair pair(uint32_t hit, unsigned i) const {
    const int thread = static_cast<int>(hit % kThreads), group = static_cast<int>(hit >> kGroupBits & 3);
    const int q = static_cast<int>(i / kCodes), r = group * kCodes + static_cast<int>(i % kCodes);
    return {static_cast<int>(hit >> kRowBits & 511) + Compare::row_at(q, thread),
            Compare::index_at(base + static_cast<int>(hit >> kChunkBits) * kChunk, r, thread)};
  }
  // Its distance, or one beyond all thresholds if it may not be found
  __device__ int distance(const Filter& f, const Pair& pair) const {
    if (pair.row >= rows || !f.database.is_allowed(pair.index)) return INT_MAX;
    return Compare::distance(f.queries, first_query + pair.row, f.database, pair.index);
  }
};

// The groups of codes, a bit each, of which one is within the threshold of one of the queries.
template <typename Compare>
__device__ __forceinline__ unsigned groups_within(const int (&distances)[Compare::kQueries][Compare::kCodes],
                                                  const int (&threshold)[Compare::kQueries]) {
  constexpr int kCodes = Passage<Compare>::kCodes;
  unsigned groups = 0;
#pragma unroll
  for (int g = 0; g < Passage<Compare>::kGroups; ++g) {
    bool is_hit = false;
#pragma unroll
    for (int q = 0; q < Compare::kQueries; ++q) {
      int nearest = distances[q][g * kCodes];
#pragma unroll
      for (int r = 1; r < kCodes; ++r) nearest = min(nearest, distances[q][g * kCodes + r]);
      is_hit |= nearest <= threshold[q];
    }
    groups |= static_cast<unsigned>(is_hit) << g;
  }
  return groups;
}

// Finds the pairs that hits are about, a pair a thread, and keeps them, each a thread: that waits for global memory,
// several times. Then reconsiders thresholds, a query a warp.
template <typename Compare>
__device__ void keep_hits(const Filter& f, const Passage<Compare>& passage, const uint32_t* hits, unsigned num_hits,
                          int* thresholds, uint32_t* found, unsigned* num_found) {
  constexpr unsigned kPairs = Passage<Compare>::kPairs;
  static_assert(kHits * kPairs <= 1 << kPlaceBits);
  for (unsigned i = threadIdx.x; i < num_hits * kPairs; i += kThreads) {
    const auto pair = passage.pair(hits[i / kPairs], i % kPairs);
    const int distance = passage.distance(f, pair);
    if (distance == INT_MAX || distance > load_relaxed(&thresholds[pair.row])) continue;
    const unsigned place = atomicAdd(num_found, 1u);
    if (place < kHits) {
      found[place] = static_cast<uint32_t>(distance) << kPlaceBits | i;
    } else {
      keep_alone(f, passage.first_query + pair.row, make_key(distance, pair.index), &thresholds[pair.row]);
    }
  }
  __syncthreads();
  const int lane = threadIdx.x % 32, last = f.queries.num_distances() - 1;
  const unsigned count = min(*num_found, static_cast<unsigned>(kHits));
  for (unsigned start = 0; start < count; start += kThreads) {
    int64_t query = -1;  // whose threshold has to be reconsidered
    if (start + threadIdx.x < count) {
      const uint32_t one = found[start + threadIdx.x], i = one % (1 << kPlaceBits);
      const auto pair = passage.pair(hits[i / kPairs], i % kPairs);
      const int distance = static_cast<int>(one >> kPlaceBits);
      query = passage.first_query + pair.row;
      // Other blocks may have lowered the threshold meanwhile.
      const bool within = distance <= load_relaxed(&f.thresholds[query]);
      if (!within || !keep(f, query, make_key(distance, pair.index))) query = -1;
    }
    for (unsigned left = __ballot_sync(kAllLanes, query >= 0); left != 0; left &= left - 1) {
      const int64_t lowered = __shfl_sync(kAllLanes, query, __ffs(static_cast<int>(left)) - 1);
      const int threshold = rank_distance(f.histogram + lowered * (last + 1), last, static_cast<unsigned>(f.k));
      if (lane == 0) atomicMin(&f.thresholds[lowered], threshold);
    }
  }
}

// The same by a single thread, where a block finds more than it can remember
template <typename Compare>
__device__ void keep_alone(const Filter& f, const Passage<Compare>& passage, uint32_t hit, int* thresholds) {
#pragma unroll 1
  for (unsigned i = 0; i < passage.kPairs; ++i) {
    const auto pair = passage.pair(hit, i);
    const int distance = passage.distance(f, pair);
    if (distance == INT_MAX || distance > load_relaxed(&thresholds[pair.row])) continue;
    keep_alone(f, passage.first_query + pair.row, make_key(distance, pair.index), &thresholds[pair.row]);
  }
}

// The block's part of the database passes by its tile of queries, by the way of comparing of hamming_compare.cuh. Hits
// are remembered in shared memory: taking one up waits for global memory, several times.
template <typename Compare>
__global__ void __launch_bounds__(kThreads, Compare::kBlocks)
    filter_kernel(Filter f, int tile, int look_after, int64_t chunks_a_part) {
  constexpr int kCodes = Compare::kCodes, kQueries = Compare::kQueries, kChunk = Passage<Compare>::kChunk;
  ADSQ_SHARED(hits, uint32_t[kHits]);
  ADSQ_SHARED(found, uint32_t[kHits]);
  ADSQ_SHARED(num_hits, unsigned);
  ADSQ_SHARED(num_found, unsigned);
  ADSQ_DYNAMIC_SHARED(shared, uint32_t);
  int* const thresholds = reinterpret_cast<int*>(shared);  // [tile]
  uint32_t* const words = shared + tile;                   // [tile][stride]
  const int stride = Compare::stride(f.queries.num_words()), thread = threadIdx.x;
  const int queries = static_cast<int>(f.queries.count), tiles = (queries + tile - 1) / tile;
  const int first_query = static_cast<int>(blockIdx.x) % tiles * tile, rows = min(tile, queries - first_query);
  Passage<Compare> passage{blockIdx.x / tiles * chunks_a_part * kChunk, first_query, rows};
  for (int i = thread; i < tile * stride; i += kThreads) {
    const int row = i / stride;
    words[i] = row < rows ? Compare::query_word(f.queries, first_query + row, i % stride) : 0;
  }
  if (thread == 0) num_hits = num_found = 0;
  int64_t base = passage.base;
  const int64_t end = min(base + chunks_a_part * kChunk, f.database.count);
  for (int passed = look_after;; ++passed, base += kChunk) {
    if (passed == look_after || base >= end) {
      __syncthreads();
      keep_hits(f, passage, hits, min(num_hits, static_cast<unsigned>(kHits)), thresholds, found, &num_found);
      if (base >= end) return;
      __syncthreads();
      if (thread == 0) num_hits = num_found = 0;
      for (int i = thread; i < tile; i += kThreads) {
        thresholds[i] = i < rows ? load_relaxed(&f.thresholds[first_query + i]) : -1;
      }
      __syncthreads();
      passed = 0, passage.base = base;
    }
    Compare compare;
    compare.load(f.database, base);
    unsigned allowed = ~0u;  // groups of which a code may be found
    if (f.database.mask != nullptr || base + kChunk > f.database.count) {
      allowed = 0;
#pragma unroll
      for (int r = 0; r < kCodes; ++r) {
        const bool is_allowed = f.database.is_allowed(Compare::index_at(base, r, thread));
        allowed |= static_cast<unsigned>(is_allowed) << r / passage.kCodes;
      }
    }
    const uint32_t* row_words = words + Compare::first_word(stride);
    const int* row_thresholds = thresholds + Compare::row_at(0, thread);
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
        unsigned groups = groups_within<Compare>(distances, threshold) & allowed;
        unsigned place = atomicAdd(&num_hits, static_cast<unsigned>(__popc(groups)));
        for (; groups != 0; groups &= groups - 1, ++place) {
          const uint32_t group = static_cast<uint32_t>(__ffs(static_cast<int>(groups)) - 1);
          const uint32_t hit = passage.hit(passed, first) | group << passage.kGroupBits;
          if (place < kHits) {
            hits[place] = hit;
          } else {
            keep_alone(f, passage, hit, thresholds);
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
  constexpr int64_t kChunk = Passage<Compare>::kChunk;
  // As many queries and chunks at a time as leave room for the hits that the sample makes one expect
  const double hits_a_query = f.wanted_of_sample() / static_cast<double>(f.sample_size()) * kChunk;
  const int fit = kHits / (f.database.mask == nullptr ? 2 : 8);  // few of a group may be allowed
  const int64_t room = static_cast<int64_t>(fit / hits_a_query);
  const int64_t most = std::max<int64_t>(32, std::min<int64_t>(Compare::kTile, room));
  const int64_t tiles = (f.queries.count + most - 1) / most;
  const int64_t tile = ((f.queries.count + tiles - 1) / tiles + 7) / 8 * 8;
  const int64_t chunks = (f.database.count + kChunk - 1) / kChunk;
  // On tensor cores as many blocks as there is room for: all end at about the same time
  const int64_t blocks = (Compare::kTogether ? Compare::kBlocks : 8) * int64_t{launcher.processors()};
  const int64_t parts = std::max<int64_t>(1, blocks / tiles);
  const int64_t chunks_a_part = chunks > parts ? (chunks + parts - 1) / parts : 1;
  const size_t bytes = static_cast<size_t>(tile * (1 + Compare::stride(f.queries.num_words()))) * sizeof(uint32_t);
  const int64_t look_after = std::max<int64_t>(1, std::min<int64_t>(Compare::kLookAfter, room) / tile);
  launcher.run(filter_kernel<Compare>, tiles * ((chunks + chunks_a_part - 1) / chunks_a_part), kThreads, bytes, f,
               static_cast<int>(tile), static_cast<int>(look_after), chunks_a_part);
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
  threads = std::max<int64_t>(threads, 32);
  dispatch_words(num_words, [&](auto words, auto wide) {
    constexpr int kWords = decltype(words)::value, kAtOnce = decltype(wide)::value ? 1 : kSampleQueries;
    if (f.queries.count >= kAtOnce * int64_t{launcher.processors()}) {
      launcher.run(sample_kernel<kWords, decltype(wide)::value, kAtOnce>, (f.queries.count + kAtOnce - 1) / kAtOnce,
                   static_cast<int>(threads), 0, f);
    } else {
      launcher.run(sample_kernel<kWords, decltype(wide)::value, 1>, f.queries.count, static_cast<int>(threads), 0, f);
    }
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
