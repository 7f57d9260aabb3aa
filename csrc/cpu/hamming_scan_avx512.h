// The search kernels on vectors of 512 bits. What Ice Lake and Zen 4 brought (counting bits, permuting bytes, affine
// maps) is used where a file is compiled for it; all else runs on servers since Skylake.
//
// In an unnamed namespace, for the reason given in hamming_direct.h.
#pragma once
#include <immintrin.h>

#include "cpu/hamming_planes_avx512.h"

namespace adsq::cpu {
namespace {

struct Isa {
  static constexpr int kCodes = 8;
  using Distances = __m512i;
  static Distances broadcast(int64_t value) { return _mm512_set1_epi64(value); }
  static Distances load_words(const void* words) { return _mm512_loadu_si512(words); }
  template <int kWords>
  static Distances repeated(const uint64_t* words) {
    if constexpr (kWords == 1) return broadcast(static_cast<int64_t>(*words));
    const __m128i* from = reinterpret_cast<const __m128i*>(words);
    if constexpr (kWords == 2) return _mm512_broadcast_i64x2(_mm_loadu_si128(from));
    return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(words)));
  }
  static Distances differing(Distances words, Distances query) {
#if defined(__AVX512VPOPCNTDQ__)
    return _mm512_popcnt_epi64(_mm512_xor_si512(words, query));
#else
    // As with AVX2: bits of each half byte by table, added up over the bytes of each word. The query is shifted once.
    const __m512i half = _mm512_set1_epi8(0x0F);
    const __m512i table = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const auto count = [&](__m512i a, __m512i b) {
      return _mm512_shuffle_epi8(table, _mm512_ternarylogic_epi64(a, b, half, 0x28));  // (a ^ b) & half
    };
    const __m512i upper = count(_mm512_srli_epi16(words, 4), _mm512_srli_epi16(query, 4));
    return _mm512_sad_epu8(_mm512_add_epi8(count(words, query), upper), _mm512_setzero_si512());
#endif
  }
  static Distances add(Distances a, Distances b) { return _mm512_add_epi64(a, b); }
  static Distances low(Distances a, Distances b) { return _mm512_min_epu32(a, b); }  // the upper halves are zero
  static __m512i even(__m512i a, __m512i b) {
    return _mm512_permutex2var_epi64(a, _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0), b);
  }
  static __m512i odd(__m512i a, __m512i b) {
    return _mm512_permutex2var_epi64(a, _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1), b);
  }
  static Distances pair_sums(Distances a, Distances b) { return add(even(a, b), odd(a, b)); }
  static unsigned within(Distances a, Distances limit) { return bits_of(_mm512_cmple_epu64_mask(a, limit)); }
  static void store(uint64_t* to, Distances a) { _mm512_storeu_si512(to, a); }
  static constexpr bool kAppends = true;
  static int append(uint64_t* keys, Distances d, unsigned lanes, int64_t first) {
    const __m512i indices = add(broadcast(first), _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0));
    const __m512i all = _mm512_or_si512(_mm512_slli_epi64(d, kIndexBits), indices);
    _mm512_storeu_si512(keys, _mm512_maskz_compress_epi64(static_cast<__mmask8>(lanes), all));
    return __builtin_popcount(lanes);
  }
  // Four vectors at a time become one, whose words are then put in order.
  static ADSQ_INLINE void narrow(uint16_t* to, const Distances* d) {
    const __m512i order = _mm512_set_epi16(31, 27, 23, 19, 15, 11, 7, 3, 30, 26, 22, 18, 14, 10, 6, 2,  //
                                           29, 25, 21, 17, 13, 9, 5, 1, 28, 24, 20, 16, 12, 8, 4, 0);
    for (int v = 0; v < kGroup; v += 4) {
      const __m512i low = _mm512_or_si512(d[v], _mm512_slli_epi64(d[v + 1], 16));
      const __m512i high = _mm512_or_si512(d[v + 2], _mm512_slli_epi64(d[v + 3], 16));
      const __m512i four = _mm512_or_si512(low, _mm512_slli_epi64(high, 32));
      _mm512_storeu_si512(to + v * kCodes, _mm512_permutexvar_epi16(order, four));
    }
  }

  static __mmask64 first_bytes(int64_t count) { return count >= 64 ? ~__mmask64{0} : (__mmask64{1} << count) - 1; }

  // Eight rows at a time. Rows of up to 8 bytes are read together and spread to one word each; longer ones in pieces of
  // 64 bytes, the last of them masked.
  struct RowReader {
    int64_t width;
    __mmask64 read, tail;
    // Both below are made for every few rows: no loops.
#if defined(__AVX512VBMI__)
    __mmask64 used;
    __m512i places;
    explicit RowReader(int64_t row_width)
        : width(row_width), read(first_bytes(8 * row_width)), tail(first_bytes(row_width % 64)) {
      constexpr uint64_t kEach = 0x0101010101010101;
      const __m512i rows = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0), bytes = _mm512_set1_epi64(0x0706050403020100);
      places = _mm512_add_epi64(
          bytes,
          _mm512_mullo_epi64(rows, _mm512_set1_epi64(static_cast<int64_t>(kEach * static_cast<uint64_t>(row_width)))));
      used = kEach * (first_bytes(row_width) & 0xFF);
    }
    ADSQ_INLINE __m512i words(const uint8_t* rows) const {
      return _mm512_maskz_permutexvar_epi8(used, places, _mm512_maskz_loadu_epi8(read, rows));
    }
