#include "cpu/hamming_pass.h"

#include <algorithm>
#include <cstring>

#include "cpu/hamming_sliced.h"

namespace adsq::cpu {
namespace {

constexpr int64_t kCacheBytes = 32768;
constexpr int64_t kPartCodes = 4096;  // codes that a thread takes at least, where the database is split
constexpr int64_t kPartQueries = 32;  // the same for queries, where the database stays in the cache of each thread
constexpr int64_t kManyQueries = 256, kOwnCacheBytes = 1 << 20;  // and where it does not
constexpr int64_t kAheadBytes = 8192;  // where memory is the bound, fetched ahead of what is compared
constexpr int64_t kBoundary = 512;     // parts begin on whole sliced blocks
constexpr int64_t kInPlaceQueries = 2;

// Moves selections whose search is over behind the others, with their records, and returns how many are left.
int64_t drop_ended(Selection* selections, int64_t count, uint8_t* records, int64_t record_size) {
  for (int64_t q = 0; q < count;) {
    if (selections[q].threshold >= 0) {
      ++q;
      continue;
    }
    --count;
    std::swap(selections[q], selections[count]);
    if (records != nullptr) {
      std::swap_ranges(records + q * record_size, records + (q + 1) * record_size, records + count * record_size);
    }
  }
  return count;
}

void scan_part_sliced(const ScanKernels& kernels, const Codes& database, int64_t first, int64_t last,
                      Queries& queries) {
  const int width = sliced_width(database.width);
  const int64_t record_size = sliced_record_size(width);
  std::vector<uint8_t> records(static_cast<size_t>(queries.count * record_size));
  for (int64_t q = 0; q < queries.count; ++q) {
    const Selection& selection = queries.selections[q];
    uint8_t* record = records.data() + q * record_size;
    make_record(queries.words + static_cast<int64_t>(selection.query) * queries.num_words, width, record);
    set_threshold(record, width, selection.threshold);
  }
  const auto scratch = aligned_array<char>(kernels.sliced_scratch_size(width, queries.count));
  BlockReader reader(kernels, database, first, last, kernels.lanes);
  for (Block block; queries.count > 0 && reader.next(block);) {
    if (kernels.scan_sliced(block, queries, width, records.data(), scratch.get())) {
      queries.count = drop_ended(queries.selections, queries.count, records.data(), record_size);
    }
  }
}

// Clears the bits from codes.num_bits on in words that were spread from rows.
void clear_unused(const Codes& codes, uint64_t* words, int64_t count, int64_t stride) {
  if (codes.num_bits % 8 == 0) return;
  const uint64_t used = ~uint64_t{0} >> (64 - codes.num_bits % 64);
  uint64_t* last = words + (codes.num_words() - 1) * stride;
  for (int64_t i = 0; i < count; ++i) last[i] &= used;
}

}  // namespace

const ScanKernels& scan_kernels() {
#if defined(__x86_64__)
  switch (active_simd()) {
    case Simd::kAvx512: return avx512::kScanKernels;
    case Simd::kAvx512bw: return avx512bw::kScanKernels;
    case Simd::kAvx2: return avx2::kScanKernels;
    case Simd::kGeneric: break;
  }
#endif
  return generic::kScanKernels;
}

BlockReader::BlockReader(const ScanKernels& kernels, const Codes& codes, int64_t first, int64_t last,
                         int64_t block_size)
    : kernels_(kernels),
      codes_(codes),
      next_(first),
      last_(last),
      block_size_(block_size),
      words_(aligned_array<uint64_t>(static_cast<size_t>(codes.num_words() * block_size))) {
  // A sliced block is read to its end, also where it is not full.
  std::memset(words_.get(), 0, sizeof(uint64_t) * static_cast<size_t>(codes.num_words() * block_size));
}

bool BlockReader::next(Block& block) {
  block = {words_.get(), block_size_, 0, next_, nullptr, nullptr, 0};
  if (codes_.mask != nullptr) {
    gather(block);
    return block.count > 0;
  }
  block.count = std::min(block_size_, last_ - next_);
  if (block.count <= 0) return false;
  const uint8_t* rows = codes_.rows + next_ * codes_.width;
  if (codes_.width == 8 && codes_.num_bits % 8 == 0 && codes_.are_words() && block.count == block_size_) {
    block.words = reinterpret_cast<const uint64_t*>(rows);
  } else {
    widen(rows, block);
  }
  next_ += block.count;
  block.next = codes_.rows + next_ * codes_.width;
  block.next_bytes = std::min(block_size_, last_ - next_) * codes_.width;
  return true;
}

// Fills the block with codes that the mask allows, so that no lane is wasted on others.
void BlockReader::gather(Block& block) {
  positions_.clear();
  rows_.resize(static_cast<size_t>(block_size_ * codes_.width));
  const auto size = static_cast<size_t>(codes_.width);
  while (next_ < last_ && static_cast<int64_t>(positions_.size()) < block_size_) {
    uint64_t eight;
    if (next_ + 8 <= last_ && (std::memcpy(&eight, codes_.mask + next_, 8), eight == 0)) {
      next_ += 8;
      continue;
    }
    if (codes_.mask[next_]) {
      std::memcpy(rows_.data() + positions_.size() * size, codes_.rows + next_ * codes_.width, size);
      positions_.push_back(next_);
    }
    ++next_;
  }
  block.count = static_cast<int64_t>(positions_.size());
  block.positions = positions_.data();
  widen(rows_.data(), block);
}

void BlockReader::widen(const uint8_t* rows, const Block& block) {
  kernels_.widen(rows, codes_.width, block.count, words_.get(), block_size_);
  clear_unused(codes_, words_.get(), block.count, block_size_);
}

Aligned<uint64_t> query_words(const ScanKernels& kernels, const Codes& queries) {
  const int num_words = queries.num_words();
  auto words = aligned_array<uint64_t>(static_cast<size_t>(queries.count * num_words));
  for (int64_t q = 0; q < queries.count; ++q) {
    kernels.widen(queries.rows + q * queries.width, queries.width, 1, words.get() + q * num_words, 1);
    clear_unused(queries, words.get() + q * num_words, 1, 1);
  }
  return words;
}

int64_t direct_block_size(int num_words) { return std::max<int64_t>(64, kCacheBytes / (8 * num_words) / 64 * 64); }

int64_t sliced_queries(const ScanKernels& kernels, int64_t width) {
  if (width > kMaxSlicedWidth) return INT64_MAX;
  return kernels.sliced_queries[width < 8 ? 0 : width <= 16 ? 1 : 2];
}

void scan_part(const ScanKernels& kernels, const Codes& database, int64_t first, int64_t last, Queries queries) {
  queries.count = drop_ended(queries.selections, queries.count, nullptr, 0);
  if (first >= last || queries.count == 0) return;
  if (queries.count >= sliced_queries(kernels, database.width)) {
    return scan_part_sliced(kernels, database, first, last, queries);
  }
  const int num_words = database.num_words();
  const int64_t block_size = direct_block_size(num_words);
  // Rows that are not words cost shuffles for each query, so that for several queries it pays to spread them once.
  if (database.mask == nullptr && (database.width == 8 || queries.count <= kInPlaceQueries)) {
    const int64_t ahead = (last - first) * database.width > kOwnCacheBytes ? kAheadBytes : 0;
    const bool near = fetches_into_first_cache();
    for (int64_t i = first; i < last && queries.count > 0; i += block_size) {
      const Rows block{database.rows + i * database.width, std::min(block_size, last - i), i, ahead, near};
      if (kernels.scan_rows(&block, 1, database.width, queries)) {
        queries.count = drop_ended(queries.selections, queries.count, nullptr, 0);
      }
    }
    return;
  }
  BlockReader reader(kernels, database, first, last, block_size);
  for (Block block; queries.count > 0 && reader.next(block);) {
    if (kernels.scan_direct(block, queries)) {
      queries.count = drop_ended(queries.selections, queries.count, nullptr, 0);
    }
  }
}

Split split_work(const Codes& database, int64_t num_queries, int64_t threads, int64_t max_codes) {
  const int64_t work = database.count * std::max<int64_t>(1, num_queries) * database.num_words();
  threads = std::min(threads, 1 + work / kSmallScan);
  // Parts of the queries cost reading the database once more. Parts of the database cost more candidates: a query has
  // as many in each of them, and its threshold falls as slowly as if there were few codes.
  const int64_t few = database.count * database.width <= kOwnCacheBytes ? kPartQueries : kManyQueries;
  int64_t queries = std::max<int64_t>(1, std::min(threads, num_queries / few));
  while (threads % queries != 0) --queries;
  const int64_t codes = std::max<int64_t>(1, std::min({threads / queries, database.count / kPartCodes, max_codes}));
  return {codes, std::max(queries, std::min(threads / codes, num_queries / kPartQueries))};
}

int64_t part_start(int64_t count, int64_t part, int64_t parts) {
  if (part == parts) return count;
  return count / kBoundary * part / parts * kBoundary;
}

}  // namespace adsq::cpu
