// What the measures of hamming_ranking.h share: some queries, their passes over the database, and counters of
// distances.
#pragma once
#include <algorithm>
#include <utility>
#include <vector>

#include "cpu/hamming_ranking.h"
#include "cpu/hamming_sliced.h"

namespace adsq::cpu {

// Queries that pass over the database together: enough to share the reading, few enough that their counters stay
// cached.
constexpr int64_t kBatch = 64, kCounters = 1 << 13;
constexpr int64_t kSmallWork = 1 << 16;  // pairs below which a second thread costs more than it brings

// Equal distances follow each other often, and counting one waits for the counter of the last. So the database is read
// at several places at once, each with its own counters.
constexpr int kStretches = 4;

// Codes of a block, at most, and from one stretch's numbers to the next one's: known to the compiler, so that the
// addresses of all stretches take one register. Not a power of two, since stores would seem to meet later loads.
constexpr int64_t kStretchCodes = 4096 / kStretches, kStride = kStretchCodes + 32;

struct Input {
  const ScanKernels& kernels;
  const Codes& queries;
  const Codes& database;
  const Labels& query_labels;
  const Labels& database_labels;
  const uint64_t* words;  // of the queries
  const int32_t* counts;  // how often each code of the database is there; null: once

  const uint64_t* label(int64_t query) const { return query_labels.words + query * query_labels.num_words; }
};

// What one query meets in one block: the distances of its codes, and the places of the relevant ones.
struct Stretch {
  const uint16_t* distances;  // those of the next stretch lie kStride further on
  int64_t count;
  const uint16_t* relevant;
  int64_t num_relevant;
  const int32_t* counts;  // how often each code is there; null: once

  int64_t times(int64_t code) const { return counts == nullptr ? 1 : counts[code]; }
};

// Some queries, those with equal labels next to each other, and one pass over the database for all of them.
class Batch {
 public:
  Batch(const Input& input, const int64_t* queries, int64_t count)
      : input_(input),
        queries_(queries),
        count_(count),
        block_size_(
            std::max<int64_t>(64, std::min(kStretchCodes, direct_block_size(input.database.num_words()) / kStretches))),
        distances_(aligned_array<uint16_t>(static_cast<size_t>(kStretches * kStride))),
        relevant_(aligned_array<uint16_t>(static_cast<size_t>(kStretches * kStride))) {}

  // Calls visit(i, stretches) for the i-th query and the next block of each of kStretches parts of the database.
  template <class Visit>
  void scan(Visit visit) {
    const int64_t num_codes = input_.database.count;
    const int num_words = input_.database.num_words();
    std::vector<BlockReader> readers;
    for (int s = 0; s < kStretches; ++s) {
      readers.emplace_back(input_.kernels, input_.database, part_start(num_codes, s, kStretches),
                           part_start(num_codes, s + 1, kStretches), block_size_);
    }
    Block blocks[kStretches];
    Stretch stretches[kStretches];
    for (;;) {
      bool more = false;
      for (int s = 0; s < kStretches; ++s) more |= readers[static_cast<size_t>(s)].next(blocks[s]);
      if (!more) return;
      for (int64_t i = 0; i < count_; ++i) {
        const bool new_labels = i == 0 || !same_labels(queries_[i], queries_[i - 1]);
        for (int s = 0; s < kStretches; ++s) {
          uint16_t *distances = distances_.get() + s * kStride, *relevant = relevant_.get() + s * kStride;
          const int64_t found =
              new_labels ? find_relevant(queries_[i], blocks[s], relevant) : stretches[s].num_relevant;
          input_.kernels.distances(blocks[s], input_.words + queries_[i] * num_words, num_words, distances);
          const int32_t* counts = input_.counts == nullptr ? nullptr : input_.counts + blocks[s].first;
          stretches[s] = {distances, blocks[s].count, relevant, found, counts};
        }
        visit(i, stretches);
      }
    }
  }

