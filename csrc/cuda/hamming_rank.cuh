// The exact order of the database around each query, by (distance, index): a stable counting sort that many warps
// share. Nothing is sorted, no query x database matrix is held, the host waits for nothing. A warp takes a part of the
// database, a split, for one query:
//   count_kernel    how many codes lie at each distance: a row of the table for each query and split
//   offsets_kernel  replaces each count by the place of its first code in the query's order
//   place_kernel    scans again: the place of a code is that of the first at its distance in its split, plus the number
//                   of those before it in the scan. A visitor takes what is found.
// hamming_rank_launch.cuh runs the three.
#pragma once
#include <cstdint>

#include "cuda/hamming_codes.cuh"

namespace adsq::cuda {

constexpr int kRankWarps = 8;  // at most, of a block
constexpr int kMaxSplits = 256;
constexpr int64_t kGroup = 32;  // codes that a warp takes at a time, one a lane

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
  int64_t k;                          // places from k on need not be found
  int64_t *table, *relevant_table;    // [table_rows][limit + 1]
  int64_t *totals, *relevant_totals;  // [queries.count]: number of codes; totals may be nullptr
  int* cuts;                          // [queries.count]: the largest distance of the first k places

  __host__ __device__ int num_columns() const { return limit + 1; }
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

// What one warp does: codes first to last for a query, whole groups, of which the last can reach beyond the database.
struct RankItem {
  int64_t query, first, last;
  int split, splits;
  int64_t table_row;
};

// The words of counters that a warp needs; with the words of the query where it does not hold them in registers.
__host__ __device__ inline int64_t rank_counters(const Ranking& ranking, bool relevance) {
  return (ranking.num_columns() * (relevance ? 2 : 1) + 3) / 4 * 4;
}
__host__ __device__ inline int64_t rank_words(const Ranking& ranking, bool relevance, bool wide) {
  const int query = wide ? (ranking.queries.num_words() + kWideWords - 1) / kWideWords * kWideWords : 0;
  return rank_counters(ranking, relevance) + query;
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
                   static_cast<int>(split), splits, row * splits + split});
  }
}

// Calls `visit` with the index and distance of each code, in order of index, by all lanes at a time; kNoDistance stands
// for a code that is not there or not allowed. `shared` has room for the query's words where kWide is set; the lanes
// meet before `visit` is called.
template <int kWords, bool kWide, typename Visit>
__device__ __forceinline__ void scan_item(const Ranking& ranking, const RankItem& item, uint32_t* shared, Visit visit) {
  const Codes &queries = ranking.queries, &database = ranking.database;
  const int lane = threadIdx.x % 32, num_words = queries.num_words();
  uint32_t query[kWords];
  if constexpr (kWide) {
    const int end = (num_words + kWords - 1) / kWords * kWords;
    for (int w = lane; w < end; w += 32) load_words<1>(queries, item.query, w, shared + w);
  } else {
    load_words<kWords>(queries, item.query, 0, query);
  }
  const unsigned last_byte = __ldg(queries.data + (item.query + 1) * queries.width - 1);
  __syncwarp();
  for (int64_t start = item.first; start < item.last; start += kGroup) {
    const int64_t index = start + lane;
    int distance = kNoDistance;
    if (database.is_allowed(index)) {
      uint32_t words[kWords];
      distance = 0;
      if constexpr (kWide) {
        for (int w = 0; w < num_words; w += kWords) {
          load_words<kWords>(database, index, w, words);
          distance = add_distance<kWords>(distance, words, shared + w);
        }
      } else {
        load_words<kWords>(database, index, 0, words);
        distance = add_distance<kWords>(distance, words, query);
      }
      if (ranking.unread_bits != 0) {
        const unsigned byte = __ldg(database.data + (index + 1) * database.width - 1);
        distance -= __popc((byte ^ last_byte) & ranking.unread_bits);
      }
    }
    visit(index, distance);
  }
}

__device__ __forceinline__ bool is_relevant(const Ranking& ranking, int64_t query, int64_t index) {
  const Labels &wanted = ranking.query_labels, &given = ranking.database_labels;
  if (given.are_ids) return __ldg(given.words + index) == __ldg(wanted.words + query);
  for (int64_t w = 0; w < given.num_words; ++w) {
    if (__ldg(given.words + index * given.num_words + w) & __ldg(wanted.words + query * given.num_words + w))
      return true;
  }
  return false;
}

