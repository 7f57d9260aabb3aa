// The exact order of the database around each query, by (distance, index): a stable counting sort that many warps
// share. No query x database matrix is held, the host waits for nothing. A warp takes a part of the database, a split,
// for one query:
//   count_kernel    how many codes lie at each distance: a row of the table for each query and split
//   parts_kernel    where a query has many splits: sums of the counts of kPartSplits splits at a time
//   offsets_kernel  replaces each count, or each of those sums, by the place of its first code in the query's order
// Then the warps scan again: the place of a code is that of the first at its distance in its split, plus the number of
// those before it in the scan. hamming_place.cuh writes neighbours there, hamming_ranking.cuh adds up precisions.
// hamming_rank_launch.cuh runs the kernels.
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
  int64_t num_words;
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
  // counters of 32 bits need table_rows >= batch_rows * ceil(database.count / 2^31).
  int64_t first_row, batch_rows, table_rows;
  int max_splits;
  int limit;                          // codes at larger distances are left out
  unsigned unread_bits;               // of the last byte of all codes
  bool is_far;                        // places take more than 32 bits
  int64_t k;                          // places from k on need not be found
  int64_t *table, *relevant_table;    // [table_rows][limit + 1]
  int64_t *parts, *relevant_parts;    // [part_rows()][limit + 1]
  int64_t *totals, *relevant_totals;  // [queries.count]: number of codes; totals may be nullptr
  int* cuts;                          // [queries.count]: the largest distance of the first k places

  __host__ __device__ int num_columns() const { return limit + 1; }
  // At most 1 + splits / kPartSplits parts a row, and only for rows with more than kPartSplits splits.
  __host__ __device__ int64_t part_rows() const { return table_rows / (kPartSplits / 2); }
  __device__ int64_t rows() const {
    const int64_t left = (list_size == nullptr ? num_rows : static_cast<int64_t>(*list_size)) - first_row;
    return left < 0 ? 0 : left < batch_rows ? left : batch_rows;
  }
  __device__ int splits(int64_t rows) const {
    const int64_t fit = table_rows / rows;
    return static_cast<int>(fit < 1 ? 1 : fit < max_splits ? fit : max_splits);
  }
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

// What one warp does: codes first to last for a query, whole groups, of which the last can reach beyond the database.
struct RankItem {
  int64_t query, first, last;
  int split, splits;
  int64_t table_row, part_row;

