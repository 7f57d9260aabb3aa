#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>

#include "cpu/hamming_results.h"

namespace adsq::cpu {
namespace {

// A larger sample costs more and leaves fewer codes within the first threshold.
constexpr int64_t kSampleShare = 64, kMinSample = 512, kMaxSample = 16384;
constexpr int64_t kCountedSample = 512, kFewQueries = 12, kNeighbours = 8;
constexpr int64_t kLowEnough = 2;  // times the rank that is sought in the sample cost less than seeking it
constexpr int64_t kLeastRoom = 16;
constexpr int64_t kSampledQueries = 32;  // that a second thread is worth
constexpr int64_t kSampleCost = 16;      // drawing a code costs about as much as comparing so many
constexpr int64_t kKeyBytes = 64 << 20;  // for the keys of all queries that are searched at a time

// The smallest distance up to which there are `rank` keys, all of them at most `largest`, and how many lie below it.
struct Cut {
  int64_t distance, below;
};
Cut cut_at(const uint64_t* keys, int64_t count, int64_t rank, int32_t largest) {
  int64_t counts[kMaxBits + 1];
  std::fill(counts, counts + largest + 1, 0);
  for (int64_t i = 0; i < count; ++i) ++counts[distance_of(keys[i])];
  Cut cut{0, 0};
  while (cut.below + counts[cut.distance] < rank) cut.below += counts[cut.distance++];
  return cut;
}

class Selector {
 public:
  explicit Selector(const Search& search) : search_(search), database_(search.database) {}

  void run() {
    const int64_t num_queries = search_.num_queries;
    draw_sample();
    const int64_t capacity = capacity_of(search_.wanted);
    const int64_t room = kKeyBytes / static_cast<int64_t>(sizeof(uint64_t)) / capacity;
    const int64_t at_most = std::max<int64_t>(1, std::min({room, kQueriesAtATime, num_queries}));
    const int64_t parts = split_work(database_, at_most, search_.threads.count).codes;
    const int64_t at_a_time = std::max<int64_t>(1, std::min(room / parts, at_most));
    room_ = at_a_time * parts;
    keys_ = aligned_array<uint64_t>(static_cast<size_t>(room_ * capacity));
    std::vector<int32_t> queries;
    for (int64_t first = 0; first < num_queries; first += at_a_time) {
      queries.clear();
      for (int64_t q = first; q < std::min(first + at_a_time, num_queries); ++q) {
        queries.push_back(static_cast<int32_t>(q));
      }
      std::vector<int32_t> missed = search(queries, true);
      // The sample misled: these have fewer than k codes within their threshold.
      if (!missed.empty()) search(missed, false);
    }
  }

 private:
  // Room for more than is wanted: little, since the threshold only falls once it is used up, but enough that counting
  // distances, a step for each of them, costs each code little.
  int64_t capacity_of(int64_t limit) const { return limit + std::max({limit / 2, kLeastRoom, int64_t{all() / 8}}); }
  int32_t all() const { return static_cast<int32_t>(8 * database_.width); }

  // Takes codes at random from each of many equal stretches: sorted or periodic data must not mislead it. For few
  // queries it takes neighbours, which memory delivers together.
  void draw_sample() {
    const bool few = search_.num_queries < kFewQueries;
    const int64_t together = few ? kNeighbours : 1;
    int64_t wanted = few ? kCountedSample : std::max(kMinSample, std::min(kMaxSample, database_.count / kSampleShare));
    wanted = std::min(wanted, database_.count / kSampleCost) / together;
    if (wanted == 0) return;
    const int64_t stretch = database_.count / wanted, width = database_.width;
    sample_.resize(static_cast<size_t>(wanted * together * width));
    int64_t size = 0;
    uint64_t random = 0x9E3779B97F4A7C15;
    for (int64_t i = 0; i < wanted; ++i) {
      random ^= random << 13, random ^= random >> 7, random ^= random << 17;
      const auto place = static_cast<int64_t>((random >> 32) * static_cast<uint64_t>(stretch) >> 32);
      const int64_t first = (i * stretch + place) / together * together,
                    last = std::min(first + together, database_.count);
      if (database_.mask == nullptr) {
        std::memcpy(sample_.data() + size * width, database_.rows + first * width,
                    static_cast<size_t>((last - first) * width));
        size += last - first;
        continue;
      }
      for (int64_t index = first; index < last; ++index) {
        if (!database_.mask[index]) continue;
        std::memcpy(sample_.data() + size++ * width, database_.rows + index * width, static_cast<size_t>(width));
      }
    }
    sample_.resize(static_cast<size_t>(size * width));
    // The k-th of all codes is expected at this rank of the sample; three deviations and a bit more make it safe, where
    // neighbours are alike, too.
    const double rank =
        static_cast<double>(search_.wanted) * static_cast<double>(size) / static_cast<double>(search_.allowed);
    const auto alike = static_cast<double>(together);
    sample_rank_ = static_cast<int64_t>(std::ceil(rank + 3 * std::sqrt(alike * rank) + 3 * alike));
    if (sample_rank_ > size / 2) sample_rank_ = 0;
  }

