// The first step of a search for a few nearest codes: what its kernels share, and the sample, which gives each query a
// threshold.
#pragma once
#include <cmath>

#include "cuda/hamming_compare.cuh"

namespace adsq::cuda {

constexpr int kSampleThreads = 1024, kSampleStep = 4;  // of a block, and codes that a thread compares at a time
constexpr int kSampleQueries = 4;                      // that a block takes where there are many

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
  // Which of the sample's neighbours gives the threshold: four deviations above the rank that is expected of the k-th
  // neighbour in the sample, and some for small ranks. Of all codes, the k-th.
  __host__ __device__ unsigned wanted_of_sample() const {
    const int64_t size = sample_size();
    const float expected = static_cast<float>(k) * static_cast<float>(size) / static_cast<float>(database.count);
    return size == database.count ? k : static_cast<unsigned>(expected + 4 * sqrtf(expected) + 4);
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

// A block takes kAtOnce queries: empties what the filter fills and guesses their thresholds from the sample. Where that
// is all codes the guess is exact. Many queries share what is read of it.
template <int kWords, bool kWide, int kAtOnce>
__global__ void __launch_bounds__(kSampleThreads, 1) sample_kernel(const Filter f) {
  static_assert(!kWide || kAtOnce == 1);
  constexpr int kStep = kWide ? 1 : kSampleStep;  // wide codes keep a thread busy anyway
  ADSQ_SHARED(sample, unsigned[kWide ? 8 * 512 + 1 : kAtOnce * (32 * kWords + 1)]);
  ADSQ_SHARED(bounds, int[kAtOnce]);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kAtOnce;
  const int queries = static_cast<int>(min(static_cast<int64_t>(kAtOnce), f.queries.count - first));
  const int num_distances = f.queries.num_distances(), last = num_distances - 1;
  const int threads = static_cast<int>(blockDim.x), warp = threadIdx.x / 32, warps = threads / 32;
  for (int i = threadIdx.x; i < queries * num_distances; i += threads) {
    sample[i] = f.histogram[first * num_distances + i] = 0;
  }
  if (static_cast<int>(threadIdx.x) < kAtOnce) {
    bounds[threadIdx.x] = static_cast<int>(threadIdx.x) < queries ? last : -1;
    if (static_cast<int>(threadIdx.x) < queries) f.counts[first + threadIdx.x] = 0;
    if (threadIdx.x == 0 && first == 0) *f.list_size = 0;
  }
  __syncthreads();
  const bool gathered = f.sampled.data != nullptr;
  const Codes codes = gathered ? f.sampled : f.database;
  const int64_t size = f.sample_size();
  const unsigned wanted = f.wanted_of_sample();
  uint32_t words[kWords], wanted_words[kAtOnce][kWords];
  if constexpr (!kWide) {
#pragma unroll
    for (int q = 0; q < kAtOnce; ++q) load_words<kWords>(f.queries, first + min(q, queries - 1), 0, wanted_words[q]);
  }
  for (int64_t start = 0; start < size; start += threads * kStep) {
    int distances[kStep][kAtOnce];  // first all of them, so that their codes are on their way at the same time
#pragma unroll
    for (int s = 0; s < kStep; ++s) {
      const int64_t i = start + s * threads + threadIdx.x, index = gathered || i >= size ? i : f.sample_index(i);
      const bool counts = i < size && codes.is_allowed(index);
#pragma unroll
      for (int q = 0; q < kAtOnce; ++q) distances[s][q] = counts ? 0 : last + 1;
      if (!counts) continue;
      for (int w = 0; w < (kWide ? f.queries.num_words() : 1); w += kWords) {
        if constexpr (kWide) load_words<kWords>(f.queries, first, w, wanted_words[0]);
        const uint8_t* const at[] = {codes.data + index * codes.width + 4 * w};
        read_words<kWords>(at, codes.width - 4 * w, codes.unit, words);
#pragma unroll
        for (int q = 0; q < kAtOnce; ++q) {
          distances[s][q] = add_distance<kWords>(distances[s][q], wanted_words[q], words);
        }
      }
    }
#pragma unroll
    for (int q = 0; q < kAtOnce; ++q) {
      const int farthest = bounds[q];
#pragma unroll
      for (int s = 0; s < kStep; ++s) {
        if (distances[s][q] <= farthest) atomicAdd(&sample[q * num_distances + distances[s][q]], 1u);
      }
    }
    if (start != 0) continue;
    // From now on what lies beyond as many as are wanted is not counted: lanes wait for each other's atomics.
    __syncthreads();
    for (int q = warp; q < queries; q += warps) {
      const int distance = rank_distance(sample + q * num_distances, last, wanted);
      if (threadIdx.x % 32 == 0) bounds[q] = distance;
    }
    __syncthreads();
  }
  __syncthreads();
  for (int q = warp; q < queries; q += warps) {
    const int threshold = rank_distance(sample + q * num_distances, last, wanted);
    if (threadIdx.x % 32 == 0) f.thresholds[first + q] = threshold;
  }
}

}  // namespace adsq::cuda
