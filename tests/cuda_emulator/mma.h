// The products of csrc/cuda/mma.cuh by their definition: the warp's fragments are put together to whole matrices, by
// the figures of "Matrix Fragments for mma.m16n8k128" and "mma.m16n8k256" with .b1 in the PTX manual, and multiplied.
#pragma once
#include "device_functions.h"

namespace emulator {

// kWords words a row: 4 or 8
template <int kWords>
void and_popc(const char* call, int (&sums)[4], const uint32_t* a, const uint32_t* b, Site site) {
  constexpr int kPieces = kWords / 4;
  uint32_t rows[16][kWords], columns[8][kWords];
  for (int piece = 0; piece < kPieces; ++piece) {
    const uint64_t both = static_cast<uint64_t>(a[2 * piece + 1]) << 32 | a[2 * piece];
    const uint64_t* brought = exchange(call, kAll, both, site);
    for (int i = 0; i < 32; ++i) {
      rows[i / 4][4 * piece + i % 4] = static_cast<uint32_t>(brought[i]);
      rows[i / 4 + 8][4 * piece + i % 4] = static_cast<uint32_t>(brought[i] >> 32);
    }
    brought = exchange(call, kAll, b[piece], site);
    for (int i = 0; i < 32; ++i) columns[i / 4][4 * piece + i % 4] = static_cast<uint32_t>(brought[i]);
  }
  for (int i = 0; i < 4; ++i) {
    const unsigned row = lane() / 4 + i / 2 * 8, column = lane() % 4 * 2 + i % 2;
    for (int w = 0; w < kWords; ++w) sums[i] += __popc(rows[row][w] & columns[column][w]);
  }
}

}  // namespace emulator

namespace adsq::cuda {

inline void mma_and_popc_128(int (&sums)[4], const uint32_t (&a)[2], uint32_t b,
                             emulator::Site site = emulator::Site::here()) {
  emulator::and_popc<4>("mma.m16n8k128", sums, a, &b, site);
}

inline void mma_and_popc_256(int (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                             emulator::Site site = emulator::Site::here()) {
  emulator::and_popc<8>("mma.m16n8k256", sums, a, b, site);
}

}  // namespace adsq::cuda