#else
    // Pairs of bytes are moved. A row whose number and width are odd begins with the upper byte of a pair.
    __m512i places, shifts, used;
    explicit RowReader(int64_t row_width)
        : width(row_width), read(first_bytes(8 * row_width)), tail(first_bytes(row_width % 64)) {
      const __m512i rows = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
      const __m512i starts = _mm512_mullo_epi64(rows, _mm512_set1_epi64(row_width));
      const __m512i pairs = _mm512_mullo_epi64(_mm512_srli_epi64(starts, 1), _mm512_set1_epi64(0x0001000100010001));
      places = _mm512_add_epi64(pairs, _mm512_set1_epi64(0x0003000200010000));
      shifts = _mm512_slli_epi64(_mm512_and_si512(starts, _mm512_set1_epi64(1)), 3);
      used = _mm512_set1_epi64(static_cast<int64_t>(~uint64_t{0} >> (row_width < 8 ? 64 - 8 * row_width : 0)));
    }
    ADSQ_INLINE __m512i words(const uint8_t* rows) const {
      const __m512i pairs = _mm512_permutexvar_epi16(places, _mm512_maskz_loadu_epi8(read, rows));
      return _mm512_and_si512(_mm512_srlv_epi64(pairs, shifts), used);
    }
#endif
    ADSQ_INLINE Distances distances(const uint8_t* codes, const uint64_t* query) const {
      if (width <= 8) return differing(words(codes), broadcast(static_cast<int64_t>(query[0])));
      __m512i sums[8];
      for (auto& sum : sums) sum = _mm512_setzero_si512();
      int64_t b = 0;
      for (; b + 64 <= width; b += 64) {
        const __m512i piece = _mm512_load_si512(query + b / 8);
        for (int c = 0; c < 8; ++c) {
          sums[c] = add(sums[c], differing(_mm512_loadu_si512(codes + c * width + b), piece));
        }
      }
      if (b < width) {
        const __m512i piece = _mm512_load_si512(query + b / 8);
        for (int c = 0; c < 8; ++c) {
          sums[c] = add(sums[c], differing(_mm512_maskz_loadu_epi8(tail, codes + c * width + b), piece));
        }
      }
      return lane_sums(sums);
    }

    // The sum over all lanes of each of 8 vectors.
    static ADSQ_INLINE __m512i lane_sums(const __m512i* s) {
      __m512i pairs[4], fours[2];
      for (int i = 0; i < 4; ++i) {
        pairs[i] = add(_mm512_unpacklo_epi64(s[2 * i], s[2 * i + 1]), _mm512_unpackhi_epi64(s[2 * i], s[2 * i + 1]));
      }
      for (int i = 0; i < 2; ++i) fours[i] = half_sums(pairs[2 * i], pairs[2 * i + 1]);
      return half_sums(fours[0], fours[1]);
    }
    static ADSQ_INLINE __m512i half_sums(__m512i a, __m512i b) {
      return add(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xDD));
    }
  };

  static int64_t widen(const uint8_t* rows, int64_t width, int64_t count, uint64_t* words, int64_t stride) {
    if (count < 8) return 0;
    const RowReader reader(width);
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
      const uint8_t* from = rows + i * width;
      if (width <= 8) {
        _mm512_storeu_si512(words + i, reader.words(from));
        continue;
      }
      for (int64_t b = 0; b < width; b += 64) {
        __m512i r[8];
        for (int c = 0; c < 8; ++c) r[c] = _mm512_maskz_loadu_epi8(first_bytes(width - b), from + c * width + b);
        transpose_words(r);
        for (int64_t w = 0; w < 8 && 8 * w < width - b; ++w)
          _mm512_storeu_si512(words + (b / 8 + w) * stride + i, r[w]);
      }
    }
    return i;
  }

  static constexpr bool kStreams = true;
  static void stream(const uint32_t* from, int64_t* to) {
    const __m256i numbers = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), _mm512_cvtepu32_epi64(numbers));
  }
  static void stream(const uint16_t* from, int32_t* to) {
    const __m256i numbers = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), _mm512_cvtepu16_epi32(numbers));
  }
};

}  // namespace
}  // namespace adsq::cpu
