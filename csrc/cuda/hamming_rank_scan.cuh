// What the kernels of hamming_rank.cuh share: which codes and query a warp takes, the tables, and the scan of codes.
#pragma once
#include <cstdint>

#include "cuda/hamming_codes.cuh"

namespace adsq::cuda {

constexpr int kRankWarps = 8;     // at most, of a block
constexpr int kMaxSplits = 4096;  // of a row: a warp each fills a large GPU
constexpr int kPartSplits = 64;   // as many as offsets_kernel, a block a row, adds up itself
constexpr uint32_t kGroup = 32;   // codes that a warp takes at a time, one a lane

// Labels of items as words. Class ids: one word each, and items share a label where they are equal. Otherwise one bit a
// class, and items share a label where they have a bit in common.
struct Labels {
  const unsigned long long* words;
  int num_words;
  bool are_ids;
};

struct Ranking {
  Codes queries, database;
  Labels query_labels, database_labels;  // not read by kernels without relevance
  // Row r stands for query list[r]; nullptr: for query r. list_size, on the device, is the number of rows, or nullptr:
  // num_rows is, which otherwise is an upper bound.
  const int* list;
  const unsigned* list_size;
  int64_t num_rows;
  // Rows first_row to first_row + batch_rows are taken at a time. Each has table_rows / rows splits, 1 to max_splits;
  // counters of 32 bits need table_rows >= batch_rows * ceil(database.count / 2^31). table_rows is below 2^31.
  int64_t first_row, batch_rows, table_rows;
  int max_splits;
  int limit;                          // codes at larger distances are left out
  unsigned unread_bits;               // of the last byte of all codes; for kernels with relevance
  bool is_far;                        // places take more than 32 bits
  int64_t k;                          // places from k on need not be found
  int64_t *table, *relevant_table;    // [table_rows][limit + 1]
  int64_t *parts, *relevant_parts;    // [part_rows()][limit + 1]
  int64_t *totals, *relevant_totals;  // [queries.count]: number of codes; totals may be nullptr
  int* cuts;                          // [queries.count]: the largest distance of the first k places

  __host__ __device__ int num_columns() const { return limit + 1; }
  // At most 1 + splits / kPartSplits parts a row, and only for rows with more than kPartSplits splits.
  __host__ __device__ int64_t part_rows() const { return table_rows / (kPartSplits / 2); }
  __device__ int rows() const {
    const int64_t left = (list_size == nullptr ? num_rows : static_cast<int64_t>(*list_size)) - first_row;
    return static_cast<int>(left < 0 ? 0 : left < batch_rows ? left : batch_rows);
  }
  __device__ int splits(int rows) const { return max(1, min(static_cast<int>(table_rows) / rows, max_splits)); }
  __device__ int64_t query_of(int64_t row) const { return list == nullptr ? first_row + row : list[first_row + row]; }
};

// What offsets_kernel adds up of each row: [count][columns] from row * count * columns on.
struct RowSums {
  int count;
  int64_t *sums, *relevant_sums;
};
__device__ __forceinline__ int num_parts(int splits) { return (splits + kPartSplits - 1) / kPartSplits; }
__device__ __forceinline__ RowSums row_sums(const Ranking& ranking, int splits) {
  if (splits <= kPartSplits) return {splits, ranking.table, ranking.relevant_table};
  return {num_parts(splits), ranking.parts, ranking.relevant_parts};
}

// What one warp does: `length` codes from `first` on for a query.
struct RankItem {
  int64_t query, first;
  uint32_t length;
  int row, split, splits;

