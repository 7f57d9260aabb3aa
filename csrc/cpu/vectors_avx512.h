// Vectors of float and double for AVX-512: one name an operation, so that a kernel is written once for all instruction
// sets. vectors_avx2.h and vectors_generic.h have the same names.
#pragma once
#include <immintrin.h>

#include "element.h"

namespace adsq::cpu::avx512 {

struct Float32 {
  using Scalar = float;
  using Vector = __m512;
  using Mask = __mmask16;
  using Words = __m512i;  // 32-bit words, as many as there are floats
  static constexpr int kLanes = 16;
  static constexpr int kRows = 8;                    // rows of a block that is kept in registers in a matrix product
  static constexpr float kLowestExponent = -128.0f;  // exp is 0 from here on

  static Vector zero() { return _mm512_setzero_ps(); }
  static Vector set(float a) { return _mm512_set1_ps(a); }
  static Vector load(const float* from) { return _mm512_loadu_ps(from); }
  static Vector load(const BFloat16* from) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  }
  static Vector load(const Float16* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static void store(float* to, Vector a) { _mm512_storeu_ps(to, a); }
  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector subtract(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
  static Vector multiply(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
  static Vector divide(Vector a, Vector b) { return _mm512_div_ps(a, b); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
  static Vector subtract_product(Vector c, Vector a, Vector b) { return _mm512_fnmadd_ps(a, b, c); }
  static Vector larger(Vector a, Vector b) { return _mm512_max_ps(a, b); }  // b where one is NaN
  static Vector minus_magnitude(Vector a) { return _mm512_or_ps(a, _mm512_set1_ps(-0.0f)); }
  static Vector round(Vector a) { return _mm512_roundscale_ps(a, 8); }
  static Vector times_power_of_two(Vector a, Vector n) { return _mm512_scalef_ps(a, n); }
  static Mask at_least_zero(Vector a) { return _mm512_cmp_ps_mask(a, _mm512_setzero_ps(), _CMP_GE_OQ); }
  static Vector select(Mask mask, Vector a, Vector b) { return _mm512_mask_blend_ps(mask, b, a); }
  static Vector negate_where(Mask mask, Vector a) { return _mm512_mask_xor_ps(a, mask, a, _mm512_set1_ps(-0.0f)); }

  static Mask all() { return 0xFFFF; }
  static Mask none() { return 0; }
  static Mask both(Mask a, Mask b) { return a & b; }
  static Mask either(Mask a, Mask b) { return a | b; }
  static Words zero_words() { return _mm512_setzero_si512(); }
  static Words load_words(const uint32_t* from) { return _mm512_loadu_si512(from); }
  static Mask equal(Words a, uint32_t b) { return _mm512_cmpeq_epi32_mask(a, _mm512_set1_epi32(static_cast<int>(b))); }
  static Mask have_common_bit(Words a, uint32_t b) {
    return _mm512_test_epi32_mask(a, _mm512_set1_epi32(static_cast<int>(b)));
  }
  static Words add_common_bits(Words count, Words a, uint32_t b) {
    const __m512i common = _mm512_and_si512(a, _mm512_set1_epi32(static_cast<int>(b)));
    return _mm512_add_epi32(count, _mm512_popcnt_epi32(common));
  }
  static Vector to_vector(Words a) { return _mm512_cvtepi32_ps(a); }
};

struct Float64 {
  using Scalar = double;
  using Vector = __m512d;
  using Mask = __mmask8;
  using Words = __m256i;
  static constexpr int kLanes = 8;
  static constexpr int kRows = 8;
  static constexpr double kLowestExponent = -1100.0;

  static Vector zero() { return _mm512_setzero_pd(); }
  static Vector set(double a) { return _mm512_set1_pd(a); }
  static Vector load(const double* from) { return _mm512_loadu_pd(from); }
  static void store(double* to, Vector a) { _mm512_storeu_pd(to, a); }
  static Vector add(Vector a, Vector b) { return _mm512_add_pd(a, b); }
  static Vector subtract(Vector a, Vector b) { return _mm512_sub_pd(a, b); }
  static Vector multiply(Vector a, Vector b) { return _mm512_mul_pd(a, b); }
  static Vector divide(Vector a, Vector b) { return _mm512_div_pd(a, b); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_pd(a, b, c); }
  static Vector subtract_product(Vector c, Vector a, Vector b) { return _mm512_fnmadd_pd(a, b, c); }
  static Vector larger(Vector a, Vector b) { return _mm512_max_pd(a, b); }
  static Vector minus_magnitude(Vector a) { return _mm512_or_pd(a, _mm512_set1_pd(-0.0)); }
  static Vector round(Vector a) { return _mm512_roundscale_pd(a, 8); }
  static Vector times_power_of_two(Vector a, Vector n) { return _mm512_scalef_pd(a, n); }
  static Mask at_least_zero(Vector a) { return _mm512_cmp_pd_mask(a, _mm512_setzero_pd(), _CMP_GE_OQ); }
  static Vector select(Mask mask, Vector a, Vector b) { return _mm512_mask_blend_pd(mask, b, a); }
  static Vector negate_where(Mask mask, Vector a) { return _mm512_mask_xor_pd(a, mask, a, _mm512_set1_pd(-0.0)); }

  static Mask all() { return 0xFF; }
  static Mask none() { return 0; }
  static Mask both(Mask a, Mask b) { return a & b; }
  static Mask either(Mask a, Mask b) { return a | b; }
  static Words zero_words() { return _mm256_setzero_si256(); }
  static Words load_words(const uint32_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
  static Mask equal(Words a, uint32_t b) { return _mm256_cmpeq_epi32_mask(a, _mm256_set1_epi32(static_cast<int>(b))); }
  static Mask have_common_bit(Words a, uint32_t b) {
    return _mm256_test_epi32_mask(a, _mm256_set1_epi32(static_cast<int>(b)));
  }
  static Words add_common_bits(Words count, Words a, uint32_t b) {
    const __m512i common = _mm512_castsi256_si512(_mm256_and_si256(a, _mm256_set1_epi32(static_cast<int>(b))));
    return _mm256_add_epi32(count, _mm512_castsi512_si256(_mm512_popcnt_epi32(common)));
  }
  static Vector to_vector(Words a) { return _mm512_cvtepi32_pd(a); }
};

}  // namespace adsq::cpu::avx512
