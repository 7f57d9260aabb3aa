// Quality of a Hamming ranking: sums over the tables of hamming_rank.cuh, and the kernels around them.
#pragma once
#include "cuda/hamming_rank_launch.cuh"
#include "cuda/hamming_ranking.h"
#include "precision.h"

namespace adsq::cuda {

constexpr int kRankingThreads = 256;

// Bit c % 64 of word c / 64 of an item: whether it has class c. A thread a word, grid-stride.
template <typename T>
__global__ void __launch_bounds__(kRankingThreads)
    label_words_kernel(const T* labels, int64_t count, int64_t num_classes, unsigned long long* words) {
  const int64_t num_words = (num_classes + 63) / 64, step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count * num_words; i += step) {
    const int64_t row = i / num_words, first = (i - row * num_words) * 64;
    const T* from = labels + row * num_classes + first;
    const int length = num_classes - first < 64 ? static_cast<int>(num_classes - first) : 64;
    unsigned long long bits = 0;
    for (int c = 0; c < length; ++c) bits |= static_cast<unsigned long long>(is_above_zero(from[c])) << c;
    words[i] = bits;
  }
}

// Adds up the counts of all splits or parts: total and relevant [rows of the batch][columns]. A thread an entry,
// grid-stride.
__global__ void __launch_bounds__(kRankingThreads)
    histogram_kernel(const Ranking ranking, int64_t* total, int64_t* relevant) {
  const int64_t rows = ranking.rows(), columns = ranking.num_columns();
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < rows * columns; i += step) {
    const RowSums of = row_sums(ranking, ranking.splits(rows));
    const int64_t row = i / columns, first = row * of.count * columns + i - row * columns;
    int64_t sum = 0, relevant_sum = 0;
    for (int64_t s = 0; s < of.count; ++s) {
      sum += of.sums[first + s * columns];
      relevant_sum += of.relevant_sums[first + s * columns];
    }
    total[i] = sum;
    relevant[i] = relevant_sum;
  }
}

__device__ __forceinline__ double mean_precision(double sum, int64_t num_relevant) {
  return sum / static_cast<double>(num_relevant > 1 ? num_relevant : 1);
}

// From the histograms of the batch. A thread a query, grid-stride.
__global__ void __launch_bounds__(kRankingThreads)
    expected_kernel(const Ranking ranking, const int64_t* total, const int64_t* relevant, double* average_precision) {
  const int64_t rows = ranking.rows(), columns = ranking.num_columns();
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < rows; i += step) {
    const int64_t *all = total + i * columns, *good = relevant + i * columns, query = ranking.query_of(i);
    int64_t num_relevant = 0;
    for (int64_t d = 0; d < columns; ++d) num_relevant += good[d];
    average_precision[query] = mean_precision(expected_precision_sum(all, good, columns, ranking.k), num_relevant);
    ranking.relevant_totals[query] = num_relevant;
  }
}

__device__ __forceinline__ double sum_of_lanes(double sum) {
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
  return sum;
}

// Relevant codes whose precisions a warp has not added up yet: a division for few of its lanes takes as long as one for
// all.
struct Waiting {
  static constexpr uint32_t kRoom = 64;
  static constexpr int kWords = 3 * kRoom;  // of shared memory
  uint2* ranks;                             // [kRoom], used over and over: rank, and rank among the relevant codes
  uint32_t* distances;                      // [kRoom]
  uint32_t begin, end;                      // counted on and on
};

__host__ __device__ inline int64_t precision_words(const Ranking& ranking, bool wide) {
  return rank_words(ranking, 2, wide) + Waiting::kWords;
}

