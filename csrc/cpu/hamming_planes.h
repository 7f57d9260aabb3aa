// The bit-sliced kernel of hamming_sliced.h, written once for every instruction set. Each hamming_scan_<simd>.cpp
// defines a type Planes for it:
//
//   Plane         a vector of bits, one lane a code
//   load (and load_unaligned), store, ones, exclusive_or, exclusive_or3, majority; add: adds two planes to the
//   first one and returns the carry; both: a and b; without: a and not b;
//   any; words_in_use: writes the numbers, from a first one on, of the 64-bit words that are not 0, and anything behind
//   them, as many as there are words; returns how many are not 0; transpose: 64 planes from the words of all lanes'
//   codes; add_counts: of kTogether planes, adds how many bits are set in each to `counts`, and writes what these are
//   before each word, [word][plane]
//
// In an unnamed namespace, for the reason given in hamming_direct.h.
#pragma once
#include "cpu/hamming_direct.h"
#include "cpu/hamming_sliced.h"

namespace adsq::cpu {
namespace {

constexpr int kTogether = 8;  // distances whose codes are counted together

template <class Plane>
ADSQ_INLINE uint64_t word_of(const Plane* plane, int64_t w) {
  return load_word(reinterpret_cast<const char*>(plane) + 8 * w);
}

// `add_counts` of Planes, word by word, where an instruction set has nothing better.
template <class Plane>
ADSQ_INLINE void add_counts_of_words(const Plane* at, uint32_t* counts, uint32_t* before) {
  for (int d = 0; d < kTogether; ++d) {
    uint32_t count = counts[d];
    for (size_t w = 0; w < sizeof(Plane) / 8; ++w) {
      before[w * kTogether + static_cast<size_t>(d)] = count;
      count += static_cast<uint32_t>(count_bits(word_of(at + d, static_cast<int64_t>(w))));
    }
    counts[d] = count;
  }
}

template <class Planes>
struct Sliced {
  using Plane = typename Planes::Plane;
  static constexpr int kLanes = 8 * sizeof(Plane), kPlaneWords = kLanes / 64;

  struct Tables {
    Plane* carries;  // [groups][8]
    Plane* starts;   // [4]
  };

  static void add_table(Plane* table, Plane a, Plane b, Plane c) {
    const Plane ones = Planes::ones();
    const Plane not_a = Planes::exclusive_or(a, ones), not_b = Planes::exclusive_or(b, ones);
    const Plane entries[4] = {Planes::majority(a, b, c), Planes::majority(not_a, b, c), Planes::majority(a, not_b, c),
                              Planes::majority(not_a, not_b, c)};
    for (int e = 0; e < 4; ++e) {
      Planes::store(table + e, entries[e]);
      Planes::store(table + 7 - e, Planes::exclusive_or(entries[e], ones));  // all three bits the other way round
    }
  }

  static void build_tables(Plane* planes, int count, const Tables& tables) {
    Plane* table = tables.carries;
    while (count > 1) {
      int next = 0, j = 0;
      for (; j + 3 <= count; j += 3, table += 8) {
        const Plane a = Planes::load(planes + j), b = Planes::load(planes + j + 1), c = Planes::load(planes + j + 2);
        add_table(table, a, b, c);
        Planes::store(planes + next++, Planes::exclusive_or3(a, b, c));
      }
      if (count == 2) {
        const Plane a = Planes::load(planes), b = Planes::load(planes + 1);
        add_table(table, a, b, Planes::exclusive_or(a, a));
        Planes::store(planes + next++, Planes::exclusive_or(a, b));
      } else {
        for (; j < count; ++j) Planes::store(planes + next++, Planes::load(planes + j));
      }
      count = next;
    }
    const Plane parity = Planes::load(planes), ones = Planes::ones();
    Planes::store(tables.starts + kZeros, Planes::exclusive_or(ones, ones));
    Planes::store(tables.starts + kOnes, ones);
    Planes::store(tables.starts + kParity, parity);
    Planes::store(tables.starts + kNotParity, Planes::exclusive_or(parity, ones));
  }

