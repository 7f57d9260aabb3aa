// A small selection kernel and ways to get it wrong, each of which the emulator must notice.
#pragma once
#include <cstdint>

#include "cuda/device.h"

enum class Mutant {
  kNone,
  kDroppedBarrier,
  kPlainAdd,  // to the shared histogram, not atomic
  kUnzeroedHistogram,
  kBarrierInBranch,
  kBallotAfterExit,
  kOutOfBoundsRead,    // of global memory, one past the end
  kSharedOutOfBounds,  // one past the end of the histogram
  kDroppedSyncwarp,
  kStoreBeforeShared,  // read by another thread without a barrier between
  kDifferentMasks,
  kShuffleOutsideMask,
  kDroppedFence,  // between blocks
  kPlainTicket,   // of blocks, not atomic
  kDeadlock,      // half a warp waits for the other half, which waits for the block
  kSpin,          // for a flag that nobody sets
};

constexpr int kBins = 64, kMaxThreads = 256;

// Block b finds the distances of row b that are at most the k-th smallest (k >= 1): their indices go to
// selected[b * count ...], in any order, their number to sizes[b]; the last block to finish adds up the sizes.
// distances: gridDim.x rows of `count` values below kBins; *done must be zero.
template <Mutant M>
__global__ void __launch_bounds__(kMaxThreads) select_kernel(const uint8_t* distances, int count, unsigned k,
                                                             int* selected, int* sizes, unsigned* done, int* total) {
  if (M == Mutant::kStoreBeforeShared && threadIdx.x == 0) sizes[blockIdx.x] = 0;
  ADSQ_SHARED(histogram, unsigned[kBins]);
  ADSQ_SHARED(bases, int[kMaxThreads / 32]);
  ADSQ_SHARED(threshold, int);
  ADSQ_SHARED(filled, int);
  constexpr unsigned kAll = 0xffffffffu;
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32, step = blockDim.x;
  const uint8_t* row = distances + static_cast<int64_t>(blockIdx.x) * count;
  selected += static_cast<int64_t>(blockIdx.x) * count;

  for (int i = thread; i < kBins && M != Mutant::kUnzeroedHistogram; i += step) histogram[i] = 0;
  if (thread == 0) filled = 0;
  if (M == Mutant::kStoreBeforeShared && thread == 1) threshold = sizes[blockIdx.x];
  if (lane == 0) bases[warp] = 0;  // in range for the mutant that reads it too early
  __syncthreads();
  for (int i = thread; i < count + (M == Mutant::kOutOfBoundsRead); i += step) {
    if (M == Mutant::kPlainAdd) {
      ++histogram[row[i]];
    } else {
      atomicAdd(&histogram[row[i]], 1u);
    }
  }
  if (M == Mutant::kDeadlock && thread < 16) __syncwarp(kAll);
  if (M == Mutant::kSpin && thread == 0) {
    while (atomicAdd(&filled, 0) == 0) {
    }
  }
  if (M == Mutant::kBarrierInBranch) {
    if (thread < 32) __syncthreads();
  } else if (M != Mutant::kDroppedBarrier) {
    __syncthreads();
  }

  if (thread < 32) {
    const unsigned* pair = histogram + 2 * lane + (M == Mutant::kSharedOutOfBounds);
    unsigned sum = pair[0] + pair[1];
    for (int distance = 1; distance < 32; distance *= 2) {
      const unsigned other = __shfl_up_sync(kAll, sum, distance);
      if (lane >= distance) sum += other;
    }
    const int first = __ffs(static_cast<int>(__ballot_sync(kAll, sum >= k))) - 1;
    if (lane == first) threshold = 2 * lane + (sum - pair[1] < k);
  }
  __syncthreads();

  for (int start = 0; start < count; start += step) {
    const int i = start + thread;
    if (M == Mutant::kBallotAfterExit && i >= count) return;
    const bool take = i < count && row[i] <= threshold;
    const unsigned votes = __ballot_sync(M == Mutant::kDifferentMasks && lane == 7 ? kAll - 1 : kAll, take);
    if (lane == 0) bases[warp] = atomicAdd(&filled, __popc(votes));
    if (M != Mutant::kDroppedSyncwarp) __syncwarp();
    int base = bases[warp];
    if (M == Mutant::kShuffleOutsideMask && lane > 0) base = __shfl_sync(kAll - 1, base, 0);
    if (take) selected[base + __popc(votes & ((1u << lane) - 1))] = i;
    if (M != Mutant::kDroppedSyncwarp) __syncwarp();  // before lane 0 writes the next base
  }
  __syncthreads();

  if (thread == 0) {
    sizes[blockIdx.x] = filled;
    if (M != Mutant::kDroppedFence) __threadfence();
    const unsigned before = M == Mutant::kPlainTicket ? (*done)++ : atomicAdd(done, 1u);
    if (before == gridDim.x - 1) {
      if (M != Mutant::kDroppedFence) __threadfence();
      int sum = 0;
      for (unsigned i = 0; i < gridDim.x; ++i) sum += sizes[i];
      *total = sum;
    }
  }
}
