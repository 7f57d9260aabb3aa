#include "cpu/hamming_topk.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace adsq::cpu {
namespace {

// A larger sample costs more and leaves fewer codes within the first threshold.
constexpr int64_t kSampleShare = 64, kMinSample = 2048, kMaxSample = 16384;
constexpr int64_t kFewQueriesSample = 512;
constexpr int64_t kSampledFrom = 16 * kMinSample;  // below that many codes a sample costs more than it saves
constexpr int64_t kKeyBytes = 64 << 20;            // for the keys of all queries that are searched at a time
constexpr int64_t kQueriesAtATime = 2048;
constexpr int64_t kRankedCodes = 1 << 17;  // distances of a full ranking that are held at a time, per thread

int64_t distance_of(uint64_t key) { return static_cast<int64_t>(key >> kIndexBits); }
int64_t index_of(uint64_t key) { return static_cast<int64_t>(key & kIndexMask); }

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

int64_t count_allowed(const Codes& database) {
  if (database.mask == nullptr) return database.count;
  int64_t allowed = 0;
  for (int64_t i = 0; i < database.count; ++i) allowed += database.mask[i];
  return allowed;
}

struct Output {
  int64_t k;
  const int64_t* ids;
  int32_t* distances;
  int64_t* indices;

  int64_t id(int64_t index) const { return ids == nullptr ? index : ids[index]; }
  void fill_up(int64_t query, int64_t found) const {
    std::fill(distances + query * k + found, distances + (query + 1) * k, kNoDistance);
    std::fill(indices + query * k + found, indices + (query + 1) * k, kNoIndex);
  }
};

// ---- k small against the database: a selection for each query ----

class Selector {
 public:
  Selector(const ScanKernels& kernels, const Codes& database, const uint64_t* words, int64_t allowed, int64_t wanted,
           const Output& output, const Threads& threads)
      : kernels_(kernels),
        database_(database),
        words_(words),
        allowed_(allowed),
        wanted_(wanted),
        output_(output),
        threads_(threads) {}

