// Packing of codes on the GPU: device code on raw pointers, compiled by nvcc and, in tests, by the host compiler.
#pragma once
#include <cstdint>

#include "element.h"

namespace adsq::cuda {

// i / d, for d > 0. A GPU divides numbers of 64 bits in a hundred instructions.
__device__ inline int64_t quotient(int64_t i, int64_t d) {
  return (i | d) >> 32 == 0 ? static_cast<uint32_t>(i) / static_cast<uint32_t>(d) : i / d;
}

// One thread an output byte, grid-stride. Neighbouring threads read neighbouring groups of eight elements, so a warp
// touches one contiguous piece of memory and the eight loads of a thread hit the L1 lines its first load brought in.
template <typename T>
__global__ void pack_codes_kernel(const T* codes, uint8_t* packed, int64_t rows, int64_t num_bits) {
  const int64_t width = (num_bits + 7) / 8;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < rows * width; i += step) {
    const int64_t row = quotient(i, width), bit = (i - row * width) * 8;
    const T* source = codes + row * num_bits + bit;
    const int count = num_bits - bit < 8 ? static_cast<int>(num_bits - bit) : 8;
    unsigned byte = 0;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      if (j < count) byte |= static_cast<unsigned>(is_positive(source[j])) << j;
    }
    packed[i] = static_cast<uint8_t>(byte);
  }
}

// Grid-stride, with coalesced stores. Where codes are whole bytes their bits follow each other without a gap, and a
// thread writes 16 bytes of them; else one element, and eight threads share each byte read.
template <typename T>
__global__ void unpack_codes_kernel(const uint8_t* packed, T* codes, int64_t rows, int64_t num_bits) {
  constexpr int kItems = 16 / sizeof(T);
  struct alignas(16) Items {
    T item[kItems];
  };
  const int64_t width = (num_bits + 7) / 8, count = rows * num_bits;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  if (num_bits % 8 == 0 && reinterpret_cast<uintptr_t>(codes) % alignof(Items) == 0) {
    for (int64_t i = first * kItems; i < count; i += step * kItems) {
      unsigned bits = packed[i >> 3] >> (i & 7);
      if (kItems > 8 && i + 8 < count) bits |= static_cast<unsigned>(packed[(i >> 3) + 1]) << 8;
      Items items;
#pragma unroll
      for (int j = 0; j < kItems; ++j) items.item[j] = Unit<T>::of(bits >> j & 1);
      if (i + kItems <= count) {
        *reinterpret_cast<Items*>(codes + i) = items;
      } else {
        for (int j = 0; i + j < count; ++j) codes[i + j] = Unit<T>::of(bits >> j & 1);
      }
    }
    return;
  }
  for (int64_t i = first; i < count; i += step) {
    const int64_t row = quotient(i, num_bits), bit = i - row * num_bits;
    codes[i] = Unit<T>::of((packed[row * width + (bit >> 3)] >> (bit & 7)) & 1);
  }
}

}  // namespace adsq::cuda
