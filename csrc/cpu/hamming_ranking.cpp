#include "cpu/hamming_ranking.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "cpu/hamming_batch.h"
#include "cpu/hamming_ranking_items.h"
#include "precision.h"

namespace adsq::cpu {
namespace {

constexpr int64_t kRecordBytes = 64 << 20;  // for the relevant codes of a batch, if all codes are relevant

// The relevant codes of each query in the order of the database, each with its place among the codes at its distance.
// How many codes lie at smaller distances is known at the end, and so is then the rank.
class RelevantCodes {
 public:
  // `memory` has room for queries x num_codes records, of which the relevant ones are touched.
  RelevantCodes(Batch& batch, int64_t queries, int64_t num_codes, int64_t num_distances, uint64_t* memory)
      : counters_(queries, num_distances) {
    for (int64_t i = 0; i < queries; ++i) {
      for (int s = 0; s < kStretches; ++s) {
        records_.push_back({memory + i * num_codes + part_start(num_codes, s, kStretches), 0});
      }
    }
    if (batch.is_sliced()) {
      counters_.count_by_planes(batch, [this](int64_t i, int s, int64_t count) { return take(i, s, count); });
    } else {
      find_one_by_one(batch, num_distances);
    }
    for (int64_t i = 0; i < queries; ++i) counters_.rank(i);
  }

  int64_t count(int64_t query) const {
    int64_t count = 0;
    for (int s = 0; s < kStretches; ++s) count += records(query, s).count;
    return count;
  }

  // The sum of the precisions at the ranks of the relevant codes up to k. Call it once.
  double precision_sum(int64_t query, int64_t k) {
    double sums[kStretches] = {}, hits[kStretches], ranks[kStretches];
    const uint64_t* first[kStretches];
    int64_t common = records(query, 0).count;
    for (int s = 0; s < kStretches; ++s) {
      first[s] = records(query, s).first;
      common = std::min(common, records(query, s).count);
    }
    const int64_t* before = counters_.all(query);
    int64_t* hits_before = counters_.relevant(query);
    const auto look_up = [&](int s, int64_t r) {
      const uint64_t record = first[s][r];
      const int64_t counter = counter_at(s, static_cast<int64_t>(record >> kIndexBits));
      const int64_t rank = before[counter] + static_cast<int64_t>(record & kIndexMask), hit = ++hits_before[counter];
      hits[s] = static_cast<double>(rank <= k ? hit : 0);
      ranks[s] = static_cast<double>(rank);
    };
    // A code of each stretch in turn: a sum, or a counter, waits for what was added last. Of two precisions
    // the sum takes a single division.
    for (int64_t r = 0; r < common; ++r) {
      for (int s = 0; s < kStretches; ++s) look_up(s, r);
      for (int s = 0; s < kStretches; s += 2) {
        sums[s] += (hits[s] * ranks[s + 1] + hits[s + 1] * ranks[s]) / (ranks[s] * ranks[s + 1]);
      }
    }
    for (int s = 0; s < kStretches; ++s) {
      for (int64_t r = common; r < records(query, s).count; ++r) {
        look_up(s, r);
        sums[s] += hits[s] / ranks[s];
      }
    }
    return std::accumulate(sums, sums + kStretches, 0.0);
  }

 private:
  // distance << kIndexBits | place, from 1
  struct Records {
    uint64_t* first;
    int64_t count;
  };
  const Records& records(int64_t query, int s) const { return records_[static_cast<size_t>(query * kStretches + s)]; }

  void find_one_by_one(Batch& batch, int64_t num_distances) {
    // Of 32 bits, so that places stay in the L1 cache with all else; each stretch's own, so that a counter's address
    // takes no computing.
    const auto places = aligned_array<uint32_t>(static_cast<size_t>(kStretches * kStride));
    std::vector<uint32_t> all(records_.size() * static_cast<size_t>(num_distances));
    batch.scan([&](int64_t i, const Stretch* stretches) {
      uint32_t *place = places.get(), *counts[kStretches];
      for (int s = 0; s < kStretches; ++s) counts[s] = all.data() + (i * kStretches + s) * num_distances;
      int64_t* hits = counters_.relevant(i);
      for_codes(stretches, [&](int s, int64_t c, uint16_t d) { place[s * kStride + c] = ++counts[s][d]; });
      for (int s = 0; s < kStretches; ++s) {
        const uint16_t *relevant = stretches[s].relevant, *distances = stretches[s].distances;
        const int64_t count = stretches[s].num_relevant;
        uint64_t* record = take(i, s, count);
        for (int64_t r = 0; r < count; ++r) {
          const uint16_t code = relevant[r];
          record[r] = uint64_t{distances[code]} << kIndexBits | place[s * kStride + code];
          ++hits[counter_at(s, distances[code])];
        }
      }
    });
    for (int64_t i = 0; i < static_cast<int64_t>(records_.size()); ++i) {
      counters_.set(counters_.all(i / kStretches) + i % kStretches, all.data() + i * num_distances);
    }
  }

