// Vectors of float and double for AVX2 with FMA and F16C; see vectors_avx512.h.
#pragma once
#include <immintrin.h>

#include "element.h"

namespace adsq::cpu::avx2 {

// Bits of each 32-bit word: by table for half bytes, then added up.
inline __m256i count_bits(__m256i a) {
  const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,  //
                                         0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const __m256i half = _mm256_set1_epi8(0x0F);
  const __m256i lower = _mm256_shuffle_epi8(table, _mm256_and_si256(a, half));
  const __m256i upper = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(a, 4), half));
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_add_epi8(lower, upper), _mm256_set1_epi8(1));
  return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

struct Float32 {
  using Scalar = float;
  using Vector = __m256;
  using Mask = __m256;  // all bits of a lane, or none
  using Words = __m256i;
  static constexpr int kLanes = 8;
  static constexpr int kRows = 4;
  static constexpr float kLowestExponent = -88.02f;  // 2^-127 is written as 0

  static Vector zero() { return _mm256_setzero_ps(); }
  static Vector set(float a) { return _mm256_set1_ps(a); }
  static Vector load(const float* from) { return _mm256_loadu_ps(from); }
  static Vector load(const BFloat16* from) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
  }
  static Vector load(const Float16* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static void store(float* to, Vector a) { _mm256_storeu_ps(to, a); }
  static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static Vector subtract(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
  static Vector multiply(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
  static Vector divide(Vector a, Vector b) { return _mm256_div_ps(a, b); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
  static Vector subtract_product(Vector c, Vector a, Vector b) { return _mm256_fnmadd_ps(a, b, c); }
  static Vector larger(Vector a, Vector b) { return _mm256_max_ps(a, b); }
  static Vector minus_magnitude(Vector a) { return _mm256_or_ps(a, _mm256_set1_ps(-0.0f)); }
  static Vector round(Vector a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static Vector times_power_of_two(Vector a, Vector n) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
  }
  static Mask at_least_zero(Vector a) { return _mm256_cmp_ps(a, _mm256_setzero_ps(), _CMP_GE_OQ); }
  static Vector select(Mask mask, Vector a, Vector b) { return _mm256_blendv_ps(b, a, mask); }
  static Vector negate_where(Mask mask, Vector a) {
    return _mm256_xor_ps(a, _mm256_and_ps(mask, _mm256_set1_ps(-0.0f)));
  }

  static Mask all() { return _mm256_castsi256_ps(_mm256_set1_epi32(-1)); }
  static Mask none() { return _mm256_setzero_ps(); }
  static Mask both(Mask a, Mask b) { return _mm256_and_ps(a, b); }
  static Mask either(Mask a, Mask b) { return _mm256_or_ps(a, b); }
  static Words zero_words() { return _mm256_setzero_si256(); }
  static Words load_words(const uint32_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
  static Mask equal(Words a, uint32_t b) {
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(a, _mm256_set1_epi32(static_cast<int>(b))));
  }
  static Mask have_common_bit(Words a, uint32_t b) {
    const __m256i common = _mm256_and_si256(a, _mm256_set1_epi32(static_cast<int>(b)));
    const __m256i apart = _mm256_cmpeq_epi32(common, _mm256_setzero_si256());
    return _mm256_xor_ps(_mm256_castsi256_ps(apart), all());
  }
  static Words add_common_bits(Words count, Words a, uint32_t b) {
    return _mm256_add_epi32(count, count_bits(_mm256_and_si256(a, _mm256_set1_epi32(static_cast<int>(b)))));
  }
  static Vector to_vector(Words a) { return _mm256_cvtepi32_ps(a); }
};

struct Float64 {
  using Scalar = double;
  using Vector = __m256d;
  using Mask = __m256d;
  using Words = __m128i;
  static constexpr int kLanes = 4;
  static constexpr int kRows = 4;
  static constexpr double kLowestExponent = -709.08;

  static Vector zero() { return _mm256_setzero_pd(); }
  static Vector set(double a) { return _mm256_set1_pd(a); }
  static Vector load(const double* from) { return _mm256_loadu_pd(from); }
  static void store(double* to, Vector a) { _mm256_storeu_pd(to, a); }
  static Vector add(Vector a, Vector b) { return _mm256_add_pd(a, b); }
  static Vector subtract(Vector a, Vector b) { return _mm256_sub_pd(a, b); }
  static Vector multiply(Vector a, Vector b) { return _mm256_mul_pd(a, b); }
  static Vector divide(Vector a, Vector b) { return _mm256_div_pd(a, b); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_pd(a, b, c); }
  static Vector subtract_product(Vector c, Vector a, Vector b) { return _mm256_fnmadd_pd(a, b, c); }
  static Vector larger(Vector a, Vector b) { return _mm256_max_pd(a, b); }
  static Vector minus_magnitude(Vector a) { return _mm256_or_pd(a, _mm256_set1_pd(-0.0)); }
  static Vector round(Vector a) { return _mm256_round_pd(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static Vector times_power_of_two(Vector a, Vector n) {
    const __m256i exponent = _mm256_cvtepi32_epi64(_mm_add_epi32(_mm256_cvtpd_epi32(n), _mm_set1_epi32(1023)));
    return _mm256_mul_pd(a, _mm256_castsi256_pd(_mm256_slli_epi64(exponent, 52)));
  }
  static Mask at_least_zero(Vector a) { return _mm256_cmp_pd(a, _mm256_setzero_pd(), _CMP_GE_OQ); }
  static Vector select(Mask mask, Vector a, Vector b) { return _mm256_blendv_pd(b, a, mask); }
  static Vector negate_where(Mask mask, Vector a) {
    return _mm256_xor_pd(a, _mm256_and_pd(mask, _mm256_set1_pd(-0.0)));
  }

  static Mask all() { return _mm256_castsi256_pd(_mm256_set1_epi64x(-1)); }
  static Mask none() { return _mm256_setzero_pd(); }
  static Mask both(Mask a, Mask b) { return _mm256_and_pd(a, b); }
  static Mask either(Mask a, Mask b) { return _mm256_or_pd(a, b); }
  static Words zero_words() { return _mm_setzero_si128(); }
  static Words load_words(const uint32_t* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); }
  static Mask widen(__m128i mask) { return _mm256_castsi256_pd(_mm256_cvtepi32_epi64(mask)); }
  static Mask equal(Words a, uint32_t b) { return widen(_mm_cmpeq_epi32(a, _mm_set1_epi32(static_cast<int>(b)))); }
  static Mask have_common_bit(Words a, uint32_t b) {
    const __m128i common = _mm_and_si128(a, _mm_set1_epi32(static_cast<int>(b)));
    return _mm256_xor_pd(widen(_mm_cmpeq_epi32(common, _mm_setzero_si128())), all());
  }
  static Words add_common_bits(Words count, Words a, uint32_t b) {
    const __m128i common = _mm_and_si128(a, _mm_set1_epi32(static_cast<int>(b)));
    return _mm_add_epi32(count, _mm256_castsi256_si128(count_bits(_mm256_castsi128_si256(common))));
  }
  static Vector to_vector(Words a) { return _mm256_cvtepi32_pd(a); }
};

}  // namespace adsq::cpu::avx2
