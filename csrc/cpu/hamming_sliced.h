// How a query is written down for the bit-sliced kernel (hamming_planes.h).
//
// A sliced block holds the j-th bits of all its codes in one vector, plane j. For a query with bits q, the distances of
// all codes are the sum over j of plane_j ^ q_j: additions of one-bit numbers, many lanes at a time. Adding three
// planes a, b, c of one weight gives a sum a ^ b ^ c of the same weight and a carry maj(a, b, c) of twice the weight.
// The sum depends on the query only by the parity of its three bits, so the sums are a shorter code of their own, whose
// query has those parities as bits. Carries depend on the three bits: the 8 possible ones are put in a table once a
// block. Repeating this on the shorter code leaves one plane P, the parity of the distance, and num_groups(K) = K / 2
// tables. So for each query
//     distance = 2 (sum of one carry from each table) + (P ^ parity of the query),
// and none of the work on bits of weight one is done for each query. Comparing with a threshold T comes free: the sum
// starts at a constant such that it overflows just where the distance is above T (`set_threshold`).
#pragma once
#include <cstdint>
#include <cstring>

namespace adsq::cpu {

// Widths, in bytes, that the sliced kernel is compiled for; others are filled up with zero planes.
constexpr int kMaxSlicedWidth = 32;
constexpr int kMaxCountedWidth = 16;  // up to which counting distances by bit planes pays; measured
constexpr int kSlicedWidths[] = {2, 4, 6, 8, 12, 16, 24, kMaxSlicedWidth};

constexpr int sliced_width(int64_t width) {
  for (const int candidate : kSlicedWidths) {
    if (width <= candidate) return candidate;
  }
  return 0;
}

constexpr int num_groups(int sliced_width) { return 4 * sliced_width; }

// Binary digits of the running sum: 2^levels > num_groups.
constexpr int num_levels(int sliced_width) {
  int levels = 0;
  while ((1 << levels) <= num_groups(sliced_width)) ++levels;
  return levels;
}

// A record: one byte for each group, the place of the carry in its table; one for each level, the place of the start
// in the table of starts; the query's parity. Places count in eighths of a vector, so that a byte is enough and an
// address needs no shift.
constexpr int kPlace = 8;
constexpr int sliced_record_size(int sliced_width) {
  return (num_groups(sliced_width) + num_levels(sliced_width) + 1 + 7) & ~7;
}

// Entries of the table of starts.
enum Start { kZeros = 0, kOnes = 1, kParity = 2, kNotParity = 3 };

// Writes which starts make the sum overflow exactly at distances above `threshold`, 0 <= threshold <= K. With t =
// threshold / 2, rounded down, the sum starts at 2^levels - 1 - t. For an even threshold the parity is added too: a
// carry chain through the constant, which only chooses other starts. (A threshold of 0 would need a start of 2^levels
// where the parity is set: the kernel masks those lanes itself.)
inline void set_threshold(uint8_t* record, int sliced_width, int threshold) {
  const int groups = num_groups(sliced_width), levels = num_levels(sliced_width);
  const int constant = (1 << levels) - 1 - threshold / 2;
  const int odd = record[groups + levels];
  bool carrying = threshold % 2 == 0;
  for (int level = 0; level < levels; ++level) {
    const bool bit = (constant >> level) & 1;
    int start = bit ? kOnes : kZeros;
    if (carrying) {
      start = (bit != (odd != 0)) ? kNotParity : kParity;
      carrying = bit;
    }
    record[groups + level] = static_cast<uint8_t>(start * kPlace);
  }
}

// Writes the record of a query of 8 * sliced_width bits. Set the threshold afterwards.
inline void make_record(const uint64_t* words, int sliced_width, uint8_t* record) {
  uint8_t bits[8 * kMaxSlicedWidth + 8];
  int count = 8 * sliced_width;
  for (int b = 0; b < sliced_width; ++b) {
    // Eight copies of a byte, of each its own bit, moved to the lowest place.
    const uint64_t copies = (words[b / 8] >> (8 * (b % 8)) & 0xFF) * 0x0101010101010101;
    const uint64_t own = ((copies & 0x8040201008040201) + 0x7F7F7F7F7F7F7F7F) >> 7 & 0x0101010101010101;
    std::memcpy(bits + 8 * b, &own, sizeof(own));
  }
  uint8_t* place = record;
  while (count > 1) {
    int next = 0, j = 0;
    for (; j + 3 <= count; j += 3) {
      *place++ = static_cast<uint8_t>((bits[j] | bits[j + 1] << 1 | bits[j + 2] << 2) * kPlace);
      bits[next++] = bits[j] ^ bits[j + 1] ^ bits[j + 2];
    }
    if (count == 2) {
      *place++ = static_cast<uint8_t>((bits[0] | bits[1] << 1) * kPlace);
      bits[next++] = bits[0] ^ bits[1];
    } else {
      for (; j < count; ++j) bits[next++] = bits[j];
    }
    count = next;
  }
  record[num_groups(sliced_width) + num_levels(sliced_width)] = bits[0];
}

}  // namespace adsq::cpu
