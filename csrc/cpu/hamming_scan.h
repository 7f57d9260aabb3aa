// What one pass over the database is made of: blocks of codes, selections of near codes, and the kernels that compare
// one with the other. The kernels exist once for each instruction set (hamming_scan_<simd>.cpp); all else is common.
#pragma once
#include <cstddef>
#include <cstdint>

#include "cpu/simd.h"

namespace adsq::cpu {

constexpr int kMaxBits = 4096;
constexpr int kMaxWords = kMaxBits / 64;
// A found code is one number, distance << kIndexBits | index, so that numbers order as (distance, index) does.
constexpr int kIndexBits = 48;
constexpr uint64_t kIndexMask = (uint64_t{1} << kIndexBits) - 1;

// The codes near one query, found so far, in ascending order of index. No heap: keys are appended, and when the room is
// used up, a count by distance tells which of them can be dropped and from which distance on none is wanted any more.
struct Selection {
  uint64_t* keys;
  int64_t count;
  int64_t capacity;
  int64_t limit;      // how many are wanted; 0 for all within the threshold
  int32_t threshold;  // codes at most this far are accepted; -1: the search of this query is over
  int32_t query;
};

// Makes room for another key where count == capacity: drops what is too far, or enlarges the list of a range search.
void make_room(Selection& selection);

// Codes as 64-bit words, word w of code i at words[w * stride + i]; unused bits of the last word are zero.
struct Block {
  const uint64_t* words;
  int64_t stride;
  int64_t count;
  int64_t first;                  // index of code 0
  const int64_t* positions;       // index of each code, ascending, or null: first + i
  const uint8_t* next = nullptr;  // what is read after this block, to be fetched into the cache meanwhile
  int64_t next_bytes = 0;

  int64_t index(int64_t i) const { return positions == nullptr ? first + i : positions[i]; }
};

// Codes as they lie in memory.
struct Rows {
  const uint8_t* codes;
  int64_t count;
  int64_t first;      // index of the first
  int64_t ahead = 0;  // how many bytes ahead codes are fetched into a cache; 0: not at all
  bool near = false;  // into the first one, else into the second
};

// Queries as words, [number][num_words], and what is found for those still searching.
struct Queries {
  const uint64_t* words;
  int num_words;
  Selection* selections;
  int64_t count;  // of selections
};

// Some codes of a block, by their places in it.
struct Chosen {
  const uint16_t* codes;
  int64_t count;
};

// How many codes one query has met at each distance, and how many chosen ones.
struct Counts {
  uint32_t *all, *chosen;
};

struct ScanKernels {
  // From how many queries on bit planes are faster than one distance after the other, for codes of up to 7, 16 and
  // kMaxSlicedWidth bytes. Measured.
  int sliced_queries[3];
  int lanes;  // codes in a block of `scan_sliced`, at most; such a block has room for all of them

  // Adds the codes of a block to the selections of all queries by bit planes (hamming_sliced.h). Codes have one of
  // kSlicedWidths; `records` holds sliced_record_size(width) bytes for each selection. Returns, here and below, whether
  // the search of a query is over.
  bool (*scan_sliced)(const Block& block, const Queries& queries, int64_t width, uint8_t* records, void* scratch);

  // Bytes of `scratch` above, to be aligned to 64.
  size_t (*sliced_scratch_size)(int64_t width, int64_t num_queries);

  // Makes ready for `places` with the codes of a sliced block, of up to kMaxCountedWidth bytes; `scratch` holds
  // places_scratch_size(width) bytes, aligned to 64.
  void (*slice)(const Block& block, int64_t width, void* scratch);

  // Adds the codes of a sliced block to the counts of one query, which have room for distances up to 8 times one of
  // kSlicedWidths + 7; and writes for each chosen code distance << kIndexBits | its place among all codes at this
  // distance, from 1.
  void (*places)(const Block& block, const uint8_t* record, const uint64_t* query, int64_t width, const Chosen& chosen,
                 const Counts& counts, uint64_t* places, void* scratch);
  size_t (*places_scratch_size)(int64_t width);

  // Spreads `count` rows of `width` bytes into a block's words.
  void (*widen)(const uint8_t* rows, int64_t width, int64_t count, uint64_t* words, int64_t stride);

  // Adds the codes of a block to the selections of all queries, one distance after the other.
  bool (*scan_direct)(const Block& block, const Queries& queries);

  // The same for rows as they lie in memory, one stretch of them after the other, without spreading them first.
  bool (*scan_rows)(const Rows* stretches, int64_t count, int64_t width, const Queries& queries);

  // Writes the distance of each code of a block to one query.
  void (*distances)(const Block& block, const uint64_t* query, int num_words, uint16_t* distances);

  // Copy numbers to a large result that is not read soon: past the caches, where the instruction set can. Other threads
  // see them after finish_writes().
  void (*write_indices)(const uint32_t* from, int64_t count, int64_t* to);
  void (*write_distances)(const uint16_t* from, int64_t count, int32_t* to);
};

// The kernels of `active_simd()`.
const ScanKernels& scan_kernels();

// One of these for each variant that the build has.
namespace generic {
extern const ScanKernels kScanKernels;
}
namespace avx2 {
extern const ScanKernels kScanKernels;
}
namespace avx512bw {
extern const ScanKernels kScanKernels;
}
namespace avx512 {
extern const ScanKernels kScanKernels;
}

}  // namespace adsq::cpu
