// The distance of one code, for every instruction set.
//
// In an unnamed namespace, for the reason given in hamming_direct.h.
#pragma once
#include <cstdint>

#define ADSQ_INLINE inline __attribute__((always_inline))

namespace adsq::cpu {
namespace {

ADSQ_INLINE uint64_t load_word(const void* from) {
  uint64_t word;
  __builtin_memcpy(&word, from, sizeof(word));
  return word;
}

// Without the instruction, compilers call a function that is slower than this.
ADSQ_INLINE int64_t count_bits(uint64_t x) {
#if defined(__x86_64__) && !defined(__POPCNT__)
  x -= (x >> 1) & 0x5555555555555555;
  x = (x & 0x3333333333333333) + ((x >> 2) & 0x3333333333333333);
  return static_cast<int64_t>((((x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F) * 0x0101010101010101) >> 56);
#else
  return __builtin_popcountll(x);
#endif
}

// One distance. Word w of the code is words[w * stride].
ADSQ_INLINE int64_t one_distance(const uint64_t* words, int64_t stride, const uint64_t* query, int num_words) {
  int64_t sum = 0;
  for (int w = 0; w < num_words; ++w) sum += count_bits(words[w * stride] ^ query[w]);
  return sum;
}

// A row of 1 to 7 bytes as a word, without a loop: pieces of it may overlap.
ADSQ_INLINE uint64_t short_word(const uint8_t* row, int64_t width) {
  const auto byte = [&](int64_t i) { return uint64_t{row[i]} << (8 * i); };
  if (width < 4) return byte(0) | byte(width / 2) | byte(width - 1);
  uint32_t low, high;
  __builtin_memcpy(&low, row, sizeof(low));
  __builtin_memcpy(&high, row + width - 4, sizeof(high));
  return low | uint64_t{high} << (8 * (width - 4));
}

// The same of a code as it lies in memory. Unused bits of the query are zeros.
ADSQ_INLINE int64_t row_distance(const uint8_t* row, int64_t width, const uint64_t* query) {
  int64_t sum = 0, b = 0;
  for (; b + 8 <= width; b += 8) sum += count_bits(load_word(row + b) ^ query[b / 8]);
  if (b == width) return sum;
  const uint64_t rest = width > 8 ? load_word(row + width - 8) >> (8 * (8 - width % 8)) : short_word(row, width);
  return sum + count_bits(rest ^ query[b / 8]);
}

}  // namespace
}  // namespace adsq::cpu
