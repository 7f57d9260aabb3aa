// The last step of a search for a few nearest codes: the candidates that hamming_filter.cuh has kept, in order.
#pragma once
#include "cuda/hamming_filter.cuh"

namespace adsq::cuda {

struct Neighbours {
  int32_t* distances;  // [queries, k]
  int64_t* indices;    // [queries, k]
  const int64_t* ids;  // what to give in place of an index; nullptr: the index
};

// The `wanted`-th smallest index (from 1) among a query's candidates at one distance, by eight bits at a time from the
// top. All threads of the block call it.
__device__ inline int64_t rank_index(const unsigned long long* candidates, int count, int distance, unsigned wanted,
                                     int64_t num_codes) {
  ADSQ_SHARED(bins, unsigned[256]);
  ADSQ_SHARED(digit, int);
  int64_t prefix = 0;
  for (int shift = (64 - __clzll(num_codes)) / 8 * 8; shift >= 0; shift -= 8) {
    bins[threadIdx.x] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += kThreads) {
      const int64_t index = index_of(candidates[i]);
      if (distance_of(candidates[i]) == distance && index >> (shift + 8) == prefix) {
        atomicAdd(&bins[index >> shift & 255], 1u);
      }
    }
    __syncthreads();
    if (threadIdx.x < 32) {
      const int found = rank_distance(bins, 255, wanted);
      if (threadIdx.x == 0) digit = found;
    }
    __syncthreads();
    for (int b = 0; b < digit; ++b) wanted -= bins[b];
    prefix = prefix << 8 | digit;
    __syncthreads();
  }
  return prefix;
}

// A block a query: orders the candidates that belong to the result; dynamic shared memory: keys, a power of two >= k.
__global__ void __launch_bounds__(kThreads) select_kernel(Filter f, Neighbours found, int room) {
  ADSQ_DYNAMIC_SHARED(keys, unsigned long long);
  ADSQ_SHARED(filled, unsigned);
  ADSQ_SHARED(reach, int);
  const int64_t query = blockIdx.x;
  const int last = f.queries.num_distances() - 1, thread = threadIdx.x;
  const unsigned count = f.counts[query], wanted = min(count, static_cast<unsigned>(f.k));
  if (count > static_cast<unsigned>(f.capacity) || (count < static_cast<unsigned>(f.k) && f.thresholds[query] < last)) {
    if (thread == 0) f.list[atomicAdd(f.list_size, 1u)] = static_cast<int>(query);
    return;
  }
  const unsigned long long* candidates = f.candidates + query * f.capacity;
  const unsigned* histogram = f.histogram + query * (last + 1);
  if (thread < 32) {
    const int distance = rank_distance(histogram, last, wanted);
    if (thread == 0) reach = distance, filled = 0;
  }
  __syncthreads();
  unsigned nearer = 0;
  for (int d = 0; d < reach; ++d) nearer += histogram[d];
  // Equal distances beyond what is wanted fall away by index.
  unsigned long long bound = make_key(reach + 1, 0) - 1;
  if (nearer + histogram[reach] > static_cast<unsigned>(room)) {
    bound = make_key(reach, rank_index(candidates, count, reach, wanted - nearer, f.database.count));
  }
  for (unsigned i = thread; i < count; i += kThreads) {
    if (candidates[i] <= bound) keys[atomicAdd(&filled, 1u)] = candidates[i];
  }
  __syncthreads();
  unsigned size = 1;
  while (size < filled) size *= 2;
  for (unsigned i = filled + thread; i < size; i += kThreads) keys[i] = ~0ull;
  for (unsigned width = 2; width <= size; width *= 2) {  // a bitonic network
    for (unsigned step = width / 2; step > 0; step /= 2) {
      __syncthreads();
      for (unsigned i = thread; i < size / 2; i += kThreads) {
        const unsigned a = i / step * 2 * step + i % step, b = a + step;
        const unsigned long long x = keys[a], y = keys[b];
        if ((x > y) == ((a & width) == 0)) keys[a] = y, keys[b] = x;
      }
    }
  }
  __syncthreads();
  for (unsigned i = thread; i < static_cast<unsigned>(f.k); i += kThreads) {
    const int64_t index = i < wanted ? index_of(keys[i]) : -1;
    found.distances[query * f.k + i] = i < wanted ? distance_of(keys[i]) : kNoDistance;
    found.indices[query * f.k + i] = index >= 0 && found.ids != nullptr ? found.ids[index] : index;
  }
}

// Orders the candidates of all queries.
template <typename Launcher>
void select(Launcher& launcher, const Filter& f, const Neighbours& found) {
  int room = 256;
  while (room < f.k) room *= 2;
  launcher.run(select_kernel, f.queries.count, kThreads, room * sizeof(unsigned long long), f, found, room);
}

}  // namespace adsq::cuda