  // Builds the tables of a block; `planes` has room for its bits.
  template <int kWidth>
  static ADSQ_INLINE void slice(const Block& block, Plane* planes, const Tables& tables) {
    for (int w = 0; w < (kWidth + 7) / 8; ++w) Planes::transpose(block.words + w * block.stride, planes + 64 * w);
    build_tables(planes, 8 * kWidth, tables);
  }

  // The lanes that hold a code.
  static ADSQ_INLINE Plane valid(const Block& block) {
    uint64_t lanes[kPlaneWords];
    for (int w = 0; w < kPlaneWords; ++w) {
      const int64_t used = block.count - 64 * w;
      lanes[w] = used >= 64 ? ~uint64_t{0} : used <= 0 ? 0 : (uint64_t{1} << used) - 1;
    }
    return Planes::load_unaligned(lanes);
  }

  static ADSQ_INLINE Plane entry(const Plane* table, uint8_t place) {
    return Planes::load(reinterpret_cast<const char*>(table) + size_t{place} * (sizeof(Plane) / kPlace));
  }

  // Adds the carries of kTables <= 2^kLevel groups from `first` on to the running sum, whose digits below kLevel are
  // sum[0..kLevel), and returns what overflows them: one plane of weight 2^kLevel. After the last call digits are not
  // needed any more.
  template <int kLevel, int kTables, int kFirst, bool kLast>
  static ADSQ_INLINE Plane add_carries(const Plane* carries, const uint8_t* record, Plane* sum) {
    if constexpr (kLevel == 0) {
      return entry(carries + 8 * kFirst, record[kFirst]);
    } else {
      constexpr int kHalf = 1 << (kLevel - 1);
      constexpr int kLeft = kTables < kHalf ? kTables : kHalf, kRight = kTables - kLeft;
      Plane& digit = sum[kLevel - 1];
      constexpr bool kLastLeft = kLast && kRight == 0;
      const Plane a = add_carries<kLevel - 1, kLeft, kFirst, kLastLeft>(carries, record, sum);
      if constexpr (kRight == 0) {
        const Plane carry = Planes::both(digit, a);
        if (!kLast) digit = Planes::exclusive_or(digit, a);
        return carry;
      } else {
        const Plane b = add_carries<kLevel - 1, kRight, kFirst + kLeft, kLast>(carries, record, sum);
        return kLast ? Planes::majority(digit, a, b) : Planes::add(digit, a, b);
      }
    }
  }

  static size_t scratch_size(int64_t width, int64_t num_queries) {
    const int sliced = sliced_width(width);
    const size_t planes = 64 * ((sliced + 7) / 8) + 8 * num_groups(sliced) + 4 + num_queries + 1;
    return planes * sizeof(Plane) + (kPlaneWords + 1) * (num_queries + 1) * sizeof(int32_t);
  }