  void search(int64_t num_queries) {
    draw_sample(num_queries);
    const int64_t capacity = capacity_of(wanted_);
    const int64_t parts = split_work(database_, num_queries, threads_.count).codes;
    const int64_t room = kKeyBytes / static_cast<int64_t>(sizeof(uint64_t)) / (parts * capacity);
    const int64_t at_a_time = std::max<int64_t>(1, std::min({room, kQueriesAtATime, num_queries}));
    keys_ = aligned_array<uint64_t>(static_cast<size_t>(at_a_time * parts * capacity));
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
  static int64_t capacity_of(int64_t limit) { return limit + std::max<int64_t>(limit, 64); }
  int32_t all() const { return static_cast<int32_t>(8 * database_.width); }

  // Takes one code at random from each of many equal stretches: sorted or periodic data must not mislead it.
  void draw_sample(int64_t num_queries) {
    if (database_.count < kSampledFrom) return;
    uint64_t random = 0x9E3779B97F4A7C15;
    int64_t wanted = std::max(kMinSample, std::min(kMaxSample, database_.count / kSampleShare));
    if (num_queries < kernels_.sliced_queries) wanted = kFewQueriesSample;
    const int64_t stretch = database_.count / wanted;
    for (int64_t i = 0; i < wanted; ++i) {
      random ^= random << 13, random ^= random >> 7, random ^= random << 17;
      const int64_t index = i * stretch + static_cast<int64_t>(random % static_cast<uint64_t>(stretch));
      if (database_.mask != nullptr && !database_.mask[index]) continue;
      const uint8_t* row = database_.rows + index * database_.width;
      sample_.insert(sample_.end(), row, row + database_.width);
    }
    // The k-th of all codes is expected at this rank of the sample; three deviations and a bit more make it safe.
    const auto size = static_cast<int64_t>(sample_.size()) / database_.width;
    const double rank = static_cast<double>(wanted_) * static_cast<double>(size) / static_cast<double>(allowed_);
    sample_rank_ = static_cast<int64_t>(std::ceil(rank + 3 * std::sqrt(rank) + 3));
    if (sample_rank_ > size / 2) sample_rank_ = 0;
  }

  // Sets first thresholds from the sample.
  void sample_thresholds(const std::vector<int32_t>& queries, std::vector<int32_t>& thresholds) {
    const Codes sample{sample_.data(), static_cast<int64_t>(sample_.size()) / database_.width, database_.width};
    const int64_t capacity = capacity_of(sample_rank_);
    auto keys = aligned_array<uint64_t>(queries.size() * static_cast<size_t>(capacity));
    std::vector<Selection> selections;
    for (size_t q = 0; q < queries.size(); ++q) {
      selections.push_back(
          {keys.get() + static_cast<int64_t>(q) * capacity, 0, capacity, sample_rank_, all(), queries[q]});
    }
    scan_part(kernels_, sample, 0, sample.count,
              {words_, database_.num_words(), selections.data(), static_cast<int64_t>(selections.size())});
    for (const Selection& selection : selections) {
      thresholds[static_cast<size_t>(selection.query - queries.front())] =
          static_cast<int32_t>(cut_at(selection.keys, selection.count, sample_rank_, all()).distance);
    }
  }

  // Searches ascending query numbers and returns those that found too little.
  std::vector<int32_t> search(const std::vector<int32_t>& queries, bool sampled) {
    sampled = sampled && sample_rank_ > 0;
    const auto count = static_cast<int64_t>(queries.size());
    std::vector<int32_t> thresholds(static_cast<size_t>(queries.back() - queries.front() + 1), all());
    if (sampled) sample_thresholds(queries, thresholds);

    const Split split = split_work(database_, count, threads_.count);
    const int64_t capacity = capacity_of(wanted_);
    std::vector<Selection> selections(static_cast<size_t>(split.codes * count));  // [part][query]
    for (int64_t i = 0; i < split.codes * count; ++i) {
      const int32_t query = queries[static_cast<size_t>(i % count)];
      selections[static_cast<size_t>(i)] = {keys_.get() + i * capacity,
                                            0,
                                            capacity,
                                            wanted_,
                                            thresholds[static_cast<size_t>(query - queries.front())],
                                            query};
    }
    threads_.run(split.codes * split.queries, [&](int64_t task) {
      const int64_t part = task / split.queries, share = task % split.queries;
      const int64_t first = count * share / split.queries, last = count * (share + 1) / split.queries;
      scan_part(kernels_, database_, part_start(database_.count, part, split.codes),
                part_start(database_.count, part + 1, split.codes),
                {words_, database_.num_words(), selections.data() + part * count + first, last - first});
    });

    // Searches that end are moved among the selections of their part; the keys tell the query's place.
    std::vector<const Selection*> parts(static_cast<size_t>(split.codes * count));  // [query][part]
    for (const Selection& selection : selections) {
      const int64_t place = (selection.keys - keys_.get()) / capacity;
      parts[static_cast<size_t>(place % count * split.codes + place / count)] = &selection;
    }
    std::vector<char> enough(static_cast<size_t>(count));
    const int64_t tasks = split.codes * split.queries;
    threads_.run(tasks, [&](int64_t task) {
      for (int64_t q = count * task / tasks; q < count * (task + 1) / tasks; ++q) {
        enough[static_cast<size_t>(q)] =
            write(queries[static_cast<size_t>(q)], parts.data() + q * split.codes, split.codes);
      }
    });
    std::vector<int32_t> missed;
    for (int64_t q = 0; q < count; ++q) {
      if (!enough[static_cast<size_t>(q)]) missed.push_back(queries[static_cast<size_t>(q)]);
    }
    return missed;
  }

  // Writes the nearest codes of one query, found part by part in ascending order of index: a stable counting sort.
  bool write(int32_t query, const Selection* const* parts, int64_t num_parts) const {
    int64_t starts[kMaxBits + 2];
    std::fill(starts, starts + all() + 2, 0);
    int64_t total = 0;
    for (int64_t p = 0; p < num_parts; ++p) {
      for (int64_t i = 0; i < parts[p]->count; ++i) ++starts[distance_of(parts[p]->keys[i]) + 1];
      total += parts[p]->count;
    }
    if (total < wanted_) return false;
    for (int32_t d = 0; d < all(); ++d) starts[d + 1] += starts[d];
    int32_t* distances = output_.distances + query * output_.k;
    int64_t* indices = output_.indices + query * output_.k;
    for (int64_t p = 0; p < num_parts; ++p) {
      for (int64_t i = 0; i < parts[p]->count; ++i) {
        const uint64_t key = parts[p]->keys[i];
        const int64_t place = starts[distance_of(key)]++;
        if (place >= wanted_) continue;
        distances[place] = static_cast<int32_t>(distance_of(key));
        indices[place] = output_.id(index_of(key));
      }
    }
    output_.fill_up(query, wanted_);
    return true;
  }

  const ScanKernels& kernels_;
  const Codes& database_;
  const uint64_t* words_;
  const int64_t allowed_, wanted_;
  const Output& output_;
  const Threads& threads_;
  Aligned<uint64_t> keys_;
  std::vector<uint8_t> sample_;
  int64_t sample_rank_ = 0;
};

// ---- k large: all distances of a query, then a counting sort ----

class Ranker {
 public:
  Ranker(const ScanKernels& kernels, const Codes& database, const uint64_t* words, int64_t allowed, int64_t wanted,
         const Output& output)
      : kernels_(kernels),
        database_(database),
        words_(words),
        allowed_(allowed),
        wanted_(wanted),
        output_(output),
        // Several queries share the spreading of a block, as long as their distances stay in the cache.
        at_a_time_(std::max<int64_t>(1, std::min<int64_t>(8, kRankedCodes / allowed))),
        distances_(aligned_array<uint16_t>(static_cast<size_t>(at_a_time_ * allowed))),
        order_(aligned_array<uint32_t>(static_cast<size_t>(allowed))),
        places_(static_cast<size_t>(kSegments * (8 * database.width + 1))) {}