  // Calls visit(i, s, block, relevant codes, scratch) for the i-th query and each sliced block of stretch s, where the
  // kernel `slice` has left the block in scratch.
  template <class Visit>
  void scan_sliced(Visit visit) {
    const int64_t num_codes = input_.database.count, width = input_.database.width;
    const auto scratch = aligned_array<char>(input_.kernels.places_scratch_size(width));
    for (int s = 0; s < kStretches; ++s) {
      BlockReader reader(input_.kernels, input_.database, part_start(num_codes, s, kStretches),
                         part_start(num_codes, s + 1, kStretches), input_.kernels.lanes);
      for (Block block; reader.next(block);) {
        input_.kernels.slice(block, width, scratch.get());
        Chosen relevant{relevant_.get(), 0};
        for (int64_t i = 0; i < count_; ++i) {
          if (i == 0 || !same_labels(queries_[i], queries_[i - 1]))
            relevant.count = find_relevant(queries_[i], block, relevant_.get());
          visit(i, s, block, relevant, scratch.get());
        }
      }
    }
  }

  // Whether counting by bit planes pays (measured), and can be done: it counts with 32 bits, each code once.
  bool is_sliced() const {
    constexpr int64_t kLeastQueries = 16;
    return count_ >= kLeastQueries && input_.database.width <= kMaxCountedWidth && input_.counts == nullptr &&
           input_.database.count < UINT32_MAX;
  }

  // Words of the i-th query.
  const uint64_t* words(int64_t i) const { return input_.words + queries_[i] * input_.database.num_words(); }
  const Input& input() const { return input_; }

 private:
  bool same_labels(int64_t a, int64_t b) const {
    return std::equal(input_.label(a), input_.label(a) + input_.query_labels.num_words, input_.label(b));
  }

  int64_t find_relevant(int64_t query, const Block& block, uint16_t* places) const {
    const Labels& labels = input_.database_labels;
    const uint64_t *wanted = input_.label(query), *label = labels.words + block.first * labels.num_words;
    int64_t found = 0;
    for (int64_t i = 0; i < block.count; ++i, label += labels.num_words) {
      places[found] = static_cast<uint16_t>(i);
      found += labels.are_ids ? *label == *wanted : share_a_bit(label, wanted, labels.num_words);
    }
    return found;
  }

  static bool share_a_bit(const uint64_t* a, const uint64_t* b, int64_t count) {
    uint64_t common = 0;
    for (int64_t w = 0; w < count; ++w) common |= a[w] & b[w];
    return common != 0;
  }

  const Input& input_;
  const int64_t* queries_;
  const int64_t count_, block_size_;
  Aligned<uint16_t> distances_, relevant_;  // [stretch][code]
};

// Calls visit(s, i, distance) for each code i of each stretch s, a code of every stretch in turn.
template <class Visit>
inline void for_codes(const Stretch* stretches, Visit visit) {
  const uint16_t* distances = stretches[0].distances;
  int64_t common = stretches[0].count;
  for (int s = 1; s < kStretches; ++s) common = std::min(common, stretches[s].count);
  for (int64_t i = 0; i < common; ++i) {
    for (int s = 0; s < kStretches; ++s) visit(s, i, distances[s * kStride + i]);
  }
  for (int s = 0; s < kStretches; ++s) {
    for (int64_t i = common; i < stretches[s].count; ++i) visit(s, i, distances[s * kStride + i]);
  }
}

// Where the counter of a stretch is among those of a query.
constexpr int64_t counter_at(int s, int64_t distance) { return distance * kStretches + s; }

// Counters of all and of the relevant codes at each distance, for each query of a batch and each stretch.
class Counters {
 public:
  Counters(int64_t queries, int64_t num_distances)
      : num_distances_(num_distances),
        all_(static_cast<size_t>(queries * kStretches * num_distances)),
        relevant_(all_.size()) {}

  int64_t* all(int64_t query) { return all_.data() + query * kStretches * num_distances_; }
  int64_t* relevant(int64_t query) { return relevant_.data() + query * kStretches * num_distances_; }

  void count(Batch& batch) {
    if (batch.is_sliced()) {
      const auto places = aligned_array<uint64_t>(static_cast<size_t>(batch.input().kernels.lanes));
      count_by_planes(batch, [&](int64_t, int, int64_t) { return places.get(); });
    } else {
      batch.scan([this](int64_t i, const Stretch* stretches) { count(i, stretches); });
    }
  }

