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
#include "cuda/hamming_rank_scan.cuh"

namespace adsq::cuda {

// Dynamic shared memory: rank_words for each warp.
template <int kWords, bool kWide, bool kRelevance>
__global__ void __launch_bounds__(32 * kRankWarps, kRankBlocks<kWords, kRelevance>)
    count_kernel(const Ranking ranking) {
  constexpr int kCounters = kRelevance ? 2 : 1;
  ADSQ_DYNAMIC_SHARED(shared, uint32_t);
  const int lane = threadIdx.x % 32, columns = ranking.num_columns();
  uint32_t* counts = shared + threadIdx.x / 32 * rank_words(ranking, kCounters, kWide);
  uint32_t* relevant_counts = counts + columns;
  for_rank_items(ranking, [&](const RankItem& item) {
    for (int c = lane; c < kCounters * columns; c += 32) counts[c] = 0;
    const auto count = [&](uint32_t, const auto& distances, unsigned relevant, bool) {
#pragma unroll
      for (int g = 0; g < kGroups<kWords, kWide>; ++g) {
        if (distances[g] > ranking.limit) continue;
        atomicAdd(counts + distances[g], 1u);
        if (kRelevance && (relevant >> g & 1)) atomicAdd(relevant_counts + distances[g], 1u);
      }
    };
    scan_item<kWords, kWide, kRelevance>(ranking, item, counts + counter_words(ranking, kCounters), count);
    __syncwarp();
    const int64_t row = item.table_row() * columns;
#pragma unroll 2
    for (int c = lane; c < columns; c += 32) ranking.table[row + c] = counts[c];
#pragma unroll 2
    for (int c = lane; kRelevance && c < columns; c += 32) ranking.relevant_table[row + c] = relevant_counts[c];
    __syncwarp();  // relevant counts are read by other lanes than set them to zero
  });
}

// Where rows have more than kPartSplits splits: replaces each count by the sum of those before it in its part, and
// writes the sum of each part. A thread a part and column, grid-stride.
template <bool kRelevance>
__global__ void __launch_bounds__(32 * kRankWarps) parts_kernel(const Ranking ranking) {
  constexpr int kAtOnce = 8;
  const int64_t columns = ranking.num_columns();
  const int rows = ranking.rows();
  if (rows == 0) return;
  const int splits = ranking.splits(rows), parts = num_parts(splits);
  if (splits <= kPartSplits) return;
  const int64_t end = rows * parts * columns, step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < end; i += step) {
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
  const int rows = ranking.rows();
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
