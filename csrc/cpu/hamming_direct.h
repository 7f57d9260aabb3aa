// The kernels that compute one distance after the other, written once for every instruction set. Each
// hamming_scan_<simd>.cpp defines a type Isa for them:
//
//   Distances     a vector of kCodes distances, 64 bits each
//   broadcast, load_words, store; differing: how many bits differ; add; low: the smaller; pair_sums: of neighbouring
//   lanes of two vectors; within: which lanes are <= a limit, as bits; narrow: stores 16 bits of each lane of kGroup
//   vectors
//   repeated<kWords>: the words of a query again and again
//   RowReader     distances of kCodes rows of any width, as they lie in memory
//   append: writes the keys of the lanes that are set, given the index of lane 0, and anything beyond them, kCodes in
//   all; returns how many these are. Where kAppends says so.
//   widen         as in ScanKernels, for as many as suit it; it returns how many
//   stream        writes 64 bytes of indices or distances past the caches, to an address that is a multiple of 64.
//   Where kStreams says so.
//
// Everything lies in an unnamed namespace and calls no template of the standard library: a function that two files
// compile for different instruction sets must not be merged by the linker.
#pragma once
#include "cpu/hamming_distance.h"
#include "cpu/hamming_scan.h"

namespace adsq::cpu {
namespace {

// Appends a code if it is near enough; there is room for it if it is.
ADSQ_INLINE void append(Selection& selection, int64_t distance, int64_t index) {
  if (distance > selection.threshold) return;
  selection.keys[selection.count++] = static_cast<uint64_t>(distance) << kIndexBits | static_cast<uint64_t>(index);
}

ADSQ_INLINE void accept(Selection& selection, int64_t distance, int64_t index) {
  if (distance > selection.threshold) return;
  if (selection.count == selection.capacity) make_room(selection);
  append(selection, distance, index);
}

// Has what is read after a block fetched into the cache, a share of it for each query: memory takes only so many
// requests at a time.
class NextBlock {
 public:
  ADSQ_INLINE NextBlock(const Block& block, int64_t num_queries)
      : at_(block.next), end_(block.next + block.next_bytes), share_((block.next_bytes / num_queries + 63) / 64 * 64) {}
  ADSQ_INLINE void fetch_share() {
    for (const uint8_t* last = at_ + share_; at_ < last && at_ < end_; at_ += 64) __builtin_prefetch(at_, 0, 2);
  }

 private:
  const uint8_t *at_, *end_;
  int64_t share_;
};

// What an instruction set without better means offers.
struct PlainIsa {
  static constexpr bool kAppends = false, kStreams = false;
  static int64_t widen(const uint8_t*, int64_t, int64_t, uint64_t*, int64_t) { return 0; }
};

// Vectors of distances that are looked at together: one comparison decides for all of them that none is near.
constexpr int kGroup = 8;

template <class Isa>
struct Direct {
  using Distances = typename Isa::Distances;
  static constexpr int kCodes = Isa::kCodes;

  // Indices of codes in a row: positions[i], or first + i without positions.
  struct Indices {
    int64_t first;
    const int64_t* positions;
    ADSQ_INLINE int64_t at(int64_t i) const { return positions == nullptr ? first + i : positions[i]; }
  };

  // Adds those of the codes from i on that are near, of the lanes in `lanes`, and updates the threshold.
  static ADSQ_INLINE void accept_lanes(Selection& selection, Distances d, Distances& threshold, unsigned lanes,
                                       const Indices& indices, int64_t i) {
    unsigned near = Isa::within(d, threshold) & lanes;
    if (__builtin_expect(near == 0, 1) || selection.threshold < 0) return;
    if constexpr (Isa::kAppends) {
      if (indices.positions == nullptr && selection.count + kCodes <= selection.capacity) {
        selection.count += Isa::append(selection.keys + selection.count, d, near, indices.first + i);
        return;
      }
    }
    uint64_t values[kCodes];
    Isa::store(values, d);
    for (; near != 0; near &= near - 1) {
      const int lane = __builtin_ctz(near);
      accept(selection, static_cast<int64_t>(values[lane]), indices.at(i + lane));
    }
    threshold = Isa::broadcast(selection.threshold);
  }