  void rank(int64_t first, int64_t last) {
    for (; first < last; first += at_a_time_) {
      const int64_t count = std::min(at_a_time_, last - first);
      compare(first, count);
      for (int64_t q = 0; q < count; ++q) write(first + q, distances_.get() + q * allowed_);
    }
  }

 private:
  void compare(int64_t first, int64_t count) {
    const int num_words = database_.num_words();
    BlockReader reader(kernels_, database_, 0, database_.count, direct_block_size(num_words));
    int64_t done = 0;
    positions_.clear();
    for (Block block; reader.next(block); done += block.count) {
      if (block.positions != nullptr)
        positions_.insert(positions_.end(), block.positions, block.positions + block.count);
      for (int64_t q = 0; q < count; ++q) {
        kernels_.distances(block, words_ + (first + q) * num_words, num_words, distances_.get() + q * allowed_ + done);
      }
    }
  }

  // A stable counting sort. Equal distances follow each other often, and each would wait for the counter of the last:
  // so the codes are taken from several places at once, each with its own counters.
  void write(int64_t query, const uint16_t* distances) {
    const int64_t num_distances = 8 * database_.width + 1, length = allowed_ / kSegments;
    std::fill(places_.begin(), places_.end(), 0);
    uint32_t* places[kSegments];
    for (int64_t s = 0; s < kSegments; ++s) places[s] = places_.data() + s * num_distances;
    for (int64_t i = 0; i < length; ++i) {
      for (int64_t s = 0; s < kSegments; ++s) ++places[s][distances[s * length + i]];
    }
    for (int64_t i = kSegments * length; i < allowed_; ++i) ++places[kSegments - 1][distances[i]];

    int32_t* sorted = output_.distances + query * output_.k;
    uint32_t start = 0;
    for (int64_t d = 0; d < num_distances; ++d) {
      const uint32_t first = start;
      for (int64_t s = 0; s < kSegments; ++s) {
        const uint32_t count = places[s][d];
        places[s][d] = start;
        start += count;
      }
      std::fill(sorted + std::min<int64_t>(first, wanted_), sorted + std::min<int64_t>(start, wanted_),
                static_cast<int32_t>(d));
    }
    uint32_t* order = order_.get();
    for (int64_t i = 0; i < length; ++i) {
      for (int64_t s = 0; s < kSegments; ++s) {
        order[places[s][distances[s * length + i]]++] = static_cast<uint32_t>(s * length + i);
      }
    }
    for (int64_t i = kSegments * length; i < allowed_; ++i) {
      order[places[kSegments - 1][distances[i]]++] = static_cast<uint32_t>(i);
    }

    int64_t* indices = output_.indices + query * output_.k;
    if (positions_.empty() && output_.ids == nullptr) {
      kernels_.write_indices(order, wanted_, indices);
    } else {
      for (int64_t i = 0; i < wanted_; ++i) {
        indices[i] = output_.id(positions_.empty() ? order[i] : positions_[order[i]]);
      }
    }
    output_.fill_up(query, wanted_);
  }

