// Every device function of the emulator that has a result, for tests/test_cuda_emulator.py to compare with numpy.
#pragma once
#include <cstdint>

#include "cuda/device.h"

constexpr int kResults = 27, kCounters = 7;

// One warp. The lanes in `mask`, whose shuffles must stay in it, write results[function * 32 + lane].
__global__ void intrinsics_kernel(const unsigned* values, unsigned mask, int width, unsigned long long* results) {
  const int lane = threadIdx.x;
  if ((mask >> lane & 1) == 0) return;
  const unsigned x = __ldg(values + lane);
  const int i = static_cast<int>(x);
  const unsigned long long wide = x * 0x100000001ull;
  auto write = [&, function = 0](unsigned long long result) mutable { results[function++ * 32 + lane] = result; };
  write(__popc(x));
  write(__clz(i));
  write(__ffs(i));
  write(__brev(x));
  write(__popcll(wide));
  write(__clzll(static_cast<long long>(wide)));
  write(__ffsll(static_cast<long long>(wide << 32)));
  write(__brevll(wide << 7));
  write(__ballot_sync(mask, x & 2));
  write(__any_sync(mask, lane == 5) != 0);
  write(__all_sync(mask, lane != 5) != 0);
  write(__any_sync(mask, 0) != 0);
  write(__all_sync(mask, 256) != 0);
  write(__match_any_sync(mask, x % 3));
  write(__match_any_sync(mask, static_cast<unsigned long long>(x % 3) << 40));
  write(__reduce_add_sync(mask, x));
  write(__reduce_min_sync(mask, x));
  write(__reduce_max_sync(mask, x));
  write(static_cast<unsigned>(__reduce_min_sync(mask, i)));
  write(static_cast<unsigned>(__reduce_max_sync(mask, i)));
  write(__shfl_sync(mask, x, 5 * lane + 1, width));
  write(__shfl_up_sync(mask, x, 3, width));
  write(__shfl_down_sync(mask, x, 3, width));
  write(__shfl_xor_sync(mask, x, 5, width));
  write(__shfl_xor_sync(mask, wide, 1, width));
  write(min(i, 7) == (i < 7 ? i : 7) && max(x, 7u) == (x > 7 ? x : 7));
  __syncwarp(mask);
  write(gridDim.x + 10 * blockDim.x + warpSize);
}

// counters: {0, ~0, 0, 0, ~0, 0, any}; old[thread]: what its first atomicAdd returned, in a grid of any shape.
__global__ void atomics_kernel(const unsigned* values, unsigned* counters, unsigned* old) {
  const unsigned width = blockDim.x * gridDim.x, row = blockIdx.y * blockDim.y + threadIdx.y;
  const unsigned layer = blockIdx.z * blockDim.z + threadIdx.z;
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x + width * (row + blockDim.y * gridDim.y * layer);
  const unsigned x = values[thread];
  old[thread] = atomicAdd(&counters[0], 1u);
  atomicMin(&counters[1], x);
  atomicMax(&counters[2], x);
  atomicOr(&counters[3], x);
  atomicAnd(&counters[4], x);
  unsigned seen = 0, before;
  while ((before = atomicCAS(&counters[5], seen, seen + x)) != seen) seen = before;
  atomicExch(&counters[6], x);
}

// One thread reads 16 bytes at `bytes` + offset, and writes them behind its dynamic shared memory's start.
template <bool kByLdg>
__global__ void load_kernel(const uint8_t* bytes, int offset, uint4* out) {
  ADSQ_DYNAMIC_SHARED(buffer, uint4);
  const auto* source = reinterpret_cast<const uint4*>(bytes + offset);
  buffer[0] = kByLdg ? __ldg(source) : *source;
  *out = buffer[0];
}

// out[block]: what the block finds in its shared memory
template <int kBytes>
__global__ void shared_kernel(int* out) {
  ADSQ_SHARED(bytes, uint8_t[kBytes]);
  out[blockIdx.x] = bytes[0];
  bytes[0] = 1;
}

// The first thread waits for what the last one, of another warp, has for it; kLate: stored too late for the fence.
template <bool kLate>
__global__ void handshake_kernel(unsigned* flag, int* data, int* out) {
  if (threadIdx.x == 0) {
    while (atomicAdd(flag, 0u) == 0) {
    }
    __threadfence();
    *out = *data;
  }
  if (threadIdx.x == blockDim.x - 1) {
    if (!kLate) *data = 7;
    __threadfence();
    atomicOr(flag, 0u);
    if (kLate) *data = 7;
    atomicExch(flag, 1u);
  }
}
