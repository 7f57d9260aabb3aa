// Vectors in the language of gcc and clang, as long as the instructions have them that a file is compiled for: what the
// kernels of losses are written on, once for every instruction set. Intrinsics stand only where the language has no
// word for an instruction.
//
// In an unnamed namespace, for the reason given in hamming_direct.h. Compilers fuse a * b + c where they may: setup.py
// forbids it to files that must round as PyTorch does.
#pragma once
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "element.h"

#define ADSQ_INLINE inline __attribute__((always_inline))

namespace adsq::cpu {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif
typedef float Floats __attribute__((vector_size(kVectorBytes)));
typedef double Doubles __attribute__((vector_size(kVectorBytes)));
typedef int32_t Integers32 __attribute__((vector_size(kVectorBytes)));
typedef int64_t Integers64 __attribute__((vector_size(kVectorBytes)));
typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));          // beside Floats
typedef uint32_t HalfWords __attribute__((vector_size(kVectorBytes / 2)));  // beside Doubles
typedef int32_t HalfIntegers32 __attribute__((vector_size(kVectorBytes / 2)));
typedef uint16_t Halves __attribute__((vector_size(kVectorBytes / 2)));

// Half numbers as floats, subnormal ones and those that are none too.
ADSQ_INLINE Floats widen(Halves bits, BFloat16) { return (Floats)(__builtin_convertvector(bits, Words) << 16); }
ADSQ_INLINE Floats widen(Halves bits, Float16) {
#if defined(__AVX512F__)
  return (Floats)_mm512_cvtph_ps((__m256i)bits);
#elif defined(__F16C__) && defined(__AVX2__)
  return (Floats)_mm256_cvtph_ps((__m128i)bits);
#else
  const Words half = __builtin_convertvector(bits, Words), magnitude = (half & 0x7FFF) << 13;
  // Small numbers: 2^-14 with the fraction as its last bits, less 2^-14.
  const Words least = Words{} + (113u << 23), small = (Words)((Floats)(magnitude + least) - (Floats)least);
  const Words is_small = (Words)(magnitude < (1u << 23)), is_special = (Words)(magnitude >= (31u << 23));
  const Words number = (is_small & small) | (~is_small & (magnitude + (112u << 23)));
  return (Floats)((is_special & (magnitude | 0x7F800000)) | (~is_special & number) | (half & 0x8000) << 16);
#endif
}

// The larger of two, b where one is not a number.
ADSQ_INLINE Floats larger(Floats a, Floats b) {
#if defined(__AVX512F__)
  return (Floats)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Floats)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}
ADSQ_INLINE Doubles larger(Doubles a, Doubles b) {
#if defined(__AVX512F__)
  return (Doubles)_mm512_max_pd((__m512d)a, (__m512d)b);
#elif defined(__AVX2__)
  return (Doubles)_mm256_max_pd((__m256d)a, (__m256d)b);
#else
  return a > b ? a : b;
#endif
}

// What kernels need to know of a kind of numbers: their vectors, and 32-bit words beside them.
template <typename Real, typename RealVector, typename IntegerVector, typename WordVector, typename WordMask, int kBits,
          int kBias>
struct Lanes {
  using Scalar = Real;
  using Vector = RealVector;
  using Mask = IntegerVector;  // all bits of a lane, or none
  using Words = WordVector;
  static constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(Real));
  static constexpr int kRows = kVectorBytes == 64 ? 8 : 4;  // of a block of a matrix product that stays in registers
  // exp is 0 from here on: the power of two is written as 0.
  static constexpr Real kLowestExponent = sizeof(Real) == 4 ? Real(-88.02) : Real(-709.08);

  static ADSQ_INLINE Vector set(Real a) { return a - Vector{}; }
  static ADSQ_INLINE Vector load(const Real* from) {
    Vector a;
    __builtin_memcpy(&a, from, sizeof(a));
    return a;
  }
  template <typename Half>
  static ADSQ_INLINE Vector load(const Half* from) {
    Halves bits;
    __builtin_memcpy(&bits, from, sizeof(bits));
    return widen(bits, Half{});
  }
  static ADSQ_INLINE void store(Real* to, Vector a) { __builtin_memcpy(to, &a, sizeof(a)); }
  static ADSQ_INLINE Vector negate_where(Mask mask, Vector a) {
    return (Vector)((Mask)a ^ (mask & (Mask)set(-Real(0))));
  }
  static ADSQ_INLINE Vector minus_magnitude(Vector a) { return (Vector)((Mask)a | (Mask)set(-Real(0))); }
  // Adding a number whose last bit counts ones rounds to the nearest one.
  static ADSQ_INLINE Vector round(Vector a) {
    const Vector ones = set(Real(3) * static_cast<Real>(int64_t{1} << (kBits - 1)));
    return (a + ones) - ones;
  }
  static ADSQ_INLINE Vector times_power_of_two(Vector a, Vector n) {
    return a * (Vector)((__builtin_convertvector(n, Mask) + kBias) << kBits);
  }

  static ADSQ_INLINE Words load_words(const uint32_t* from) {
    Words a;
    __builtin_memcpy(&a, from, sizeof(a));
    return a;
  }
  static ADSQ_INLINE Mask mask_of(WordMask a) { return __builtin_convertvector(a, Mask); }
  static ADSQ_INLINE Vector to_vector(Words a) { return __builtin_convertvector((WordMask)a, Vector); }
};

using Float32 = Lanes<float, Floats, Integers32, Words, Integers32, 23, 127>;
using Float64 = Lanes<double, Doubles, Integers64, HalfWords, HalfIntegers32, 52, 1023>;

// Bits that are set, in each word. Where there is no instruction, as in hamming_direct.h.
template <typename WordVector>
ADSQ_INLINE WordVector count_bits(WordVector x) {
#if defined(__AVX512VPOPCNTDQ__) && defined(__AVX512VL__)
  if constexpr (sizeof(x) == 64) return (WordVector)_mm512_popcnt_epi32((__m512i)x);
  if constexpr (sizeof(x) == 32) return (WordVector)_mm256_popcnt_epi32((__m256i)x);
#endif
  x -= (x >> 1) & 0x55555555;
  x = (x & 0x33333333) + ((x >> 2) & 0x33333333);
  return (((x + (x >> 4)) & 0x0F0F0F0F) * 0x01010101) >> 24;
}

}  // namespace
}  // namespace adsq::cpu
