// All codes within a radius: the kernels of hamming_rank.cuh, with the places of all queries one after the other.
#pragma once
#include "cuda/hamming_range.h"
#include "cuda/hamming_rank_launch.cuh"

namespace adsq::cuda {

// counts [count] become the sums of those before them, counts[count] the sum of all. One block.
__global__ void __launch_bounds__(32 * kRankWarps) prefix_kernel(int64_t* counts, int64_t count) {
  int unused = 0;
  const int64_t total = sum_before(counts, count, 1, 0, &unused);
  if (threadIdx.x == 0) counts[count] = total;
}

template <typename Launcher>
void hamming_range(Launcher& launcher, const PackedCodes& queries, const PackedCodes& database, int64_t radius,
                   const int64_t* ids, int64_t* offsets, const MakeResults& make, const Allocate& allocate,
                   const RankSizes& sizes = {}) {
  Ranking ranking = make_ranking(codes_at(queries.data, queries.count, queries.width),
                                 codes_at(database.data, database.count, database.width));
  ranking.limit = static_cast<int>(std::min<int64_t>(radius, ranking.limit));
  choose_table(ranking, 1, sizes);
  set_table(ranking, allocate(8 * table_words(ranking)));
  ranking.totals = offsets;
  for_batches(ranking, [&](const Ranking& batch) {
    run_count<false>(launcher, batch);
    run_offsets<false>(launcher, batch);
  });
  launcher.run_looping(prefix_kernel, 1, 32 * kRankWarps, 0, offsets, queries.count);
  const RangeResults results = make(launcher.read(offsets + queries.count));
  ranking.totals = nullptr;
  for_batches(ranking, [&](const Ranking& batch) {
    if (ranking.batch_rows < ranking.num_rows) {  // the table holds another batch
      run_count<false>(launcher, batch);
      run_offsets<false>(launcher, batch);
    }
    run_place(launcher, batch, PlaceNeighbours{offsets, 0, ids, results.distances, results.indices});
  });
}

}  // namespace adsq::cuda
