#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu/hamming_places.h"

namespace adsq::cpu::avx2 {
namespace {

struct Planes {
  using Plane = __m256i;
  static Plane load(const void* from) { return _mm256_load_si256(static_cast<const __m256i*>(from)); }
  static Plane load_unaligned(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
  static void store(void* to, Plane a) { _mm256_store_si256(static_cast<__m256i*>(to), a); }
  static Plane ones() { return _mm256_set1_epi64x(-1); }
  static Plane exclusive_or(Plane a, Plane b) { return _mm256_xor_si256(a, b); }
  static Plane exclusive_or3(Plane a, Plane b, Plane c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
  static Plane majority(Plane a, Plane b, Plane c) {
    return _mm256_or_si256(_mm256_and_si256(_mm256_xor_si256(a, b), c), _mm256_and_si256(a, b));
  }
  static Plane add(Plane& sum, Plane a, Plane b) {
    const Plane either = _mm256_xor_si256(a, b);
    const Plane carry = _mm256_or_si256(_mm256_and_si256(either, sum), _mm256_and_si256(a, b));
    sum = _mm256_xor_si256(sum, either);
    return carry;
  }
  static Plane both(Plane a, Plane b) { return _mm256_and_si256(a, b); }
  static Plane without(Plane a, Plane b) { return _mm256_andnot_si256(b, a); }
  static bool any(Plane a) { return !_mm256_testz_si256(a, a); }
  static int words_in_use(Plane a, uint32_t first, uint32_t* to) {
    const __m256i zero = _mm256_cmpeq_epi64(a, _mm256_setzero_si256());
    const int words = 0xF ^ _mm256_movemask_pd(_mm256_castsi256_pd(zero));
    int count = 0;
    for (unsigned w = 0; w < 4; ++w) {
      to[count] = first + w;
      count += words >> w & 1;
    }
    return count;
  }
  static void add_counts(const Plane* at, uint32_t* counts, uint32_t* before) {
    add_counts_of_words(at, counts, before);
  }
  static void transpose(const uint64_t* words, Plane* planes) { transpose_by_swaps<Planes>(words, planes); }
};

struct Isa : PlainIsa {
  static constexpr int kCodes = 4;
  using Distances = __m256i;
  static Distances broadcast(int64_t value) { return _mm256_set1_epi64x(value); }
  static Distances load_words(const void* words) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words)); }
  template <int kWords>
  static Distances repeated(const uint64_t* words) {
    if constexpr (kWords == 1) return broadcast(static_cast<int64_t>(*words));
    if constexpr (kWords == 2) {
      return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(words)));
    }
    return load_words(words);
  }
  // Bits of each half byte by table, added up over the bytes of each word.
  static Distances differing(Distances words, Distances query) {
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,  //
                                           0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i half = _mm256_set1_epi8(0x0F), bits = _mm256_xor_si256(words, query);
    const __m256i lower = _mm256_shuffle_epi8(table, _mm256_and_si256(bits, half));
    const __m256i upper = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(bits, 4), half));
    return _mm256_sad_epu8(_mm256_add_epi8(lower, upper), _mm256_setzero_si256());
  }
  // Four rows at a time. Rows of less than 8 bytes are read two to a half of a vector and spread to one word each.
  struct RowReader {
    int64_t width;
    __m256i places;
    // Made for every few rows: no loops.
    explicit RowReader(int64_t row_width) : width(row_width) {
      const int64_t second = 2 * width, seen = width < 4 ? 0 : 4 * width - 16;  // where the upper half begins
      const auto row = [](int64_t place) {
        return static_cast<int64_t>(0x0101010101010101 * static_cast<uint64_t>(place));
      };
      const __m256i rows = _mm256_setr_epi64x(0, row(width), row(second - seen), row(second + width - seen));
      const __m256i bytes = _mm256_set1_epi64x(0x0706050403020100);
      const __m256i unused = _mm256_cmpgt_epi8(bytes, _mm256_set1_epi8(static_cast<char>(width - 1)));
      places = _mm256_or_si256(_mm256_add_epi8(rows, bytes), unused);
    }
    ADSQ_INLINE Distances words(const uint8_t* rows) const {
      const auto load = [](const uint8_t* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); };
      if (width >= 4) {
        return _mm256_shuffle_epi8(_mm256_set_m128i(load(rows + 4 * width - 16), load(rows)), places);
      }
      uint32_t last;
      __builtin_memcpy(&last, rows + 4 * (width - 1), sizeof(last));
      __m128i all = _mm_cvtsi32_si128(static_cast<int>(last));
      if (width == 2) all = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(rows));
      if (width == 3) all = _mm_unpacklo_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(rows)), all);
      return _mm256_shuffle_epi8(_mm256_set_m128i(all, all), places);
    }
    ADSQ_INLINE Distances distances(const uint8_t* codes, const uint64_t* query) const {
      if (width < 8) return differing(words(codes), broadcast(static_cast<int64_t>(query[0])));
      const auto one = [&](int64_t c) { return row_distance(codes + c * width, width, query); };
      return _mm256_setr_epi64x(one(0), one(1), one(2), one(3));
    }
  };
  static Distances add(Distances a, Distances b) { return _mm256_add_epi64(a, b); }
  static Distances low(Distances a, Distances b) { return _mm256_min_epu32(a, b); }  // the upper halves are zero
  static Distances pair_sums(Distances a, Distances b) {
    return _mm256_permute4x64_epi64(add(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b)), 0xD8);
  }
  static unsigned within(Distances a, Distances limit) {
    return 0xFu ^ static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpgt_epi64(a, limit))));
  }
  static void store(uint64_t* to, Distances a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), a); }
  // Four vectors at a time become one. Its words are put in order in each half, then pairs of words across the halves.
  static ADSQ_INLINE void narrow(uint16_t* to, const Distances* d) {
    const __m256i words = _mm256_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15,  //
                                           0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
    const __m256i pairs = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (int v = 0; v < kGroup; v += 4) {
      const __m256i low = _mm256_or_si256(d[v], _mm256_slli_epi64(d[v + 1], 16));
      const __m256i high = _mm256_or_si256(d[v + 2], _mm256_slli_epi64(d[v + 3], 16));
      const __m256i four = _mm256_or_si256(low, _mm256_slli_epi64(high, 32));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + v * kCodes),
                          _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(four, words), pairs));
    }
  }
  static constexpr bool kStreams = true;
  static void stream(const uint32_t* from, int64_t* to) {
    for (int i = 0; i < 8; i += 4) {
      const __m128i numbers = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i), _mm256_cvtepu32_epi64(numbers));
    }
  }
  static void stream(const uint16_t* from, int32_t* to) {
    for (int i = 0; i < 16; i += 8) {
      const __m128i numbers = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i), _mm256_cvtepu16_epi32(numbers));
    }
  }
};

}  // namespace

const ScanKernels kScanKernels = kernels_of<Planes, Isa>(16, 20, 22);

}  // namespace adsq::cpu::avx2
#endif