  // Lowers thresholds[query] to the distance at sample_rank_ of the sample.
  void sample_thresholds(std::vector<int32_t> queries, int32_t* thresholds) {
    const Codes sample{sample_.data(), static_cast<int64_t>(sample_.size()) / database_.width, database_.width};
    count_thresholds(sample, queries, thresholds);
    if (sample.count <= kCountedSample || queries.empty()) return;
    // A larger sample is searched like a database of its own.
    const int64_t capacity = capacity_of(sample_rank_);
    auto keys = aligned_array<uint64_t>(queries.size() * static_cast<size_t>(capacity));
    std::vector<Selection> selections;
    for (size_t q = 0; q < queries.size(); ++q) {
      selections.push_back({keys.get() + static_cast<int64_t>(q) * capacity, 0, capacity, sample_rank_,
                            thresholds[queries[q]], queries[q]});
    }
    scan_part(search_.kernels, sample, 0, sample.count,
              {search_.words, database_.num_words(), selections.data(), static_cast<int64_t>(selections.size())});
    for (const Selection& selection : selections) {
      if (selection.count < sample_rank_) continue;  // within a bound
      thresholds[selection.query] =
          static_cast<int32_t>(cut_at(selection.keys, selection.count, sample_rank_, all()).distance);
    }
  }

  // The same from the first codes of the sample only: how many are near enough is counted for few distances. Drops the
  // queries whose thresholds are low enough as they are.
  void count_thresholds(const Codes& sample, std::vector<int32_t>& queries, int32_t* thresholds) {
    BlockReader reader(search_.kernels, sample, 0, sample.count, kCountedSample);
    Block block;
    reader.next(block);
    if (block.count < sample_rank_) return;
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
      search_.kernels.distances(block, search_.words + query * int64_t{database_.num_words()}, database_.num_words(),
                                distances);
      if (search_.bounds != nullptr && within(thresholds[query]) < kLowEnough * sample_rank_) continue;
      queries[kept++] = query;
      int32_t low = 0, high = all();
      while (low < high) {
        const int32_t middle = (low + high) / 2;
        if (within(middle) < sample_rank_) {
          low = middle + 1;
        } else {
          high = middle;
        }
      }
      thresholds[query] = low;
    }
    queries.resize(kept);
  }