// Dynamic shared memory: rank_words for each warp.
template <int kWords, bool kWide, bool kRelevance>
__global__ void __launch_bounds__(32 * kRankWarps, 3) count_kernel(const Ranking ranking) {
  ADSQ_DYNAMIC_SHARED(shared, uint32_t);
  const int lane = threadIdx.x % 32, columns = ranking.num_columns();
  uint32_t* counts = shared + threadIdx.x / 32 * rank_words(ranking, kRelevance, kWide);
  uint32_t* relevant_counts = counts + columns;
  for_rank_items(ranking, [&](const RankItem& item) {
    for (int c = lane; c < (kRelevance ? 2 : 1) * columns; c += 32) counts[c] = 0;
    uint32_t* query = counts + rank_counters(ranking, kRelevance);
    scan_item<kWords, kWide>(ranking, item, query, [&](int64_t index, int distance) {
      if (distance > ranking.limit) return;
      atomicAdd(counts + distance, 1u);
      if (kRelevance && is_relevant(ranking, item.query, index)) atomicAdd(relevant_counts + distance, 1u);
    });
    __syncwarp();
    const int64_t row = item.table_row * columns;
    for (int c = lane; c < columns; c += 32) ranking.table[row + c] = counts[c];
    for (int c = lane; kRelevance && c < columns; c += 32) ranking.relevant_table[row + c] = relevant_counts[c];
    __syncwarp();  // relevant counts are read by other lanes than set them to zero
  });
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
    const int splits = ranking.splits(rows), columns = ranking.num_columns();
    const int64_t query = ranking.query_of(row), start = row * splits * columns;
    int below = 0, unused = 0;
    const int64_t total = sum_before(ranking.table + start, columns, splits, ranking.k, &below);
    if (threadIdx.x == 0) ranking.cuts[query] = below - 1;
    if (threadIdx.x == 0 && ranking.totals != nullptr) ranking.totals[query] = total;
    if constexpr (kRelevance) {
      const int64_t relevant = sum_before(ranking.relevant_table + start, columns, splits, 0, &unused);
      if (threadIdx.x == 0) ranking.relevant_totals[query] = relevant;
    }
  }
}

// Calls, for each code within the cut, visitor.take(state, item, place, distance, index, is relevant, number of
// relevant codes before it), and at the end, with all lanes, visitor.finish(state, item, ranking). Dynamic shared
// memory as count_kernel.
template <int kWords, bool kWide, typename Visitor>
__global__ void __launch_bounds__(32 * kRankWarps, 3) place_kernel(const Ranking ranking, const Visitor visitor) {
  constexpr bool kRelevance = Visitor::kRelevance;
  ADSQ_DYNAMIC_SHARED(shared, uint32_t);
  const int lane = threadIdx.x % 32, columns = ranking.num_columns();
  const unsigned lanes_before = (1u << lane) - 1;
  uint32_t* counts = shared + threadIdx.x / 32 * rank_words(ranking, kRelevance, kWide);
  uint32_t* relevant_counts = counts + columns;
  for_rank_items(ranking, [&](const RankItem& item) {
    const int cut = ranking.cuts[item.query];
    const int64_t row = item.table_row * columns;
    typename Visitor::State state{};
    for (int c = lane; c < (kRelevance ? 2 : 1) * columns; c += 32) counts[c] = 0;
    uint32_t* query = counts + rank_counters(ranking, kRelevance);
    scan_item<kWords, kWide>(ranking, item, query, [&](int64_t index, int distance) {
      const bool within = distance <= cut;
      if (!__any_sync(kAllLanes, within)) return;
      // The rest as one group: a GPU takes longer for many.
      const unsigned peers = __match_any_sync(kAllLanes, within ? distance : -1);
      const bool relevant = kRelevance && within && is_relevant(ranking, item.query, index);
      const unsigned relevant_peers = kRelevance ? peers & __ballot_sync(kAllLanes, relevant) : 0;
      const uint32_t count = within ? counts[distance] : 0;
      const uint32_t relevant_count = kRelevance && within ? relevant_counts[distance] : 0;
      __syncwarp();
      if (within && peers >> lane == 1) {  // the last of them
        counts[distance] = count + __popc(peers);
        if (kRelevance) relevant_counts[distance] = relevant_count + __popc(relevant_peers);
      }
      __syncwarp();
      if (!within) return;
      const int64_t place = ranking.table[row + distance] + count + __popc(peers & lanes_before);
      int64_t relevant_before = 0;
      if constexpr (kRelevance) {
        relevant_before =
            ranking.relevant_table[row + distance] + relevant_count + __popc(relevant_peers & lanes_before);
      }
      visitor.take(state, item, place, distance, index, relevant, relevant_before);
    });
    visitor.finish(state, item, ranking);
    __syncwarp();  // a next item begins anew
  });
}

// Writes neighbours to distances and indices: k of each query, filled up with kNoDistance and -1, or, where `offsets`
// is not nullptr, all from offsets[query] on. Where `ids` is not nullptr, ids[index] takes the place of the index.
struct PlaceNeighbours {
  static constexpr bool kRelevance = false;
  struct State {};
  const int64_t* offsets;
  int64_t k;
  const int64_t* ids;
  int32_t* distances;
  int64_t* indices;

  __device__ void take(State&, const RankItem& item, int64_t place, int distance, int64_t index, bool, int64_t) const {
    if (offsets == nullptr && place >= k) return;
    const int64_t at = (offsets == nullptr ? item.query * k : offsets[item.query]) + place;
    distances[at] = distance;
    indices[at] = ids == nullptr ? index : ids[index];
  }
  __device__ void finish(State&, const RankItem& item, const Ranking& ranking) const {
    if (offsets != nullptr) return;
    const int lane = threadIdx.x % 32;
    for (int64_t p = ranking.totals[item.query] + item.split * 32 + lane; p < k; p += item.splits * 32) {
      distances[item.query * k + p] = kNoDistance;
      indices[item.query * k + p] = -1;
    }
  }
};

}  // namespace adsq::cuda