  __device__ int64_t table_row() const { return row * splits + split; }
  // The place, or the number of relevant codes before it, where the codes at a distance begin in a split of the row
  __device__ int64_t first_place(const int64_t* table, const int64_t* parts, int columns, int distance,
                                 int split) const {
    const int64_t place = table[static_cast<int64_t>(row * splits + split) * columns + distance];
    if (splits <= kPartSplits) return place;
    return place + parts[static_cast<int64_t>(row * num_parts(splits) + split / kPartSplits) * columns + distance];
  }
};

// The words of shared memory that a warp needs for so many counters for each distance, a multiple of four; and for the
// words of the query where it does not hold them in registers.
__host__ __device__ inline int64_t counter_words(const Ranking& ranking, int counters) {
  return (static_cast<int64_t>(ranking.num_columns()) * counters + 3) / 4 * 4;
}
__host__ __device__ inline int64_t rank_words(const Ranking& ranking, int counters, bool wide) {
  const int query = wide ? (ranking.queries.num_words() + kWideWords - 1) / kWideWords * kWideWords : 0;
  return counter_words(ranking, counters) + query;
}

// Calls `visit` for each item of the warp. Neighbouring warps take different queries of the same split, so that all but
// the first find its codes in the cache.
template <typename Visit>
__device__ __forceinline__ void for_rank_items(const Ranking& ranking, Visit visit) {
  const int rows = ranking.rows();
  if (rows == 0) return;
  const int splits = ranking.splits(rows), warps = static_cast<int>(blockDim.x) / 32, step = gridDim.x * warps;
  const int64_t count = ranking.database.count, groups = (count + kGroup - 1) / kGroup;
  // Groups of a split; the first ones have one more.
  const int least = static_cast<int>(groups / splits), longer = static_cast<int>(groups - int64_t{least} * splits);
  for (int item = blockIdx.x * warps + threadIdx.x / 32; item < rows * splits; item += step) {
    const int split = item / rows, row = item - split * rows;
    const int64_t first = (int64_t{least} * split + min(split, longer)) * kGroup;
    const int64_t end = first + (least + (split < longer ? 1 : 0)) * int64_t{kGroup};
    visit(RankItem{ranking.query_of(row), first, static_cast<uint32_t>(min(end, count) - min(first, count)), row, split,
                   splits});
  }
}

// Whether items with these rows of bits share a label; `wanted` is the first word of the query's.
__device__ __forceinline__ bool share_label(const Ranking& ranking, int64_t query, unsigned long long wanted,
                                            int64_t index) {
  const int num_words = ranking.database_labels.num_words;
  for (int w = 0; w < num_words; ++w) {
    if (w > 0) wanted = __ldg(ranking.query_labels.words + query * num_words + w);
    if (__ldg(ranking.database_labels.words + index * num_words + w) & wanted) return true;
  }
  return false;
}

// Blocks that a multiprocessor is to hold at least: as many as there are registers for without spilling.
template <int kWords, bool kRelevance>
constexpr int kRankBlocks = kRelevance || kWords == kWideWords ? 3 : 4;

// As many groups as a warp reads at a time, so that it waits for memory less often
template <int kWords, bool kWide>
constexpr int kGroups = kWide ? 1 : (kWords <= 2 ? 4 : 2);

// Visits the codes of an item in order, kGroups groups at a time, by all lanes: visit(start, distances, relevant, is
// last), where distances[g] and bit g of `relevant` are those of the code item.first + start + g * kGroup + lane.
// kNoDistance stands for a code that is not there or not allowed. `shared` has room for the query's words where kWide
// is set; the lanes meet before `visit` is called.
template <int kWords, bool kWide, bool kRelevance, typename Visit>
__device__ __forceinline__ void scan_item(const Ranking& ranking, const RankItem& item, uint32_t* shared, Visit visit) {
  constexpr int kCodes = kGroups<kWords, kWide>;
  const Codes &queries = ranking.queries, &database = ranking.database;
  const uint32_t lane = threadIdx.x % 32;
  const int num_words = queries.num_words();
  uint32_t query[kWords];
  if constexpr (kWide) {
    const int end = (num_words + kWords - 1) / kWords * kWords;
    for (int w = lane; w < end; w += 32) load_words<1>(queries, item.query, w, shared + w);
  } else {
    load_words<kWords>(queries, item.query, 0, query);
  }
  unsigned long long wanted = 0;
  if constexpr (kRelevance) {
    const Labels& labels = ranking.query_labels;
    if (labels.num_words > 0) wanted = __ldg(labels.words + item.query * labels.num_words);
  }
  __syncwarp();
  const uint32_t length = item.length;
  const uint8_t* const codes = database.data + item.first * database.width;
  for (uint32_t start = 0; start < length; start += kCodes * kGroup) {
    // What lies beyond the end is read as the last code: no branches.
    uint32_t at[kCodes];
    const uint8_t* from[kCodes];
    int distances[kCodes];
#pragma unroll
    for (int g = 0; g < kCodes; ++g) {
      at[g] = min(start + g * kGroup + lane, length - 1);
      from[g] = codes + static_cast<uint64_t>(at[g]) * static_cast<uint32_t>(database.width);
      distances[g] = 0;
    }
    if constexpr (kWide) {
      static_assert(kCodes == 1);
      for (int w = 0; w < num_words; w += kWords) {
        uint32_t words[kWords];
        const uint8_t* const next[] = {from[0] + 4 * w};
        read_words<kWords>(next, database.width - 4 * w, database.unit, words);
        distances[0] = add_distance<kWords>(distances[0], words, shared + w);
      }
    } else {
      uint32_t words[kCodes * kWords];
      read_words<kWords>(from, database.width, database.unit, words);
#pragma unroll
      for (int g = 0; g < kCodes; ++g) distances[g] = add_distance<kWords>(0, words + g * kWords, query);
    }
    if (kRelevance && ranking.unread_bits != 0) {
      const unsigned last_byte = __ldg(queries.data + (item.query + 1) * queries.width - 1);
#pragma unroll
      for (int g = 0; g < kCodes; ++g) {
        const unsigned byte = __ldg(from[g] + database.width - 1);
        distances[g] -= __popc((byte ^ last_byte) & ranking.unread_bits);
      }
    }
    unsigned relevant = 0;
    if constexpr (kRelevance) {
      if (ranking.database_labels.are_ids) {
        const unsigned long long* given = ranking.database_labels.words + item.first;
        unsigned long long ids[kCodes];
#pragma unroll
        for (int g = 0; g < kCodes; ++g) ids[g] = __ldg(given + at[g]);
#pragma unroll
        for (int g = 0; g < kCodes; ++g) relevant |= ids[g] == wanted ? 1u << g : 0;
      } else {
#pragma unroll 1
        for (int g = 0; g < kCodes; ++g) {
          const int64_t index = item.first + min(start + g * kGroup + lane, length - 1);
          relevant |= share_label(ranking, item.query, wanted, index) ? 1u << g : 0;
        }
      }
    }
    if (database.mask != nullptr) {
#pragma unroll
      for (int g = 0; g < kCodes; ++g) {
        if (!database.mask[item.first + at[g]]) distances[g] = kNoDistance;
      }
    }
#pragma unroll
    for (int g = 0; g < kCodes; ++g) {
      if (start + g * kGroup + lane >= length) distances[g] = kNoDistance;
    }
    visit(start, distances, relevant, length - start <= kCodes * kGroup);
  }
}

}  // namespace adsq::cuda