// Sums, for each row of the table, the precisions at the relevant places below k; always in the same order. Scans like
// place_kernel, but each code is ranked where it is found: nothing is written that would have to be sorted. Dynamic
// shared memory: precision_words for each warp.
template <int kWords, bool kWide>
__global__ void __launch_bounds__(32 * kRankWarps, kRankBlocks<kWords, true>)
    precision_kernel(const Ranking ranking, const int64_t k, double* sums) {
  ADSQ_DYNAMIC_SHARED(shared, uint32_t);
  const uint32_t lane = threadIdx.x % 32, lanes_before = (1u << lane) - 1;
  const int columns = ranking.num_columns();
  uint32_t* const memory = shared + threadIdx.x / 32 * precision_words(ranking, kWide);
  Waiting waiting{reinterpret_cast<uint2*>(memory), memory + 2 * Waiting::kRoom};
  // The low bits of the next place at each distance, and of the number of relevant codes before it
  auto* const next = reinterpret_cast<uint2*>(memory + Waiting::kWords);
  uint32_t* const query = memory + Waiting::kWords + counter_words(ranking, 2);
  for_rank_items(ranking, [&](const RankItem& item) {
    const int cut = ranking.cuts[item.query];
    const auto place = [&](int c) { return item.first_place(ranking.table, ranking.parts, columns, c, item.split); };
    const auto relevant_place = [&](int c) {
      return item.first_place(ranking.relevant_table, ranking.relevant_parts, columns, c, item.split);
    };
#pragma unroll 2
    for (int c = lane; c <= cut; c += 32) {
      next[c] = make_uint2(static_cast<uint32_t>(place(c)), static_cast<uint32_t>(relevant_place(c)));
    }
    double sum = 0;
    waiting.begin = waiting.end = 0;
    const auto add_waiting = [&] {  // up to 32
      __syncwarp();
      if (lane < waiting.end - waiting.begin) {
        const uint32_t at = (waiting.begin + lane) % Waiting::kRoom;
        const uint2 ranks = waiting.ranks[at];
        const int distance = static_cast<int>(waiting.distances[at]);
        const int64_t rank = full_place(ranking, ranks.x, [&] { return place(distance); });
        const int64_t relevant_rank = full_place(ranking, ranks.y, [&] { return relevant_place(distance); });
        if (rank < k) sum += static_cast<double>(relevant_rank + 1) / static_cast<double>(rank + 1);
      }
      waiting.begin += 32;
    };
    scan_item<kWords, kWide, true>(ranking, item, query, [&](uint32_t, const auto& distances, unsigned relevant, bool) {
#pragma unroll
      for (int g = 0; g < kGroups<kWords, kWide>; ++g) {
        const int distance = distances[g];
        const bool within = distance <= cut;
        if (!__any_sync(kAllLanes, within)) continue;
        // The rest as one group: a GPU takes longer for many.
        const unsigned peers = __match_any_sync(kAllLanes, within ? distance : -1);
        const bool is_relevant = within && (relevant >> g & 1);
        const unsigned relevant_lanes = __ballot_sync(kAllLanes, is_relevant), relevant_peers = peers & relevant_lanes;
        uint2 here = within ? next[distance] : make_uint2(0, 0);
        here.x += __popc(peers & lanes_before), here.y += __popc(relevant_peers & lanes_before);
        __syncwarp();
        if (within && peers >> lane == 1) {  // the last of them
          next[distance] = make_uint2(here.x + 1, here.y + is_relevant);
        }
        __syncwarp();
        if (is_relevant) {
          const uint32_t at = (waiting.end + __popc(relevant_lanes & lanes_before)) % Waiting::kRoom;
          waiting.ranks[at] = here;
          waiting.distances[at] = distance;
        }
        waiting.end += __popc(relevant_lanes);
        if (waiting.end - waiting.begin >= 32) add_waiting();
      }
    });
    add_waiting();
    sum = sum_of_lanes(sum);
    if (lane == 0) sums[item.table_row()] = sum;
    __syncwarp();  // a next item begins anew
  });
}

// Adds up the splits of each query, always in the same order. A warp a query.
__global__ void __launch_bounds__(kRankingThreads)
    average_kernel(const Ranking ranking, const double* sums, double* average_precision) {
  const int64_t rows = ranking.rows(), step = static_cast<int64_t>(gridDim.x) * blockDim.x / 32;
  const int lane = threadIdx.x % 32;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32; i < rows; i += step) {
    const int64_t splits = ranking.splits(rows), query = ranking.query_of(i);
    double sum = 0;
    for (int64_t s = lane; s < splits; s += 32) sum += sums[i * splits + s];
    sum = sum_of_lanes(sum);
    if (lane == 0) average_precision[query] = mean_precision(sum, ranking.relevant_totals[query]);
  }
}

template <typename Launcher, typename Kernel, typename... Arguments>
void run_ranking(Launcher& launcher, Kernel kernel, int64_t threads, Arguments... arguments) {
  launcher.run_looping(kernel, ceil_div(threads, kRankingThreads), kRankingThreads, 0, arguments...);
}

