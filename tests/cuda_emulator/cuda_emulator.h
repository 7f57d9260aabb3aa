// Runs device code of csrc/cuda on the host, for kernels whose threads do not talk to each other: one call a thread.
#pragma once
#include <cstdint>

#define __global__
#define __device__
#define __host__

struct Index3 {
  unsigned x = 0, y = 0, z = 0;
};
static thread_local Index3 threadIdx, blockIdx, blockDim, gridDim;

// Calls kernel() once for each thread of a one-dimensional grid, the last thread first: nothing may rest on the order.
template <typename Kernel>
void emulate(unsigned blocks, unsigned threads, Kernel&& kernel) {
  gridDim = {blocks, 1, 1};
  blockDim = {threads, 1, 1};
  for (unsigned block = blocks; block-- > 0;) {
    for (unsigned thread = threads; thread-- > 0;) {
      blockIdx = {block, 0, 0};
      threadIdx = {thread, 0, 0};
      kernel();
    }
  }
}
