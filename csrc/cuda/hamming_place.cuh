// Writes neighbours in the order that the tables of hamming_rank.cuh stand for. A warp sorts some hundred codes by
// distance in its shared memory before it writes them, so that lanes write next to each other.
#pragma once
#include "cuda/hamming_rank.cuh"

namespace adsq::cuda {

constexpr uint32_t kChunk = 512;       // codes that a warp sorts at a time, at most
constexpr int kDistanceBits = 13;      // of an entry; above them, the place in the window of codes that a chunk is from
constexpr uint32_t kWindow = 1 << 19;  // codes

// Where neighbours go: k of each query, filled up with kNoDistance and -1, or, where `offsets` is not nullptr, all from
// offsets[query] on. Where `ids` is not nullptr, ids[index] takes the place of the index.
struct PlaceNeighbours {
  const int64_t* offsets;
  int64_t k;
  const int64_t* ids;
  int32_t* distances;
  int64_t* indices;
};

// The chunk of a warp: `held` entries in order of index, how many of them are at each distance, and the low bits of the
// place of the first of those. The lanes have to meet before a chunk is sorted.
struct Chunk {
  uint32_t *entries, *sorted;  // [kChunk]
  uint32_t *counts, *firsts;   // [columns]
  uint32_t held, window;       // the first code of the window, counted from that of the item
};

// Sorts and writes the chunk; what follows begins anew at code `next` of the item. By all lanes.
__device__ __forceinline__ void write_chunk(const Ranking& ranking, const PlaceNeighbours& found, const RankItem& item,
                                            int cut, uint32_t next, Chunk& chunk) {
  const uint32_t lane = threadIdx.x % 32, lanes_before = (1u << lane) - 1;
  // Counts become where each distance begins in the chunk, and later where it ends; `firsts`, with the place in the
  // chunk added, the place in the query's order.
  uint32_t before = 0;
#pragma unroll 1
  for (int start = 0; start <= cut; start += 32) {
    const int c = start + lane;
    const uint32_t count = c <= cut ? chunk.counts[c] : 0;
    uint32_t through = count;
    for (uint32_t step = 1; step < 32; step *= 2) {
      const uint32_t other = __shfl_up_sync(kAllLanes, through, step);
      if (lane >= step) through += other;
    }
    if (c <= cut) {
      chunk.counts[c] = before + through - count;
      chunk.firsts[c] -= before + through - count;
    }
    before += __shfl_sync(kAllLanes, through, 31);
  }
  __syncwarp();
  const int64_t begin = found.offsets == nullptr ? item.query * found.k : found.offsets[item.query];
  const int64_t end = found.offsets == nullptr ? found.k : INT64_MAX;
  int32_t* const distances = found.distances + begin;
  int64_t* const indices = found.indices + begin;
#pragma unroll 2
  for (uint32_t start = 0; start < chunk.held; start += 32) {
    const bool is_there = start + lane < chunk.held;
    const uint32_t entry = is_there ? chunk.entries[start + lane] : ~0u;
    const uint32_t distance = entry & ((1u << kDistanceBits) - 1);
    const unsigned peers = __match_any_sync(kAllLanes, distance);
    const uint32_t place = (is_there ? chunk.counts[distance] : 0) + __popc(peers & lanes_before);
    __syncwarp();
    if (is_there) {
      if (peers >> lane == 1) chunk.counts[distance] = place + 1;  // the last of them
      chunk.sorted[place] = entry;
    }
    __syncwarp();
  }
  for (uint32_t i = lane; i < chunk.held; i += 32) {
    const uint32_t entry = chunk.sorted[i];
    const int distance = static_cast<int>(entry & ((1u << kDistanceBits) - 1));
    const int64_t place = full_place(ranking, chunk.firsts[distance] + i, [&] {
      return item.first_place(ranking.table, ranking.parts, ranking.num_columns(), distance, item.split);
    });
    if (place >= end) continue;
    const int64_t index = item.first + chunk.window + (entry >> kDistanceBits);
    distances[place] = distance;
    indices[place] = found.ids == nullptr ? index : found.ids[index];
  }
  __syncwarp();
#pragma unroll 2
  for (int c = lane; c <= cut; c += 32) {
    chunk.firsts[c] += chunk.counts[c];
    chunk.counts[c] = 0;
  }
  __syncwarp();
  chunk.held = 0;
  chunk.window = next;
}

__host__ __device__ inline int64_t place_words(const Ranking& ranking, bool wide) {
  return rank_words(ranking, 2, wide) + 2 * kChunk;
}

// Dynamic shared memory: place_words for each warp.
template <int kWords, bool kWide>
__global__ void __launch_bounds__(32 * kRankWarps, kRankBlocks<kWords, false>)
    place_kernel(const Ranking ranking, const PlaceNeighbours found) {
  constexpr uint32_t kTaken = kGroups<kWords, kWide> * kGroup;  // at a time
  ADSQ_DYNAMIC_SHARED(shared, uint32_t);
  const int lane = threadIdx.x % 32, columns = ranking.num_columns();
  const unsigned lanes_before = (1u << lane) - 1;
  Chunk chunk{};
  chunk.entries = shared + threadIdx.x / 32 * place_words(ranking, kWide);
  chunk.sorted = chunk.entries + kChunk;
  chunk.counts = chunk.sorted + kChunk;
  chunk.firsts = chunk.counts + columns;
  uint32_t* query = chunk.counts + counter_words(ranking, 2);
  for_rank_items(ranking, [&](const RankItem& item) {
    const int cut = ranking.cuts[item.query];
    const bool has_next = item.split + 1 < item.splits;
    bool is_empty = has_next;
#pragma unroll 2
    for (int c = lane; c <= cut; c += 32) {
      const int64_t first = item.first_place(ranking.table, ranking.parts, columns, c, item.split);
      if (has_next) {
        is_empty &= first == item.first_place(ranking.table, ranking.parts, columns, c, item.split + 1);
      }
      chunk.counts[c] = 0;
      chunk.firsts[c] = static_cast<uint32_t>(first);
    }
    chunk.held = chunk.window = 0;
    const auto gather = [&](uint32_t start, const auto& distances, unsigned, bool is_last) {
      int nearest = distances[0];
#pragma unroll
      for (int g = 1; g < kGroups<kWords, kWide>; ++g) nearest = min(nearest, distances[g]);
      if (__any_sync(kAllLanes, nearest <= cut)) {
#pragma unroll
        for (int g = 0; g < kGroups<kWords, kWide>; ++g) {
          const bool within = distances[g] <= cut;
          const unsigned lanes = __ballot_sync(kAllLanes, within);
          if (within) {
            const uint32_t at = start - chunk.window + g * kGroup + lane;
            chunk.entries[chunk.held + __popc(lanes & lanes_before)] = at << kDistanceBits | distances[g];
            atomicAdd(chunk.counts + distances[g], 1u);
          }
          chunk.held += __popc(lanes);
        }
      }
      const uint32_t next = start + kTaken;
      const bool is_full = chunk.held > kChunk - kTaken || next - chunk.window > kWindow - kTaken;
      if (!is_last && !is_full) return;
      __syncwarp();
      if (chunk.held > 0) {
        write_chunk(ranking, found, item, cut, next, chunk);
      } else {
        chunk.window = next;
      }
    };
    // Where few codes are wanted, most splits have none of them and are not read again.
    if (__any_sync(kAllLanes, !is_empty)) scan_item<kWords, kWide, false>(ranking, item, query, gather);
    if (found.offsets == nullptr) {  // places that no code takes
      for (int64_t p = ranking.totals[item.query] + item.split * 32 + lane; p < found.k; p += item.splits * 32) {
        found.distances[item.query * found.k + p] = kNoDistance;
        found.indices[item.query * found.k + p] = -1;
      }
    }
    __syncwarp();  // a next item begins anew
  });
}

}  // namespace adsq::cuda
