// Packing of codes on the GPU: device code on raw pointers, compiled by nvcc and, in tests, by the host compiler.
#pragma once
#include <cstdint>

#include "element.h"

namespace adsq::cuda {

// One thread an output byte, grid-stride. Neighbouring threads read neighbouring groups of eight elements, so a warp
// touches one contiguous piece of memory and the eight loads of a thread hit the L1 lines its first load brought in.
template <typename T>
__global__ void pack_codes_kernel(const T* codes, uint8_t* packed, int64_t rows, int64_t num_bits) {
  const int64_t width = (num_bits + 7) / 8;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < rows * width; i += step) {
    const int64_t row = i / width, bit = (i - row * width) * 8;
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

// One thread an output element, grid-stride: coalesced stores, and eight threads share each byte read.
template <typename T>
__global__ void unpack_codes_kernel(const uint8_t* packed, T* codes, int64_t rows, int64_t num_bits) {
  const int64_t width = (num_bits + 7) / 8;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < rows * num_bits; i += step) {
    const int64_t row = i / num_bits, bit = i - row * num_bits;
    codes[i] = Unit<T>::of((packed[row * width + (bit >> 3)] >> (bit & 7)) & 1);
  }
}

}  // namespace adsq::cuda
