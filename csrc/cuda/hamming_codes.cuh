// Packed codes on the GPU and their distances; what the kernels of search and ranking share.
#pragma once
#include <climits>
#include <cstdint>
#include <type_traits>

#include "cuda/device.h"

namespace adsq::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kWideWords = 8;  // words that are read at a time of codes that are longer

struct Codes {
  const uint8_t* data;
  int64_t count;
  int width;            // bytes a code, 1 to 512
  int unit;             // bytes that can be read at once: a power of two up to 16 that divides address and width
  const uint8_t* mask;  // which may be found: no byte of 0, for torch takes any other for true; nullptr: all

  __host__ __device__ int num_words() const { return (width + 3) / 4; }
  __host__ __device__ int num_distances() const { return 8 * width + 1; }
  // Whether codes of that many bytes follow each other from an address that is a multiple of 16
  __device__ bool is_dense(int bytes) const { return width == bytes && reinterpret_cast<uintptr_t>(data) % 16 == 0; }
  __device__ bool is_allowed(int64_t index) const { return index < count && (mask == nullptr || mask[index] != 0); }
};

inline Codes codes_at(const void* data, int64_t count, int64_t width, const void* mask = nullptr) {
  int unit = 16;
  while ((reinterpret_cast<uintptr_t>(data) | static_cast<uintptr_t>(width)) % unit != 0) unit /= 2;
  return {static_cast<const uint8_t*>(data), count, static_cast<int>(width), unit, static_cast<const uint8_t*>(mask)};
}

// Copies kWords words in pieces as large as they allow; `from` is aligned to those.
template <int kWords>
__device__ __forceinline__ void copy_words(const void* from, uint32_t* words) {
  if constexpr (kWords % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kWords / 4; ++i) {
      const uint4 piece = static_cast<const uint4*>(from)[i];
      words[4 * i] = piece.x, words[4 * i + 1] = piece.y, words[4 * i + 2] = piece.z, words[4 * i + 3] = piece.w;
    }
  } else if constexpr (kWords == 2) {
    const uint2 piece = *static_cast<const uint2*>(from);
    words[0] = piece.x, words[1] = piece.y;
  } else {
#pragma unroll
    for (int i = 0; i < kWords; ++i) words[i] = static_cast<const uint32_t*>(from)[i];
  }
}

// Words of kCodes codes, of which `bytes` bytes from `at` on are left; bits beyond them are zero. All reads of a kind
// come one after the other, so that none waits for another.
template <int kWords, int kCodes>
__device__ __forceinline__ void read_words(const uint8_t* const (&at)[kCodes], int bytes, int unit, uint32_t* words) {
  constexpr int kUnit = kWords % 4 == 0 ? 16 : kWords == 2 ? 8 : 4;
  if (bytes >= 4 * kWords && unit >= kUnit) {
#pragma unroll
    for (int c = 0; c < kCodes; ++c) copy_words<kWords>(at[c], words + c * kWords);
  } else if (unit >= 4) {
#pragma unroll
    for (int i = 0; i < kCodes * kWords; ++i) {
      const int b = 4 * (i % kWords);
      words[i] = b < bytes ? *reinterpret_cast<const uint32_t*>(at[i / kWords] + b) : 0;
    }
  } else if (unit == 2) {
#pragma unroll
    for (int i = 0; i < kCodes * kWords; ++i) {
      const int b = 4 * (i % kWords);
      const auto* halves = reinterpret_cast<const uint16_t*>(at[i / kWords] + b);
      const uint32_t low = b < bytes ? halves[0] : 0, high = b + 2 < bytes ? halves[1] : 0;
      words[i] = high << 16 | low;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kCodes * kWords; ++i) {
      const int first = 4 * (i % kWords);
      words[i] = 0;
#pragma unroll 1
      for (int b = min(4, bytes - first) - 1; b >= 0; --b) words[i] = words[i] << 8 | at[i / kWords][first + b];
    }
  }
}

