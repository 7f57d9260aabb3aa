// Products of bit matrices on tensor cores: sums[row][column] += popcount(a[row] and b[column]), 16 rows by 8 columns,
// by all lanes of a warp. The fragments are those of PTX's mma.m16n8k128 and .m16n8k256 for .b1: with g = lane / 4 and
// t = lane % 4, a holds word t of rows g and g + 8 (then word t + 4 of both), b word t (then t + 4) of column g, sums
// columns 2 t and 2 t + 1 of row g, then of row g + 8. tests/cuda_emulator/mma.h has the same functions by definition.
#pragma once
#include <cstdint>

#ifndef ADSQ_CUDA_EMULATOR
namespace adsq::cuda {

__device__ __forceinline__ void mma_and_popc_128(int (&sums)[4], const uint32_t (&a)[2], uint32_t b) {
  asm volatile(
      "mma.sync.aligned.m16n8k128.row.col.s32.b1.b1.s32.and.popc {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(b));
}

__device__ __forceinline__ void mma_and_popc_256(int (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace adsq::cuda
#endif
