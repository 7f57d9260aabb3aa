#include "cpu/hamming_sample.h"

#include <cmath>
#include <cstring>
#include <type_traits>

namespace adsq::cpu {
namespace {

// A larger sample costs more and leaves fewer codes within the first threshold.
constexpr int64_t kSampleShare = 64, kMinSample = 512, kMaxSample = 16384;
constexpr int64_t kCountedSample = 512, kFewQueries = 12, kNeighbours = 8;
constexpr int64_t kLowEnough = 2;    // times the rank that is sought in the sample cost less than seeking it
constexpr int64_t kSampleCost = 16;  // drawing a code costs about as much as comparing so many
constexpr int64_t kFetched = 64;     // codes that are fetched together

}  // namespace

Sample::Sample(const Search& search) : search_(search) {
  const Codes& database = search.database;
  // For few queries it takes neighbours, which memory delivers together.
  const bool few = search.num_queries < kFewQueries;
  const int64_t together = few ? kNeighbours : 1;
  int64_t wanted = few ? kCountedSample : std::max(kMinSample, std::min(kMaxSample, database.count / kSampleShare));
  wanted = std::min(wanted, database.count / kSampleCost) / together;
  if (wanted == 0) return;
  draw(wanted, together);
  // The k-th of all codes is expected at this rank of the sample; three deviations and a bit more make it safe, where
  // neighbours are alike, too.
  const auto size = static_cast<double>(codes().count), alike = static_cast<double>(together);
  const double rank = static_cast<double>(search.wanted) * size / static_cast<double>(search.allowed);
  rank_ = static_cast<int64_t>(std::ceil(rank + 3 * std::sqrt(alike * rank) + 3 * alike));
  if (rank_ > codes().count / 2) rank_ = 0;
}

Codes Sample::codes() const {
  const int64_t width = search_.database.width;
  return {rows_.data(), static_cast<int64_t>(rows_.size()) / width, width};
}

// Takes codes at random from each of as many equal stretches: sorted or periodic data must not mislead it.
void Sample::draw(int64_t places, int64_t together) {
  const Codes& database = search_.database;
  const int64_t stretch = database.count / places, width = database.width;
  rows_.resize(static_cast<size_t>(places * together * width));
  int64_t size = 0;
  const auto copy = [&](int64_t first, int64_t last, auto bytes) {
    for (int64_t index = first; index < last; ++index) {
      if (database.mask != nullptr && !database.mask[index]) continue;
      std::memcpy(rows_.data() + size++ * width, database.rows + index * width, static_cast<size_t>(bytes));
    }
  };
  uint64_t random = 0x9E3779B97F4A7C15;
  int64_t firsts[kFetched];
  for (int64_t begin = 0; begin < places; begin += kFetched) {
    const int64_t some = std::min(kFetched, places - begin);
    for (int64_t i = 0; i < some; ++i) {
      random ^= random << 13, random ^= random >> 7, random ^= random << 17;
      const auto place = static_cast<int64_t>((random >> 32) * static_cast<uint64_t>(stretch) >> 32);
      firsts[i] = ((begin + i) * stretch + place) / together * together;
      __builtin_prefetch(database.rows + firsts[i] * width);
    }
    for (int64_t i = 0; i < some; ++i) {
      const int64_t last = std::min(firsts[i] + together, database.count);
      if (width == 8) {
        copy(firsts[i], last, std::integral_constant<int64_t, 8>{});
      } else {
        copy(firsts[i], last, width);
      }
    }
  }
  rows_.resize(static_cast<size_t>(size * width));
}

void Sample::lower(std::vector<int32_t> queries, int32_t* thresholds) const {
  const Codes sample = codes();
  count_first(queries, thresholds);
  if (sample.count <= kCountedSample || queries.empty()) return;
  // A larger sample is searched like a database of its own.
  const int64_t capacity = capacity_of(rank_, sample.width);
  auto keys = aligned_array<uint64_t>(queries.size() * static_cast<size_t>(capacity));
  std::vector<Selection> selections;
  for (size_t q = 0; q < queries.size(); ++q) {
    selections.push_back(
        {keys.get() + static_cast<int64_t>(q) * capacity, 0, capacity, rank_, thresholds[queries[q]], queries[q]});
  }
  scan_part(search_.kernels, sample, 0, sample.count,
            {search_.words, sample.num_words(), selections.data(), static_cast<int64_t>(selections.size())});
  for (const Selection& selection : selections) {
    int32_t& threshold = thresholds[selection.query];
    threshold = static_cast<int32_t>(cut_at(selection.keys, selection.count, rank_, threshold).distance);
  }
}

// The same from the first codes of the sample only: how many are near enough is counted for few distances. Drops the
// queries whose thresholds are low enough as they are.
void Sample::count_first(std::vector<int32_t>& queries, int32_t* thresholds) const {
  const Codes sample = codes();
  BlockReader reader(search_.kernels, sample, 0, sample.count, kCountedSample);
  Block block;
  reader.next(block);
  if (block.count < rank_) return;
  uint16_t distances[kCountedSample];
  // Numbers of 16 bits: many are counted with one instruction.
  const auto within = [&](int32_t most) {
    int16_t count = 0;
    for (int64_t i = 0; i < block.count; ++i) {
      count = static_cast<int16_t>(count + (static_cast<int16_t>(distances[i]) <= static_cast<int16_t>(most)));
    }
    return count;
  };
  size_t kept = 0;
  for (const int32_t query : queries) {
    const int num_words = sample.num_words();
    search_.kernels.distances(block, search_.words + int64_t{query} * num_words, num_words, distances);
    if (search_.bounds != nullptr && within(thresholds[query]) < kLowEnough * rank_) continue;
    queries[kept++] = query;
    int32_t low = 0, high = static_cast<int32_t>(8 * sample.width);
    while (low < high) {
      const int32_t middle = (low + high) / 2;
      if (within(middle) < rank_) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    thresholds[query] = low;
  }
  queries.resize(kept);
}

}  // namespace adsq::cpu