  // Searches ascending query numbers and returns those that found too little.
  std::vector<int32_t> search(const std::vector<int32_t>& queries, bool sampled) {
    sampled = sampled && sample_rank_ > 0;
    const auto count = static_cast<int64_t>(queries.size());
    std::vector<int32_t> thresholds(static_cast<size_t>(queries.back()) + 1);  // by query
    for (const int32_t query : queries) thresholds[static_cast<size_t>(query)] = search_.bound(query);
    const Split split = split_work(database_, count, search_.threads.count, room_ / count);
    if (sampled) {
      const int64_t shares = std::min(split.codes * split.queries, 1 + count / kSampledQueries);
      search_.threads.run(shares, [&](int64_t share) {
        sample_thresholds({queries.begin() + count * share / shares, queries.begin() + count * (share + 1) / shares},
                          thresholds.data());
      });
    }
    const int64_t capacity = capacity_of(search_.wanted);
    std::vector<Selection> selections(static_cast<size_t>(split.codes * count));  // [part][query]
    for (int64_t i = 0; i < split.codes * count; ++i) {
      const int32_t query = queries[static_cast<size_t>(i % count)];
      selections[static_cast<size_t>(i)] = {
          keys_.get() + i * capacity, 0, capacity, search_.wanted, thresholds[static_cast<size_t>(query)], query};
    }
    search_.threads.run(split.codes * split.queries, [&](int64_t task) {
      const int64_t part = task / split.queries, share = task % split.queries;
      const int64_t first = count * share / split.queries, last = count * (share + 1) / split.queries;
      scan_part(search_.kernels, database_, part_start(database_.count, part, split.codes),
                part_start(database_.count, part + 1, split.codes),
                {search_.words, database_.num_words(), selections.data() + part * count + first, last - first});
    });

    // Searches that end are moved among the selections of their part; the keys tell the query's place.
    std::vector<const Selection*> parts(static_cast<size_t>(split.codes * count));  // [query][part]
    for (const Selection& selection : selections) {
      const int64_t place = (selection.keys - keys_.get()) / capacity;
      parts[static_cast<size_t>(place % count * split.codes + place / count)] = &selection;
    }
    std::vector<char> enough(static_cast<size_t>(count));
    const int64_t tasks = split.codes * split.queries;
    search_.threads.run(tasks, [&](int64_t task) {
      for (int64_t q = count * task / tasks; q < count * (task + 1) / tasks; ++q) {
        const int32_t query = queries[static_cast<size_t>(q)];
        const bool is_all = thresholds[static_cast<size_t>(query)] == search_.bound(query);
        enough[static_cast<size_t>(q)] = write(query, parts.data() + q * split.codes, split.codes, is_all);
      }
    });
    std::vector<int32_t> missed;
    for (int64_t q = 0; q < count; ++q) {
      if (!enough[static_cast<size_t>(q)]) missed.push_back(queries[static_cast<size_t>(q)]);
    }
    return missed;
  }

  // Writes the nearest codes of one query, found part by part in ascending order of index: a stable counting sort.
  // Returns whether these are enough, as they are where no more lie within the query's bound.
  bool write(int32_t query, const Selection* const* parts, int64_t num_parts, bool is_all) const {
    int64_t starts[kMaxBits + 2];
    std::fill(starts, starts + all() + 2, 0);
    int64_t total = 0;
    for (int64_t p = 0; p < num_parts; ++p) {
      for (int64_t i = 0; i < parts[p]->count; ++i) ++starts[distance_of(parts[p]->keys[i]) + 1];
      total += parts[p]->count;
    }
    if (total < search_.wanted && !is_all) return false;
    for (int32_t d = 0; d < all(); ++d) starts[d + 1] += starts[d];
    int32_t* distances = search_.output.distances + query * search_.output.k;
    int64_t* indices = search_.output.indices + query * search_.output.k;
    for (int64_t p = 0; p < num_parts; ++p) {
      for (int64_t i = 0; i < parts[p]->count; ++i) {
        const uint64_t key = parts[p]->keys[i];
        const int64_t place = starts[distance_of(key)]++;
        if (place >= search_.wanted) continue;
        distances[place] = static_cast<int32_t>(distance_of(key));
        indices[place] = search_.output.id(index_of(key));
      }
    }
    search_.output.fill_up(query, std::min(total, search_.wanted));
    return true;
  }

  const Search& search_;
  const Codes& database_;
  Aligned<uint64_t> keys_;  // of so many selections
  int64_t room_ = 0;
  std::vector<uint8_t> sample_;
  int64_t sample_rank_ = 0;
};

}  // namespace

void make_room(Selection& selection) {
  if (selection.limit == 0) {
    const int64_t capacity = std::max<int64_t>(64, 2 * selection.capacity);
    void* keys = std::realloc(selection.keys, sizeof(uint64_t) * static_cast<size_t>(capacity));
    if (keys == nullptr) throw std::bad_alloc();
    selection.keys = static_cast<uint64_t*>(keys);
    selection.capacity = capacity;
    return;
  }
  // What lies below the cut stays, and the first codes at the cut. Later ones at the cut lose to these by index.
  const Cut cut = cut_at(selection.keys, selection.count, selection.limit, selection.threshold);
  int64_t room_at_cut = selection.limit - cut.below, kept = 0;
  for (int64_t i = 0; i < selection.count; ++i) {
    const uint64_t key = selection.keys[i];
    const bool at_cut = distance_of(key) == cut.distance;
    selection.keys[kept] = key;
    kept += (distance_of(key) < cut.distance) | (at_cut & (room_at_cut > 0));
    room_at_cut -= at_cut;
  }
  selection.count = kept;
  selection.threshold = static_cast<int32_t>(cut.distance) - 1;
}

void select_nearest(const Search& search) { Selector(search).run(); }

}  // namespace adsq::cpu