  // Room for so many more records.
  uint64_t* take(int64_t query, int s, int64_t count) {
    Records& records = records_[static_cast<size_t>(query * kStretches + s)];
    return records.first + std::exchange(records.count, records.count + count);
  }

  Counters counters_;
  std::vector<Records> records_;  // [query][stretch]
};

}  // namespace

void hamming_relevance_histogram(const Codes& queries, const Codes& database, const Labels& query_labels,
                                 const Labels& database_labels, int64_t num_bits, int64_t* total, int64_t* relevant,
                                 const Threads& threads) {
  const ScanKernels& kernels = scan_kernels();
  const DistinctItems some(queries, query_labels, kRepeatedQueries);
  const DistinctItems all(database, database_labels, repeated_items(some.codes().count));
  Codes used_queries = some.codes(), used_database = all.codes();
  used_queries.num_bits = used_database.num_bits = num_bits;
  const auto words = query_words(kernels, used_queries);
  const int64_t num_distances = num_bits + 1;
  const Input input{kernels, used_queries, used_database, some.labels(), all.labels(), words.get(), all.counts()};
  for_batches(input, threads, kBatch, num_distances, [&](Batch& batch, const int64_t* numbers, int64_t size, int64_t) {
    Counters counters(size, num_distances);
    counters.count(batch);
    for (int64_t i = 0; i < size; ++i) {
      const int64_t start = some.first(numbers[i]) * num_distances;
      counters.sum(i, total + start, relevant + start);
    }
  });
  some.repeat(total, num_distances);
  some.repeat(relevant, num_distances);
}

void hamming_average_precision(const Codes& queries, const Codes& database, const Labels& query_labels,
                               const Labels& database_labels, int64_t k, bool expected, double* average_precision,
                               int64_t* num_relevant, const Threads& threads) {
  const ScanKernels& kernels = scan_kernels();
  const DistinctItems some(queries, query_labels, kRepeatedQueries);
  const DistinctItems all(database, database_labels, expected ? repeated_items(some.codes().count) : 0);
  const auto words = query_words(kernels, some.codes());
  const int64_t num_distances = 8 * database.width + 1;
  const Input input{kernels, some.codes(), all.codes(), some.labels(), all.labels(), words.get(), all.counts()};
  const auto write = [&](int64_t number, double sum, int64_t relevant) {
    average_precision[some.first(number)] = sum / static_cast<double>(std::max<int64_t>(1, relevant));
    num_relevant[some.first(number)] = relevant;
  };
  if (expected) {
    for_batches(input, threads, kBatch, num_distances,
                [&](Batch& batch, const int64_t* numbers, int64_t size, int64_t) {
                  Counters counters(size, num_distances);
                  counters.count(batch);
                  std::vector<int64_t> total(static_cast<size_t>(num_distances)), relevant(total.size());
                  for (int64_t i = 0; i < size; ++i) {
                    counters.sum(i, total.data(), relevant.data());
                    write(numbers[i], expected_precision_sum(total.data(), relevant.data(), num_distances, k),
                          std::accumulate(relevant.begin(), relevant.end(), int64_t{0}));
                  }
                });
  } else {
    if (database.count / kStretches >= UINT32_MAX)
      throw std::invalid_argument("database: expected fewer than 2^33 codes");
    const int64_t fit = kRecordBytes / static_cast<int64_t>(sizeof(uint64_t)) / std::max<int64_t>(1, database.count);
    const int64_t size = std::max<int64_t>(1, std::min(fit, kBatch));
    // Memory that is kept from one batch to the next.
    std::vector<Aligned<uint64_t>> memory(static_cast<size_t>(threads.count));
    for_batches(input, threads, size, num_distances,
                [&](Batch& batch, const int64_t* numbers, int64_t count, int64_t task) {
                  auto& own = memory[static_cast<size_t>(task)];
                  if (own == nullptr) own = aligned_array<uint64_t>(static_cast<size_t>(size * database.count));
                  RelevantCodes relevant(batch, count, database.count, num_distances, own.get());
                  for (int64_t i = 0; i < count; ++i) {
                    write(numbers[i], relevant.precision_sum(i, k), relevant.count(i));
                  }
                });
  }
  some.repeat(average_precision, 1);
  some.repeat(num_relevant, 1);
}

}  // namespace adsq::cpu
