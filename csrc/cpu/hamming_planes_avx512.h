// Bit planes in vectors of 512 bits, for hamming_scan_avx512.h.
//
// In an unnamed namespace, for the reason given in hamming_direct.h.
#pragma once
#include <immintrin.h>

#include "cpu/hamming_places.h"

namespace adsq::cpu {
namespace {

// Exchanges rows and columns of 8 vectors of 8 words.
ADSQ_INLINE void transpose_words(__m512i* r) {
  __m512i s[8], t[8];
  for (int i = 0; i < 8; i += 2) {
    s[i] = _mm512_unpacklo_epi64(r[i], r[i + 1]);
    s[i + 1] = _mm512_unpackhi_epi64(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int j = 0; j < 2; ++j) {
      t[i + j] = _mm512_shuffle_i64x2(s[i + j], s[i + j + 2], 0x88);
      t[i + j + 2] = _mm512_shuffle_i64x2(s[i + j], s[i + j + 2], 0xDD);
    }
  }
  for (int j = 0; j < 4; ++j) {
    r[j] = _mm512_shuffle_i64x2(t[j], t[j + 4], 0x88);
    r[j + 4] = _mm512_shuffle_i64x2(t[j], t[j + 4], 0xDD);
  }
}

// How many bits are set in each word.
ADSQ_INLINE __m512i bits_in_words(__m512i words) {
#if defined(__AVX512VPOPCNTDQ__)
  return _mm512_popcnt_epi64(words);
#else
  const __m512i half = _mm512_set1_epi8(0x0F);
  const __m512i table = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
  const __m512i low = _mm512_shuffle_epi8(table, _mm512_and_si512(words, half));
  const __m512i high = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(words, 4), half));
  return _mm512_sad_epu8(_mm512_add_epi8(low, high), _mm512_setzero_si512());
#endif
}

// Eight lanes as bits. GCC 12 may put the mask into memory as one byte and then read four, unless a register has to
// hold it first.
ADSQ_INLINE unsigned bits_of(__mmask8 mask) {
  unsigned bits = mask;
  __asm__("" : "+r"(bits));
  return bits;
}

struct Planes {
  using Plane = __m512i;
  static Plane load(const void* from) { return _mm512_load_si512(from); }
  static Plane load_unaligned(const void* from) { return _mm512_loadu_si512(from); }
  static void store(void* to, Plane a) { _mm512_store_si512(to, a); }
  static Plane ones() { return _mm512_set1_epi64(-1); }
  static Plane exclusive_or(Plane a, Plane b) { return _mm512_xor_si512(a, b); }
  static Plane exclusive_or3(Plane a, Plane b, Plane c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
  static Plane majority(Plane a, Plane b, Plane c) { return _mm512_ternarylogic_epi64(a, b, c, 0xE8); }
  static ADSQ_INLINE Plane add(Plane& sum, Plane a, Plane b) {
    const Plane carry = majority(sum, a, b);
    sum = exclusive_or3(sum, a, b);
    return carry;
  }
  static Plane both(Plane a, Plane b) { return _mm512_and_si512(a, b); }
  static Plane without(Plane a, Plane b) { return _mm512_andnot_si512(b, a); }
  static bool any(Plane a) { return _mm512_test_epi64_mask(a, a) != 0; }
  static int words_in_use(Plane a, uint32_t first, uint32_t* to) {
    const unsigned words = bits_of(_mm512_test_epi64_mask(a, a));
    const __m256i numbers =
        _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>(first)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                        _mm256_maskz_compress_epi32(static_cast<__mmask8>(words), numbers));
    return __builtin_popcount(words);
  }

  // Counts of words first; turned, those of a word are added for all planes at a time.
  static ADSQ_INLINE void add_counts(const Plane* at, uint32_t* counts, uint32_t* before) {
    __m512i words[8];
    for (int d = 0; d < 8; ++d) words[d] = bits_in_words(load(at + d));
    transpose_words(words);
    __m256i sums = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(counts));
    for (int w = 0; w < 8; ++w) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(before + 8 * w), sums);
      sums = _mm256_add_epi32(sums, _mm512_cvtepi64_epi32(words[w]));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(counts), sums);
  }

