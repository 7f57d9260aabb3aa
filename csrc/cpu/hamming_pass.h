// One pass over (a part of) the database for many queries: blocks are read, and each is compared with all queries.
#pragma once
#include <cstdint>
#include <vector>

#include "cpu/hamming_scan.h"
#include "cpu/memory.h"
#include "cpu/threads.h"

namespace adsq::cpu {

// Packed codes, [count, width] without gaps, and which of them may be found: those whose byte is not 0 (null: all). No
// bool, of which C++ expects 0 or 1 where torch takes any byte.
struct Codes {
  const uint8_t* rows;
  int64_t count;
  int64_t width;
  const uint8_t* mask = nullptr;
  int64_t num_bits = 0;  // bits of a code that are read; 0 for all, also those beyond the code's length

  int num_words() const { return static_cast<int>((width + 7) / 8); }
  // Whether the rows can be read as words where they lie.
  bool are_words() const { return width % 8 == 0 && reinterpret_cast<uintptr_t>(rows) % 8 == 0; }
};

// Queries that pass over the database together, at most: their selections should stay in the cache.
constexpr int64_t kQueriesAtATime = 2048;

// Yields the codes first..last-1 that the mask allows, in order, in blocks of up to `block_size`.
class BlockReader {
 public:
  BlockReader(const ScanKernels& kernels, const Codes& codes, int64_t first, int64_t last, int64_t block_size);
  bool next(Block& block);

 private:
  void gather(Block& block);
  void widen(const uint8_t* rows, const Block& block);

  const ScanKernels& kernels_;
  const Codes codes_;
  int64_t next_;
  const int64_t last_, block_size_;
  Aligned<uint64_t> words_;
  std::vector<int64_t> positions_;
  std::vector<uint8_t> rows_;
};

// Comparisons of words below which a second thread costs more than it brings.
constexpr int64_t kSmallScan = 1 << 17;

// Spreads all queries into words, [count][num_words].
Aligned<uint64_t> query_words(const ScanKernels& kernels, const Codes& queries);

// Codes in a block that stays in the L1 cache while all queries pass over it.
int64_t direct_block_size(int num_words);

// From how many queries on a pass goes by bit planes.
int64_t sliced_queries(const ScanKernels& kernels, int64_t width);

// Adds the codes first..last-1 to the selections, which are in any order afterwards.
void scan_part(const ScanKernels& kernels, const Codes& database, int64_t first, int64_t last, Queries queries);

// Into how many parts the database (at most `max_codes`) and the queries are split, so that `threads` have work and
// each part is worth it.
struct Split {
  int64_t codes;
  int64_t queries;
};
Split split_work(const Codes& database, int64_t num_queries, int64_t threads, int64_t max_codes = INT64_MAX);

// Boundary `part` of `parts` parts of `count` codes, on whole blocks.
int64_t part_start(int64_t count, int64_t part, int64_t parts);

}  // namespace adsq::cpu