// Words `first` to first + kWords of a code; bits beyond its end are zero, also where it ends before. Not for inner
// loops: codes of an odd number of halves are read by bytes, which takes fewer registers.
template <int kWords>
__device__ __forceinline__ void load_words(const Codes& codes, int64_t index, int first, uint32_t* words) {
  const uint8_t* const at[] = {codes.data + index * codes.width + 4 * first};
  read_words<kWords>(at, codes.width - 4 * first, codes.unit == 2 ? 1 : codes.unit, words);
}

// A full adder of one-bit numbers: `sum` takes the sum of all three, `carry` what counts twice.
__device__ __forceinline__ void add_bits(uint32_t& sum, uint32_t& carry, uint32_t b, uint32_t c) {
  const uint32_t a = sum;
  sum = a ^ b ^ c;
  carry = (a & b) | (c & (a | b));
}

// start + the number of bits in which kWords words differ. A GPU counts bits at a quarter of the rate of its logic, so
// that words are added up first where there are three or more: 2, 3 and 4 counts for 3, 4 and 8 words.
template <int kWords>
__device__ __forceinline__ int add_distance(int start, const uint32_t* a, const uint32_t* b) {
  uint32_t x[kWords];
#pragma unroll
  for (int w = 0; w < kWords; ++w) x[w] = a[w] ^ b[w];
  if constexpr (kWords == 8) {
    uint32_t twos, more, most, fours;
    add_bits(x[0], twos, x[1], x[2]);
    add_bits(x[0], more, x[3], x[4]);
    add_bits(x[0], most, x[5], x[6]);
    add_bits(twos, fours, more, most);
    return start + __popc(x[0]) + __popc(x[7]) + 2 * __popc(twos) + 4 * __popc(fours);
  } else if constexpr (kWords >= 3) {
    static_assert(kWords <= 4);
    uint32_t twos;
    add_bits(x[0], twos, x[1], x[2]);
    if constexpr (kWords == 4) start += __popc(x[3]);
    return start + __popc(x[0]) + 2 * __popc(twos);
  } else {
#pragma unroll
    for (int w = 0; w < kWords; ++w) start += __popc(x[w]);
    return start;
  }
}

// The distance of two codes, a few words at a time. Not for inner loops, as load_words.
template <int kWords, bool kWide>
__device__ __forceinline__ int distance_between(const Codes& a, int64_t i, const Codes& b, int64_t j) {
  uint32_t x[kWords], y[kWords];
  int distance = 0;
  for (int first = 0; first < (kWide ? a.num_words() : 1); first += kWords) {
    load_words<kWords>(a, i, first, x);
    load_words<kWords>(b, j, first, y);
    distance = add_distance<kWords>(distance, x, y);
  }
  return distance;
}

constexpr int kNoDistance = INT_MAX;  // of a neighbour that does not exist

// A neighbour's place in the order of results: distance, then index.
constexpr int kIndexBits = 48;
__device__ __forceinline__ unsigned long long make_key(int distance, int64_t index) {
  return static_cast<unsigned long long>(distance) << kIndexBits | static_cast<unsigned long long>(index);
}
__device__ __forceinline__ int distance_of(unsigned long long key) { return static_cast<int>(key >> kIndexBits); }
__device__ __forceinline__ int64_t index_of(unsigned long long key) {
  return static_cast<int64_t>(key & ((1ull << kIndexBits) - 1));
}

// Calls run(number of words, is wide) with the smallest number that kernels are compiled for and that holds a code;
// longer codes are wide and read kWideWords at a time.
template <typename Run>
void dispatch_words(int num_words, Run run) {
  if (num_words == 1) return run(std::integral_constant<int, 1>(), std::false_type());
  if (num_words == 2) return run(std::integral_constant<int, 2>(), std::false_type());
  if (num_words == 3) return run(std::integral_constant<int, 3>(), std::false_type());
  if (num_words == 4) return run(std::integral_constant<int, 4>(), std::false_type());
  if (num_words <= kWideWords) return run(std::integral_constant<int, kWideWords>(), std::false_type());
  return run(std::integral_constant<int, kWideWords>(), std::true_type());
}

}  // namespace adsq::cuda