#if defined(__AVX512VBMI__) && defined(__GFNI__)
  // 64 planes from 512 words. Bits: the bytes of 8 codes are grouped by column, and an affine map with the identity
  // turns each group of 8 x 8 bits. Bytes: two rounds of turning 8 x 8 words, with the bytes turned in between.
  static void transpose(const uint64_t* words, Plane* planes) {
    alignas(64) uint8_t columns[64], reversed[64];
    for (int i = 0; i < 64; ++i) {
      columns[i] = static_cast<uint8_t>(8 * (i % 8) + i / 8);
      reversed[i] = static_cast<uint8_t>(8 * (7 - i % 8) + i / 8);
    }
    const __m512i by_column = load(columns), by_column_reversed = load(reversed);
    const __m512i identity = _mm512_set1_epi64(static_cast<int64_t>(0x8040201008040201));
    __m512i turned[64];  // [column][group of 64 codes]
    for (int g = 0; g < 8; ++g) {
      __m512i r[8];
      for (int v = 0; v < 8; ++v) {
        const __m512i bytes = _mm512_permutexvar_epi8(by_column_reversed, load_unaligned(words + 64 * g + 8 * v));
        r[v] = _mm512_gf2p8affine_epi64_epi8(identity, bytes, 0);
      }
      transpose_words(r);
      for (int c = 0; c < 8; ++c) turned[8 * c + g] = _mm512_permutexvar_epi8(by_column, r[c]);
    }
    for (int c = 0; c < 8; ++c) {
      __m512i r[8];
      for (int g = 0; g < 8; ++g) r[g] = turned[8 * c + g];
      transpose_words(r);
      for (int b = 0; b < 8; ++b) store(planes + 8 * c + b, r[b]);
    }
  }
#else
  // Exchanges the upper half of each 2 * kSize bits of a with the lower half of those of b.
  template <int kSize>
  static ADSQ_INLINE void swap_halves(Plane& a, Plane& b) {
    const Plane lower = _mm512_set1_epi64(static_cast<int64_t>(~uint64_t{0} / ((uint64_t{1} << kSize) + 1)));
    const Plane upper_of_a = _mm512_srli_epi64(a, kSize);
    a = _mm512_ternarylogic_epi64(lower, a, _mm512_slli_epi64(b, kSize), 0xCA);  // lower ? second : third
    b = _mm512_ternarylogic_epi64(lower, upper_of_a, b, 0xCA);
  }
  // Three rounds of swapping, in blocks of 4 * kSize, 2 * kSize and kSize bits, among 8 planes `stride` apart.
  template <int kSize>
  static ADSQ_INLINE void swap_rounds(Plane* planes, int stride) {
    Plane r[8];
    for (int i = 0; i < 8; ++i) r[i] = load(planes + stride * i);
    for (int i = 0; i < 4; ++i) {
      swap_halves<4 * kSize>(r[i], r[i + 4]);
    }
    for (int i = 0; i < 4; ++i) {
      const int first = i + (i & 2);  // 0, 1, 4, 5
      swap_halves<2 * kSize>(r[first], r[first + 2]);
    }
    for (int i = 0; i < 8; i += 2) {
      swap_halves<kSize>(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; ++i) store(planes + stride * i, r[i]);
  }
  // 64 planes from 512 words, by swapping ever smaller blocks of bits, 8 groups of 64 codes side by side.
  static void transpose(const uint64_t* words, Plane* planes) {
    for (int v = 0; v < 8; ++v) {
      Plane r[8];
      for (int g = 0; g < 8; ++g) r[g] = load_unaligned(words + 64 * g + 8 * v);
      transpose_words(r);
      for (int j = 0; j < 8; ++j) store(planes + 8 * v + j, r[j]);
    }
    for (int j = 0; j < 8; ++j) swap_rounds<8>(planes + j, 8);
    for (int v = 0; v < 8; ++v) swap_rounds<1>(planes + 8 * v, 1);
  }
#endif
};

}  // namespace
}  // namespace adsq::cpu