template <typename Launcher>
Labels label_words(Launcher& launcher, const LabelRows& labels, const Allocate& allocate) {
  if (labels.are_ids) return {static_cast<const unsigned long long*>(labels.data), 1, true};
  const int64_t num_words = ceil_div(labels.num_classes, 64);
  auto* words = static_cast<unsigned long long*>(allocate(8 * labels.count * num_words));
  dispatch_element(labels.element, [&](auto type) {
    run_ranking(launcher, label_words_kernel<decltype(type)>, labels.count * num_words,
                static_cast<const decltype(type)*>(labels.data), labels.count, labels.num_classes, words);
  });
  return {words, static_cast<int>(num_words), false};
}

// The two sides with their labels, and the tables.
template <typename Launcher>
Ranking make_relevance(Launcher& launcher, const PackedCodes& queries, const PackedCodes& database,
                       const LabelRows& query_labels, const LabelRows& database_labels, int limit,
                       const Allocate& allocate, const RankSizes& sizes) {
  Ranking ranking = make_ranking(codes_at(queries.data, queries.count, queries.width),
                                 codes_at(database.data, database.count, database.width));
  ranking.limit = limit;
  ranking.query_labels = label_words(launcher, query_labels, allocate);
  ranking.database_labels = label_words(launcher, database_labels, allocate);
  choose_table(ranking, 2, sizes);
  set_table(ranking, allocate(8 * table_words(ranking, 2)), 2);
  return ranking;
}

template <typename Launcher>
void run_histogram(Launcher& launcher, const Ranking& batch, int64_t* total, int64_t* relevant) {
  run_count<true>(launcher, batch);
  run_ranking(launcher, histogram_kernel, batch.batch_rows * batch.num_columns(), batch, total, relevant);
}

template <typename Launcher>
void hamming_relevance_histogram(Launcher& launcher, const PackedCodes& queries, const PackedCodes& database,
                                 const LabelRows& query_labels, const LabelRows& database_labels, int64_t num_bits,
                                 int64_t* total, int64_t* relevant, const Allocate& allocate,
                                 const RankSizes& sizes = {}) {
  Ranking ranking = make_relevance(launcher, queries, database, query_labels, database_labels,
                                   static_cast<int>(num_bits), allocate, sizes);
  ranking.unread_bits = 0xFF & (0xFF << (num_bits - 8 * (queries.width - 1)));
  for_batches(ranking, [&](const Ranking& batch) {
    const int64_t first = batch.first_row * batch.num_columns();
    run_histogram(launcher, batch, total + first, relevant + first);
  });
}

template <typename Launcher>
void hamming_average_precision(Launcher& launcher, const PackedCodes& queries, const PackedCodes& database,
                               const LabelRows& query_labels, const LabelRows& database_labels, int64_t k,
                               bool expected, double* average_precision, int64_t* num_relevant,
                               const Allocate& allocate, const RankSizes& sizes = {}) {
  Ranking ranking = make_relevance(launcher, queries, database, query_labels, database_labels,
                                   static_cast<int>(8 * database.width), allocate, sizes);
  ranking.k = k;
  ranking.totals = nullptr;
  ranking.relevant_totals = num_relevant;
  if (expected) {
    const int64_t entries = std::min(ranking.batch_rows, ranking.num_rows) * ranking.num_columns();
    auto* total = static_cast<int64_t*>(allocate(16 * entries));
    int64_t* relevant = total + entries;
    for_batches(ranking, [&](const Ranking& batch) {
      run_histogram(launcher, batch, total, relevant);
      run_ranking(launcher, expected_kernel, batch.batch_rows, batch, total, relevant, average_precision);
    });
    return;
  }
  auto* sums = static_cast<double*>(allocate(8 * ranking.table_rows));
  for_batches(ranking, [&](const Ranking& batch) {
    run_count<true>(launcher, batch);
    run_offsets<true>(launcher, batch);
    run_items(
        launcher, batch, [&](bool wide) { return precision_words(batch, wide); },
        [](auto words, auto wide) { return precision_kernel<decltype(words)::value, decltype(wide)::value>; }, k, sums);
    run_ranking(launcher, average_kernel, 32 * batch.batch_rows, batch, sums, average_precision);
  });
}

}  // namespace adsq::cuda