  // Adds codes 0..count-1 to a selection. group(i, d) sets d to the distances of the codes from i on, vector(i) returns
  // those of kCodes of them, single(i) one distance.
  template <class Group, class Vector, class Single>
  static ADSQ_INLINE void scan(int64_t count, Selection& selection, const Indices& indices, Group group, Vector vector,
                               Single single) {
    constexpr unsigned kAllLanes = (1u << kCodes) - 1;
    if (selection.threshold < 0) return;
    Distances threshold = Isa::broadcast(selection.threshold);
    int64_t i = 0;
    for (; i + kGroup * kCodes <= count; i += kGroup * kCodes) {
      Distances d[kGroup];
      group(i, d);
      const Distances low = Isa::low(Isa::low(Isa::low(d[0], d[1]), Isa::low(d[2], d[3])),
                                     Isa::low(Isa::low(d[4], d[5]), Isa::low(d[6], d[7])));
      if (__builtin_expect(Isa::within(low, threshold) == 0, 1)) continue;
      // Computed again, so that those of other groups need not be stored
      for (int64_t j = i; j < i + kGroup * kCodes; j += kCodes) {
        accept_lanes(selection, vector(j), threshold, kAllLanes, indices, j);
      }
      if (selection.threshold < 0) return;
    }
    if constexpr (kCodes > 1) {
      if (count >= kCodes) {
        // The last vector begins among codes that were looked at, which its lanes leave out.
        for (int64_t done = i; done < count; done = i += kCodes) {
          if (i > count - kCodes) i = count - kCodes;
          accept_lanes(selection, vector(i), threshold, kAllLanes << (done - i) & kAllLanes, indices, i);
        }
        return;
      }
    }
    for (; i < count; ++i) accept(selection, single(i), indices.at(i));
  }

  template <int kVectors>
  static ADSQ_INLINE void group_distances(const Block& block, const uint64_t* query, int num_words, int64_t i,
                                          Distances* d) {
    for (int v = 0; v < kVectors; ++v) d[v] = Isa::broadcast(0);
    for (int w = 0; w < num_words; ++w) {
      const Distances bits = Isa::broadcast(static_cast<int64_t>(query[w]));
      const uint64_t* words = block.words + w * block.stride + i;
      for (int v = 0; v < kVectors; ++v)
        d[v] = Isa::add(d[v], Isa::differing(Isa::load_words(words + v * kCodes), bits));
    }
  }

  static bool scan_direct(const Block& block, const Queries& queries) {
    bool ended = false;
    NextBlock next(block, queries.count);
    for (int64_t q = 0; q < queries.count; ++q) {
      next.fetch_share();
      Selection& selection = queries.selections[q];
      const uint64_t* query = queries.words + static_cast<int64_t>(selection.query) * queries.num_words;
      scan(
          block.count, selection, Indices{block.first, block.positions},
          [&](int64_t i, Distances* d)
              __attribute__((always_inline)) { group_distances<kGroup>(block, query, queries.num_words, i, d); },
          [&](int64_t i) __attribute__((always_inline)) {
            Distances d;
            group_distances<1>(block, query, queries.num_words, i, &d);
            return d;
          },
          [&](int64_t i) { return one_distance(block.words + i, block.stride, query, queries.num_words); });
      ended |= selection.threshold < 0;
    }
    return ended;
  }

  static void distances(const Block& block, const uint64_t* query, int num_words, uint16_t* out) {
    int64_t i = 0;
    for (; i + kGroup * kCodes <= block.count; i += kGroup * kCodes) {
      Distances d[kGroup];
      group_distances<kGroup>(block, query, num_words, i, d);
      Isa::narrow(out + i, d);
    }
    for (; i < block.count; ++i) {
      out[i] = static_cast<uint16_t>(one_distance(block.words + i, block.stride, query, num_words));
    }
  }

  // Distances of kCodes codes of kWords words each, as they lie in memory: their words fill kWords vectors, and
  // neighbouring lanes are added up until one lane a code is left.
  template <int kVectors>
  static ADSQ_INLINE Distances words_distances(const uint8_t* rows, Distances query) {
    if constexpr (kVectors == 1) {
      return Isa::differing(Isa::load_words(rows), query);
    } else {
      return Isa::pair_sums(words_distances<kVectors / 2>(rows, query),
                            words_distances<kVectors / 2>(rows + 8 * kCodes * kVectors / 2, query));
    }
  }