  static constexpr int64_t kSegments = 4;
  const ScanKernels& kernels_;
  const Codes& database_;
  const uint64_t* words_;
  const int64_t allowed_, wanted_;
  const Output& output_;
  const int64_t at_a_time_;
  Aligned<uint16_t> distances_;  // [query][allowed code]
  Aligned<uint32_t> order_;
  std::vector<int64_t> positions_;
  std::vector<uint32_t> places_;  // [segment][distance]
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

void hamming_topk(const Codes& queries, const Codes& database, int64_t k, const int64_t* ids, int32_t* distances,
                  int64_t* indices, const Threads& threads) {
  const ScanKernels& kernels = scan_kernels();
  const Output output{k, ids, distances, indices};
  const int64_t allowed = count_allowed(database), wanted = std::min(k, allowed);
  if (wanted == 0) {
    for (int64_t q = 0; q < queries.count; ++q) output.fill_up(q, 0);
    return;
  }
  if (queries.count == 0) return;
  const auto words = query_words(kernels, queries);
  if (wanted > allowed / 4 && allowed <= UINT32_MAX) {
    const int64_t work = allowed * queries.count;
    const int64_t tasks = std::min({threads.count, queries.count, 1 + work / kRankedCodes});
    threads.run(tasks, [&](int64_t task) {
      Ranker(kernels, database, words.get(), allowed, wanted, output)
          .rank(queries.count * task / tasks, queries.count * (task + 1) / tasks);
    });
    return;
  }
  Selector(kernels, database, words.get(), allowed, wanted, output, threads).search(queries.count);
}

RangeSearch::RangeSearch(const Codes& queries, const Codes& database, int64_t radius, const Threads& threads)
    : threads_(threads), num_distances_(static_cast<int>(8 * database.width + 1)), offsets_(1, 0) {
  const ScanKernels& kernels = scan_kernels();
  const auto words = query_words(kernels, queries);
  const auto threshold = static_cast<int32_t>(std::min<int64_t>(radius, num_distances_ - 1));
  const Split split = split_work(database, queries.count, threads.count);
  parts_ = split.codes;
  selections_.resize(static_cast<size_t>(parts_ * queries.count));
  threads.run(split.codes * split.queries, [&](int64_t task) {
    const int64_t part = task / split.queries, share = task % split.queries;
    const int64_t last = queries.count * (share + 1) / split.queries;
    std::vector<Selection> some;
    for (int64_t first = queries.count * share / split.queries; first < last; first += kQueriesAtATime) {
      some.clear();
      for (int64_t q = first; q < std::min(first + kQueriesAtATime, last); ++q) {
        some.push_back({nullptr, 0, 0, 0, threshold, static_cast<int32_t>(q)});
      }
      scan_part(kernels, database, part_start(database.count, part, parts_),
                part_start(database.count, part + 1, parts_),
                {words.get(), database.num_words(), some.data(), static_cast<int64_t>(some.size())});
      for (const Selection& selection : some) {
        selections_[static_cast<size_t>(selection.query * parts_ + part)] = selection;
      }
    }
  });
  for (int64_t q = 0; q < queries.count; ++q) {
    int64_t total = offsets_.back();
    for (int64_t p = 0; p < parts_; ++p) total += selections_[static_cast<size_t>(q * parts_ + p)].count;
    offsets_.push_back(total);
  }
}

RangeSearch::~RangeSearch() {
  for (const Selection& selection : selections_) std::free(selection.keys);
}

void RangeSearch::write(const int64_t* ids, int32_t* distances, int64_t* indices) const {
  const auto count = static_cast<int64_t>(offsets_.size()) - 1;
  const int64_t tasks = std::max<int64_t>(1, std::min({threads_.count, count, offsets_.back() / kRankedCodes}));
  threads_.run(tasks, [&](int64_t task) {
    std::vector<int64_t> starts(static_cast<size_t>(num_distances_ + 1));
    for (int64_t q = count * task / tasks; q < count * (task + 1) / tasks; ++q) {
      std::fill(starts.begin(), starts.end(), 0);
      starts[0] = offsets_[static_cast<size_t>(q)];
      const Selection* parts = selections_.data() + q * parts_;
      for (int64_t p = 0; p < parts_; ++p) {
        for (int64_t i = 0; i < parts[p].count; ++i) ++starts[static_cast<size_t>(distance_of(parts[p].keys[i]) + 1)];
      }
      for (int d = 0; d < num_distances_; ++d) starts[static_cast<size_t>(d + 1)] += starts[static_cast<size_t>(d)];
      for (int64_t p = 0; p < parts_; ++p) {
        for (int64_t i = 0; i < parts[p].count; ++i) {
          const uint64_t key = parts[p].keys[i];
          const int64_t place = starts[static_cast<size_t>(distance_of(key))]++;
          distances[place] = static_cast<int32_t>(distance_of(key));
          indices[place] = ids == nullptr ? index_of(key) : ids[index_of(key)];
        }
      }
    }
  });
}

}  // namespace adsq::cpu