  template <int kWidth>
  static bool scan_width(const Block& block, const Queries& queries, uint8_t* records, void* scratch) {
    constexpr int kWords = (kWidth + 7) / 8, kGroups = num_groups(kWidth), kLevels = num_levels(kWidth);
    constexpr int kRecord = sliced_record_size(kWidth);
    auto* planes = static_cast<Plane*>(scratch);
    const Tables tables{planes + 64 * kWords, planes + 64 * kWords + 8 * kGroups};
    Plane* near = tables.starts + 4;
    auto* which = reinterpret_cast<int32_t*>(near + queries.count + 1);
    auto* in_use = reinterpret_cast<uint32_t*>(which + queries.count + 1);

    slice<kWidth>(block, planes, tables);
    const Plane all = valid(block);

    // First the masks of near codes, without a branch; those that are not empty are looked at afterwards.
    int64_t found = 0;
    NextBlock next(block, queries.count);
    for (int64_t q = 0; q < queries.count; ++q) {
      next.fetch_share();
      const uint8_t* record = records + q * kRecord;
      Plane sum[kLevels];
      for (int level = 0; level < kLevels; ++level) sum[level] = entry(tables.starts, record[kGroups + level]);
      const Plane far = add_carries<kLevels, kGroups, 0, true>(tables.carries, record, sum);
      const Plane mask = Planes::without(all, far);
      Planes::store(near + found, mask);
      which[found] = static_cast<int32_t>(q);
      found += Planes::any(mask);
    }
    // Then the words of the masks that are not empty, without a branch too: how many there are cannot be foreseen.
    int64_t num_words = 0;
    for (int64_t f = 0; f < found; ++f) {
      Plane mask = Planes::load(near + f);
      const Selection& selection = queries.selections[which[f]];
      if (selection.threshold == 0) {
        const bool odd = records[which[f] * kRecord + kGroups + kLevels] != 0;
        mask = Planes::without(mask, Planes::load(tables.starts + (odd ? kNotParity : kParity)));
        Planes::store(near + f, mask);
      }
      num_words += Planes::words_in_use(mask, static_cast<uint32_t>(f * kPlaneWords), in_use + num_words);
    }
    bool ended = false;
    for (int64_t i = 0; i < num_words; ++i) {
      const int32_t number = which[in_use[i] / kPlaneWords];
      Selection& selection = queries.selections[number];
      const uint64_t* query = queries.words + static_cast<int64_t>(selection.query) * kWords;
      const int64_t first_lane = 64 * (in_use[i] % kPlaneWords);
      uint64_t rest = word_of(near, int64_t{in_use[i]});
      do {
        const int64_t lane = first_lane + __builtin_ctzll(rest);
        const int64_t distance = one_distance(block.words + lane, block.stride, query, kWords);
        if (__builtin_expect(selection.count == selection.capacity, 0) && distance <= selection.threshold) {
          make_room(selection);
          ended |= selection.threshold < 0;
          if (selection.threshold >= 0) set_threshold(records + number * kRecord, kWidth, selection.threshold);
        }
        append(selection, distance, block.index(lane));
        rest &= rest - 1;
      } while (rest != 0);
    }
    return ended;
  }

  static bool scan(const Block& block, const Queries& queries, int64_t width, uint8_t* records, void* scratch) {
    return for_width<kMaxSlicedWidth>(
        width, [&](auto number) { return scan_width<number.kValue>(block, queries, records, scratch); });
  }

  template <int kNumber>
  struct Number {
    static constexpr int kValue = kNumber;
  };
  // Calls call(Number<w>) for the width w of kSlicedWidths that holds `width` bytes, kMost at most.
  template <int kMost, class Call>
  static ADSQ_INLINE auto for_width(int64_t width, Call call) {
    switch (sliced_width(width)) {
      case 2: return call(Number<2>{});
      case 4: return call(Number<4>{});
      case 6: return call(Number<6>{});
      case 8: return call(Number<8>{});
      case 12: return call(Number<12>{});
      case 16: return call(Number<16>{});
      case 24: return call(Number<(kMost < 24 ? kMost : 24)>{});
      default: return call(Number<kMost>{});
    }
  }
};

// 64 planes from the words of kLanes codes, by swapping ever smaller blocks of bits, all groups of 64 codes side by
// side.
template <class Planes>
ADSQ_INLINE void transpose_by_swaps(const uint64_t* words, typename Planes::Plane* planes) {
  using Plane = typename Planes::Plane;
  constexpr int kGroups = sizeof(Plane) / 8;
  uint64_t block[64][kGroups];
  for (int j = 0; j < 64; ++j) {
    for (int g = 0; g < kGroups; ++g) block[j][g] = words[64 * g + j];
  }
  uint64_t mask = 0xFFFFFFFF;
  for (int size = 32; size != 0; size >>= 1, mask ^= mask << size) {
    for (int j = 0; j < 64; j = (j + size + 1) & ~size) {
      for (int g = 0; g < kGroups; ++g) {
        const uint64_t swap = ((block[j][g] >> size) ^ block[j + size][g]) & mask;
        block[j + size][g] ^= swap;
        block[j][g] ^= swap << size;
      }
    }
  }
  __builtin_memcpy(planes, block, sizeof(block));
}

}  // namespace
}  // namespace adsq::cpu
