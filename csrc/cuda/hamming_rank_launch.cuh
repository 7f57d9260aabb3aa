// Runs the kernels of hamming_rank.cuh and hamming_place.cuh. A Launcher is that of launch.cuh, or that of the tests.
// All sizes come from shapes, so that the launches can be captured in a CUDA graph.
//
//   Ranking ranking = make_ranking(queries, database);  // then what is wanted: limit, list, list_size ...
//   choose_table(ranking);
//   set_table(ranking, memory of table_words(ranking) words of 8 bytes);
//   rank_neighbours(launcher, ranking, PlaceNeighbours{nullptr, k, ids, distances, indices});
#pragma once
#include <algorithm>

#include "cuda/hamming_place.cuh"

namespace adsq::cuda {

constexpr int64_t kSharedBytes = 48 << 10;  // of a block, without asking for more

struct RankSizes {
  int64_t table_bytes = 64 << 20;   // at most; the sums of parts take up to a thirty-second of it more
  int64_t table_rows = 1 << 15;     // wanted: what keeps the warps of a large GPU busy a few times over
  int64_t codes_a_split = 256;      // at least: a split has costs of its own
  int64_t near_codes = UINT32_MAX;  // up to so many, all places fit 32 bits
};

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Splits that a row needs for its counters of 32 bits
inline int64_t min_splits(int64_t num_codes) { return std::max<int64_t>(1, ceil_div(num_codes, int64_t{1} << 31)); }

// All queries, all distances; no table.
inline Ranking make_ranking(const Codes& queries, const Codes& database) {
  Ranking ranking{};
  ranking.queries = queries;
  ranking.database = database;
  ranking.num_rows = queries.count;
  ranking.limit = database.num_distances() - 1;
  ranking.k = INT64_MAX;
  return ranking;
}

// Chooses the size of the table; `tables`: 1, or 2 with relevance.
inline void choose_table(Ranking& ranking, int tables = 1, const RankSizes& sizes = {}) {
  const int64_t least = min_splits(ranking.database.count);
  const int64_t splits = std::min<int64_t>(kMaxSplits, std::max(least, ranking.database.count / sizes.codes_a_split));
  const int64_t rows = std::min(std::max(ranking.num_rows * least, sizes.table_rows), ranking.num_rows * splits);
  const int64_t fit = sizes.table_bytes / 8 / (tables * ranking.num_columns());
  ranking.is_far = ranking.database.count > sizes.near_codes;
  ranking.max_splits = static_cast<int>(splits);
  ranking.table_rows = std::max(least, std::min(rows, fit));
  ranking.batch_rows = ranking.table_rows / least;
}

// The memory that the table takes with what goes with it, in words of 8 bytes
inline int64_t table_words(const Ranking& ranking, int tables = 1) {
  return tables * (ranking.table_rows + ranking.part_rows()) * ranking.num_columns() + 2 * ranking.queries.count;
}

inline void set_table(Ranking& ranking, void* memory, int tables = 1) {
  const int64_t size = ranking.table_rows * ranking.num_columns(), parts = ranking.part_rows() * ranking.num_columns();
  ranking.table = static_cast<int64_t*>(memory);
  ranking.relevant_table = ranking.table + (tables - 1) * size;
  ranking.parts = ranking.table + tables * size;
  ranking.relevant_parts = ranking.parts + (tables - 1) * parts;
  ranking.totals = ranking.parts + tables * parts;
  ranking.cuts = reinterpret_cast<int*>(ranking.totals + ranking.queries.count);
}

// Calls run(ranking) for each batch of rows.
template <typename Run>
void for_batches(Ranking ranking, Run run) {
  for (; ranking.first_row < ranking.num_rows; ranking.first_row += ranking.batch_rows) run(ranking);
}

// Runs the kernel that `pick` returns for the number of words of a code, with as many warps as there are items, each
// with words(is wide) words of shared memory.
template <typename Launcher, typename Words, typename Pick, typename... Arguments>
void run_items(Launcher& launcher, const Ranking& ranking, Words words, Pick pick, Arguments... arguments) {
  dispatch_words(ranking.queries.num_words(), [&](auto num_words, auto wide) {
    const int64_t bytes = 4 * words(wide.value);
    const int64_t warps = std::max<int64_t>(1, std::min<int64_t>(kRankWarps, kSharedBytes / bytes));
    launcher.run_looping(pick(num_words, wide), ceil_div(ranking.table_rows, warps), static_cast<int>(32 * warps),
                         static_cast<size_t>(warps * bytes), ranking, arguments...);
  });
}

// Counts, and sums up the splits of each part.
template <bool kRelevance, typename Launcher>
void run_count(Launcher& launcher, const Ranking& ranking) {
  run_items(
      launcher, ranking, [&](bool wide) { return rank_words(ranking, kRelevance ? 2 : 1, wide); },
      [](auto words, auto wide) { return count_kernel<decltype(words)::value, decltype(wide)::value, kRelevance>; });
  if (ranking.max_splits <= kPartSplits) return;
  launcher.run_looping(parts_kernel<kRelevance>, ceil_div(ranking.part_rows() * ranking.num_columns(), 32 * kRankWarps),
                       32 * kRankWarps, 0, ranking);
}

template <bool kRelevance, typename Launcher>
void run_offsets(Launcher& launcher, const Ranking& ranking) {
  launcher.run_looping(offsets_kernel<kRelevance>, std::min(ranking.batch_rows, ranking.num_rows), 32 * kRankWarps, 0,
                       ranking);
}

template <typename Launcher>
void run_place(Launcher& launcher, const Ranking& ranking, const PlaceNeighbours& neighbours) {
  run_items(
      launcher, ranking, [&](bool wide) { return place_words(ranking, wide); },
      [](auto words, auto wide) { return place_kernel<decltype(words)::value, decltype(wide)::value>; }, neighbours);
}

// The k nearest of each row's query.
template <typename Launcher>
void rank_neighbours(Launcher& launcher, Ranking ranking, const PlaceNeighbours& neighbours) {
  ranking.k = neighbours.k;
  for_batches(ranking, [&](const Ranking& batch) {
    run_count<false>(launcher, batch);
    run_offsets<false>(launcher, batch);
    run_place(launcher, batch, neighbours);
  });
}

}  // namespace adsq::cuda