  // Has rows fetched into a cache. What the processor fetches by itself ends with the page.
  static ADSQ_INLINE void fetch(const uint8_t* rows, int64_t bytes, bool near) {
    if (near) {
      for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(rows + b, 0, 3);
    } else {
      for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(rows + b, 0, 2);
    }
  }

  // vector_of(words of a query) returns what turns the address of kCodes rows into their distances.
  template <class VectorOf>
  static ADSQ_INLINE bool scan_rows_by(const Rows* stretches, int64_t number, int64_t width, const Queries& queries,
                                       VectorOf vector_of) {
    bool ended = false;
    for (int64_t q = 0; q < queries.count; ++q) {
      Selection& selection = queries.selections[q];
      const uint64_t* query = queries.words + static_cast<int64_t>(selection.query) * queries.num_words;
      const auto distances = vector_of(query);
      for (const Rows* stretch = stretches; stretch < stretches + number; ++stretch) {
        const uint8_t* rows = stretch->codes;
        // Who passes first fetches for all others.
        const int64_t ahead = q == 0 ? stretch->ahead : 0;
        const bool near = stretch->near;
        scan(
            stretch->count, selection, Indices{stretch->first, nullptr},
            [&](int64_t i, Distances* d) __attribute__((always_inline)) {
              const uint8_t* group = rows + i * width;
              if (ahead != 0) fetch(group + ahead, kGroup * kCodes * width, near);
              for (int v = 0; v < kGroup; ++v) d[v] = distances(group + v * kCodes * width);
            },
            [&](int64_t i) __attribute__((always_inline)) { return distances(rows + i * width); },
            [&](int64_t i) { return row_distance(rows + i * width, width, query); });
      }
      ended |= selection.threshold < 0;
    }
    return ended;
  }

  template <int kWords>
  static bool scan_rows_of(const Rows* stretches, int64_t number, const Queries& queries) {
    return scan_rows_by(stretches, number, 8 * kWords, queries, [](const uint64_t* query) {
      const Distances bits = Isa::template repeated<kWords>(query);
      return [bits](const uint8_t* codes)
                 __attribute__((always_inline)) { return words_distances<kWords>(codes, bits); };
    });
  }

  static bool scan_rows(const Rows* stretches, int64_t number, int64_t width, const Queries& queries) {
    if (width == 8) return scan_rows_of<1>(stretches, number, queries);
    if constexpr (kCodes > 1) {
      if (width == 16) return scan_rows_of<2>(stretches, number, queries);
      if (width == 32) return scan_rows_of<4>(stretches, number, queries);
    }
    const typename Isa::RowReader reader(width);
    alignas(64) uint64_t padded[kMaxWords];  // vectors may read beyond the last word
    return scan_rows_by(stretches, number, width, queries, [&](const uint64_t* query) {
      for (int w = 0; w < queries.num_words; ++w) padded[w] = query[w];
      for (int w = queries.num_words; w % 8 != 0; ++w) padded[w] = 0;
      return [&reader, &padded](const uint8_t* codes)
                 __attribute__((always_inline)) { return reader.distances(codes, padded); };
    });
  }

  template <class From, class To>
  static void write(const From* from, int64_t count, To* to) {
    int64_t i = 0;
    if constexpr (Isa::kStreams) {
      constexpr int64_t kLine = 64 / sizeof(To);
      for (; i < count && reinterpret_cast<uintptr_t>(to + i) % 64 != 0; ++i) to[i] = from[i];
      for (; i + kLine <= count; i += kLine) Isa::stream(from + i, to + i);
    }
    for (; i < count; ++i) to[i] = static_cast<To>(from[i]);
  }

  static void widen(const uint8_t* rows, int64_t width, int64_t count, uint64_t* words, int64_t stride) {
    const int64_t done = Isa::widen(rows, width, count, words, stride);
    const int64_t whole = width / 8, rest = width % 8;
    for (int64_t i = done; i < count; ++i) {
      const uint8_t* row = rows + i * width;
      for (int64_t w = 0; w < whole; ++w) __builtin_memcpy(words + w * stride + i, row + 8 * w, 8);
      if (rest > 0) words[whole * stride + i] = short_word(row + 8 * whole, rest);
    }
  }
};

}  // namespace
}  // namespace adsq::cpu