  // The same by bit planes; writes what the kernel `places` does to places_of(i, s, how many), for the i-th query and
  // the relevant codes of each block of stretch s.
  template <class PlacesOf>
  void count_by_planes(Batch& batch, PlacesOf places_of) {
    const ScanKernels& kernels = batch.input().kernels;
    const int width = sliced_width(batch.input().database.width), size = sliced_record_size(width);
    const auto num_queries = static_cast<int64_t>(all_.size()) / (kStretches * num_distances_);
    std::vector<uint8_t> records(static_cast<size_t>(num_queries * size));
    for (int64_t i = 0; i < num_queries; ++i) make_record(batch.words(i), width, records.data() + i * size);
    const int64_t row = 8 * width + 8;  // so many numbers may be touched
    std::vector<uint32_t> counts(static_cast<size_t>(num_queries * kStretches * row)), found(counts.size());
    batch.scan_sliced([&](int64_t i, int s, const Block& block, const Chosen& relevant, void* scratch) {
      const int64_t own = (i * kStretches + s) * row;
      kernels.places(block, records.data() + i * size, batch.words(i), width, relevant,
                     {counts.data() + own, found.data() + own}, places_of(i, s, relevant.count), scratch);
    });
    for (int64_t i = 0; i < num_queries * kStretches; ++i) {
      const int64_t query = i / kStretches, s = i % kStretches;
      set(all(query) + s, counts.data() + i * row);
      set(relevant(query) + s, found.data() + i * row);
    }
  }

  // Sets the counters of a stretch, of which `first` is that of distance 0.
  void set(int64_t* first, const uint32_t* counts) const {
    for (int64_t d = 0; d < num_distances_; ++d) first[counter_at(0, d)] = counts[d];
  }

  void count(int64_t query, const Stretch* stretches) {
    int64_t *counts = all(query), *found = relevant(query);
    if (stretches[0].counts == nullptr) {
      for_codes(stretches, [counts](int s, int64_t, uint16_t distance) { ++counts[counter_at(s, distance)]; });
    } else {
      for_codes(stretches, [counts, stretches](int s, int64_t i, uint16_t distance) {
        counts[counter_at(s, distance)] += stretches[s].counts[i];
      });
    }
    for (int s = 0; s < kStretches; ++s) {
      const Stretch& stretch = stretches[s];
      for (int64_t r = 0; r < stretch.num_relevant; ++r) {
        found[counter_at(s, stretch.distances[stretch.relevant[r]])] += stretch.times(stretch.relevant[r]);
      }
    }
  }

  // Adds up the stretches: num_distances numbers each.
  void sum(int64_t query, int64_t* total, int64_t* total_relevant) {
    for (int64_t d = 0; d < num_distances_; ++d) {
      total[d] = total_relevant[d] = 0;
      for (int s = 0; s < kStretches; ++s) {
        total[d] += all(query)[counter_at(s, d)];
        total_relevant[d] += relevant(query)[counter_at(s, d)];
      }
    }
  }

  // Turns counts into how many codes rank before the first one of each stretch at each distance.
  void rank(int64_t query) {
    int64_t before = 0, relevant_before = 0;
    for (int64_t d = 0; d < num_distances_; ++d) {
      for (int s = 0; s < kStretches; ++s) {
        before += std::exchange(all(query)[counter_at(s, d)], before);
        relevant_before += std::exchange(relevant(query)[counter_at(s, d)], relevant_before);
      }
    }
  }

 private:
  const int64_t num_distances_;
  std::vector<int64_t> all_, relevant_;  // [query][distance][stretch]
};

// Runs task(batch, numbers of its queries, how many, number of the thread's task) for all queries, up to `largest` in a
// batch, threads side by side.
template <class Task>
void for_batches(const Input& input, const Threads& threads, int64_t largest, int64_t num_distances, Task task) {
  const int64_t count = input.queries.count, width = input.query_labels.num_words;
  std::vector<int64_t> order(static_cast<size_t>(count));
  for (int64_t q = 0; q < count; ++q) order[static_cast<size_t>(q)] = q;
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return std::lexicographical_compare(input.label(a), input.label(a) + width, input.label(b), input.label(b) + width);
  });
  const int64_t size = std::max<int64_t>(1, std::min(largest, std::max<int64_t>(8, kCounters / num_distances)));
  const int64_t work = count * input.database.count;
  const int64_t tasks = std::min({threads.count, count, 1 + work / kSmallWork});
  threads.run(tasks, [&](int64_t t) {
    const int64_t last = count * (t + 1) / tasks;
    for (int64_t first = count * t / tasks; first < last; first += size) {
      const int64_t* queries = order.data() + first;
      Batch batch(input, queries, std::min(size, last - first));
      task(batch, queries, std::min(size, last - first), t);
    }
  });
}

}  // namespace adsq::cpu
