// Where codes are in a ranking, from bit planes: for each distance, one bit a code tells which codes of a block are at
// it, so that counting these bits does for 64 codes what else is done for each. Written once for every instruction set,
// and what hamming_planes.h defines of it is enough.
//
// In an unnamed namespace, for the reason given in hamming_direct.h.
#pragma once
#include "cpu/hamming_planes.h"

namespace adsq::cpu {
namespace {

template <class Planes>
struct Places : Sliced<Planes> {
  using Plane = typename Planes::Plane;
  using Base = Sliced<Planes>;
  using Base::kPlaneWords;

  // What `slice` leaves for a block, and room that `places` uses.
  template <int kWidth>
  struct Scratch {
    static constexpr int kDistances = 8 * kWidth + kTogether;
    static constexpr size_t kPlanes = 64 * ((kWidth + 7) / 8) + 8 * num_groups(kWidth) + 4 + kDistances;
    Plane* planes;
    typename Base::Tables tables;
    Plane* at;         // [distance]: the codes at it
    uint32_t* before;  // [distance / kTogether][word][distance % kTogether]: how many codes at it come before the word
    explicit Scratch(void* memory)
        : planes(static_cast<Plane*>(memory)),
          tables{planes + kPlanes - kDistances - 4 - 8 * num_groups(kWidth), planes + kPlanes - kDistances - 4},
          at(planes + kPlanes - kDistances),
          before(reinterpret_cast<uint32_t*>(planes + kPlanes)) {}
    static constexpr size_t kSize = kPlanes * sizeof(Plane) + kDistances * kPlaneWords * sizeof(uint32_t);
  };

  template <int kWidth>
  static void slice_width(const Block& block, void* memory) {
    const Scratch<kWidth> scratch(memory);
    Base::template slice<kWidth>(block, scratch.planes, scratch.tables);
  }

  template <int kWidth>
  static void places_width(const Block& block, const uint8_t* record, const uint64_t* query, const Chosen& chosen,
                           const Counts& counts, uint64_t* places, void* memory) {
    constexpr int kGroups = num_groups(kWidth), kLevels = num_levels(kWidth), kWords = (kWidth + 7) / 8;
    const Scratch<kWidth> scratch(memory);
    // The distance of all codes, digit by digit, and what is not set of each.
    Plane digits[kLevels + 1], without[kLevels + 1];
    const Plane ones = Planes::ones();
    for (int level = 1; level <= kLevels; ++level) digits[level] = Planes::exclusive_or(ones, ones);
    Base::template add_carries<kLevels, kGroups, 0, false>(scratch.tables.carries, record, digits + 1);
    digits[0] = Planes::load(scratch.tables.starts + (record[kGroups + kLevels] ? kNotParity : kParity));
    for (int level = 0; level <= kLevels; ++level) without[level] = Planes::exclusive_or(digits[level], ones);

    const Plane valid = Base::valid(block);
    for (int first = 0; first <= 8 * kWidth; first += kTogether) {
      Plane some = valid;
      for (int level = 3; level <= kLevels; ++level) {
        some = Planes::both(some, (first >> level & 1 ? digits : without)[level]);
      }
      if (!Planes::any(some)) continue;
      Plane* at = scratch.at + first;
      for (int d = 0; d < kTogether; ++d) {
        Plane one = Planes::both(some, (d & 1 ? digits : without)[0]);
        one = Planes::both(one, (d & 2 ? digits : without)[1]);
        Planes::store(at + d, Planes::both(one, (d & 4 ? digits : without)[2]));
      }
      Planes::add_counts(at, counts.all + first, scratch.before + first * kPlaneWords);
    }
    for (int64_t i = 0; i < chosen.count; ++i) {
      const int64_t code = chosen.codes[i], w = code / 64;
      const int64_t distance = one_distance(block.words + code, block.stride, query, kWords);
      const uint64_t up_to = word_of(scratch.at + distance, w) & ~uint64_t{0} >> (63 - code % 64);
      const int64_t group = distance / kTogether * kTogether;
      ++counts.chosen[distance];
      places[i] = static_cast<uint64_t>(distance) << kIndexBits |
                  static_cast<uint64_t>(scratch.before[(group * kPlaneWords) + w * kTogether + distance % kTogether]) +
                      static_cast<uint64_t>(count_bits(up_to));
    }
  }

  static size_t size(int64_t width) {
    return Base::template for_width<kMaxCountedWidth>(width, [](auto number) { return Scratch<number.kValue>::kSize; });
  }
  static void slice(const Block& block, int64_t width, void* scratch) {
    Base::template for_width<kMaxCountedWidth>(width, [&](auto number) { slice_width<number.kValue>(block, scratch); });
  }
  static void places(const Block& block, const uint8_t* record, const uint64_t* query, int64_t width,
                     const Chosen& chosen, const Counts& counts, uint64_t* places, void* scratch) {
    Base::template for_width<kMaxCountedWidth>(width, [&](auto number) {
      places_width<number.kValue>(block, record, query, chosen, counts, places, scratch);
    });
  }
};

// All kernels of an instruction set, with its measured limits (ScanKernels::sliced_queries).
template <class Planes, class Isa>
constexpr ScanKernels kernels_of(int narrow, int words, int wide) {
  return {{narrow, words, wide},     Sliced<Planes>::kLanes,  &Sliced<Planes>::scan,   &Sliced<Planes>::scratch_size,
          &Places<Planes>::slice,    &Places<Planes>::places, &Places<Planes>::size,   &Direct<Isa>::widen,
          &Direct<Isa>::scan_direct, &Direct<Isa>::scan_rows, &Direct<Isa>::distances, &Direct<Isa>::write,
          &Direct<Isa>::write};
}

}  // namespace
}  // namespace adsq::cpu