  // The place, or the number of relevant codes before it, where the codes at a distance begin
  __device__ int64_t first_place(const int64_t* table, const int64_t* parts, int columns, int distance) const {
    const int64_t place = table[table_row * columns + distance];
    return splits <= kPartSplits ? place : place + parts[part_row * columns + distance];
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
  const int64_t rows = ranking.rows();
  if (rows == 0) return;
  const int splits = ranking.splits(rows), warps = static_cast<int>(blockDim.x) / 32;
  const int64_t groups = (ranking.database.count + kGroup - 1) / kGroup, step = static_cast<int64_t>(gridDim.x) * warps;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * warps + threadIdx.x / 32;
  for (int64_t item = first; item < rows * splits; item += step) {
    const int64_t split = item / rows, row = item - split * rows;
    visit(RankItem{ranking.query_of(row), groups * split / splits * kGroup, groups * (split + 1) / splits * kGroup,
                   static_cast<int>(split), splits, row * splits + split,
                   row * num_parts(splits) + split / kPartSplits});
  }
}

// Whether a code is relevant to a query whose first word of labels is `wanted`
__device__ __forceinline__ bool is_relevant(const Ranking& ranking, int64_t query, unsigned long long wanted,
                                            int64_t index) {
  const Labels& given = ranking.database_labels;
  if (given.are_ids) return __ldg(given.words + index) == wanted;
  for (int64_t w = 0; w < given.num_words; ++w) {
    if (w > 0) wanted = __ldg(ranking.query_labels.words + query * given.num_words + w);
    if (__ldg(given.words + index * given.num_words + w) & wanted) return true;
  }
  return false;
}

// As many groups as a warp reads at a time, so that it waits for memory less often
template <int kWords, bool kWide>
constexpr int kGroups = kWide         ? 1
                        : kWords <= 4 ? 4
                                      : 2;

// Visits the codes of an item in order, kGroups groups at a time, by all lanes: visit(start, distances, relevant, is
// last), where distances[g] and relevant[g] are those of the code item.first + start + g * kGroup + lane. kNoDistance
// stands for a code that is not there or not allowed. `shared` has room for the query's words where kWide is set; the
// lanes meet before `visit` is called.
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
  const unsigned last_byte = __ldg(queries.data + (item.query + 1) * queries.width - 1);
  unsigned long long wanted = 0;
  if constexpr (kRelevance) {
    const Labels& labels = ranking.query_labels;
    if (labels.num_words > 0) wanted = __ldg(labels.words + item.query * labels.num_words);
  }
  __syncwarp();
  const auto length = static_cast<uint32_t>(min(item.last, database.count) - item.first);
  const uint8_t* const codes = database.data + item.first * database.width;
  for (uint32_t start = 0; start < length; start += kCodes * kGroup) {
    // What lies beyond the end is read as the last code: no branches.
    uint32_t at[kCodes];
    const uint8_t* from[kCodes];
    int distances[kCodes];
    bool relevant[kCodes];
#pragma unroll
    for (int g = 0; g < kCodes; ++g) {
      at[g] = min(start + g * kGroup + lane, length - 1);
      from[g] = codes + static_cast<uint64_t>(at[g]) * static_cast<uint32_t>(database.width);
      distances[g] = 0;
      relevant[g] = false;
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
    if (ranking.unread_bits != 0) {
#pragma unroll
      for (int g = 0; g < kCodes; ++g) {
        const unsigned byte = __ldg(from[g] + database.width - 1);
        distances[g] -= __popc((byte ^ last_byte) & ranking.unread_bits);
      }
    }
    if constexpr (kRelevance) {
#pragma unroll
      for (int g = 0; g < kCodes; ++g) relevant[g] = is_relevant(ranking, item.query, wanted, item.first + at[g]);
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

// Dynamic shared memory: rank_words for each warp.
template <int kWords, bool kWide, bool kRelevance>
__global__ void __launch_bounds__(32 * kRankWarps, 4) count_kernel(const Ranking ranking) {
  constexpr int kCounters = kRelevance ? 2 : 1;
  ADSQ_DYNAMIC_SHARED(shared, uint32_t);
  const int lane = threadIdx.x % 32, columns = ranking.num_columns();
  uint32_t* counts = shared + threadIdx.x / 32 * rank_words(ranking, kCounters, kWide);
  uint32_t* relevant_counts = counts + columns;
  for_rank_items(ranking, [&](const RankItem& item) {
    for (int c = lane; c < kCounters * columns; c += 32) counts[c] = 0;
    uint32_t* query = counts + counter_words(ranking, kCounters);
    scan_item<kWords, kWide, kRelevance>(ranking, item, query,
                                         [&](uint32_t, const auto& distances, const auto& relevant, bool) {
#pragma unroll
                                           for (int g = 0; g < kGroups<kWords, kWide>; ++g) {
                                             if (distances[g] > ranking.limit) continue;
                                             atomicAdd(counts + distances[g], 1u);
                                             if (kRelevance && relevant[g])
                                               atomicAdd(relevant_counts + distances[g], 1u);
                                           }
                                         });
    __syncwarp();
    const int64_t row = item.table_row * columns;
    for (int c = lane; c < columns; c += 32) ranking.table[row + c] = counts[c];
    for (int c = lane; kRelevance && c < columns; c += 32) ranking.relevant_table[row + c] = relevant_counts[c];
    __syncwarp();  // relevant counts are read by other lanes than set them to zero
  });
}

// Where rows have more than kPartSplits splits: replaces each count by the sum of those before it in its part, and
// writes the sum of each part. A thread a part and column, grid-stride.
template <bool kRelevance>
__global__ void __launch_bounds__(32 * kRankWarps) parts_kernel(const Ranking ranking) {
  constexpr int kAtOnce = 8;
  const int64_t rows = ranking.rows(), columns = ranking.num_columns();
  if (rows == 0) return;
  const int splits = ranking.splits(rows), parts = num_parts(splits);
  if (splits <= kPartSplits) return;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < rows * parts * columns; i += step) {
    const int64_t part_row = i / columns, row = part_row / parts;
    const int first = static_cast<int>(part_row - row * parts) * kPartSplits, count = min(kPartSplits, splits - first);
    const int64_t start = (row * splits + first) * columns + i - part_row * columns;
    for (int t = 0; t < (kRelevance ? 2 : 1); ++t) {
      int64_t* counts = (t == 0 ? ranking.table : ranking.relevant_table) + start;
      int64_t before = 0;
      for (int s = 0; s < count; s += kAtOnce) {
        int64_t next[kAtOnce];
#pragma unroll
        for (int j = 0; j < kAtOnce; ++j) next[j] = s + j < count ? counts[(s + j) * columns] : 0;
#pragma unroll
        for (int j = 0; j < kAtOnce; ++j) {
          if (s + j < count) counts[(s + j) * columns] = before;
          before += next[j];
        }
      }
      (t == 0 ? ranking.parts : ranking.relevant_parts)[i] = before;
    }
  }
}

// Replaces counts [splits][columns] by the sums of all counts before them in order of (column, split), with all threads
// of the block, and returns the sum of all. *below becomes the number of columns whose sum is below k.
__device__ __forceinline__ int64_t sum_before(int64_t* counts, int64_t columns, int splits, int64_t k, int* below) {
  ADSQ_SHARED(parts, int64_t[kRankWarps][32]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int first = splits * warp / warps, last = splits * (warp + 1) / warps;
  int64_t before = 0;
  *below = 0;
  for (int64_t start = 0; start < columns; start += 32) {
    const int64_t column = start + lane;
    int64_t sum = 0;
    for (int s = first; s < last && column < columns; ++s) sum += counts[s * columns + column];
    parts[warp][lane] = sum;
    __syncthreads();
    int64_t all = 0, earlier = 0;
    for (int w = 0; w < warps; ++w) {
      if (w == warp) earlier = all;
      all += parts[w][lane];
    }
    int64_t through = all;  // this column
    for (int step = 1; step < 32; step *= 2) {
      const int64_t other = __shfl_up_sync(kAllLanes, through, step);
      if (lane >= step) through += other;
    }
    const int64_t first_place = before + through - all;
    *below += __popc(__ballot_sync(kAllLanes, column < columns && first_place < k));
    int64_t place = first_place + earlier;
    for (int s = first; s < last && column < columns; ++s) {
      const int64_t count = counts[s * columns + column];
      counts[s * columns + column] = place;
      place += count;
    }
    before += __shfl_sync(kAllLanes, through, 31);
    __syncthreads();  // before the parts are written again
  }
  return before;
}

// A block a row.
template <bool kRelevance>
__global__ void __launch_bounds__(32 * kRankWarps, 3) offsets_kernel(const Ranking ranking) {
  const int64_t rows = ranking.rows();
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const RowSums of = row_sums(ranking, ranking.splits(rows));
    const int columns = ranking.num_columns();
    const int64_t query = ranking.query_of(row), start = row * of.count * columns;
    int below = 0, unused = 0;
    const int64_t total = sum_before(of.sums + start, columns, of.count, ranking.k, &below);
    if (threadIdx.x == 0) ranking.cuts[query] = below - 1;
    if (threadIdx.x == 0 && ranking.totals != nullptr) ranking.totals[query] = total;
    if constexpr (kRelevance) {
      const int64_t relevant = sum_before(of.relevant_sums + start, columns, of.count, 0, &unused);
      if (threadIdx.x == 0) ranking.relevant_totals[query] = relevant;
    }
  }
}

// The place that a counter stands for that began with the low bits of `first`, which is read only where there are more.
template <typename First>
__device__ __forceinline__ int64_t full_place(const Ranking& ranking, uint32_t low, First first) {
  if (!ranking.is_far) return low;
  const int64_t begin = first();
  return begin + static_cast<uint32_t>(low - static_cast<uint32_t>(begin));
}

}  // namespace adsq::cuda
