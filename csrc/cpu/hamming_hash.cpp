#include "cpu/hamming_hash.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "cpu/distinct_expand.h"
#include "cpu/hamming_hash_query.h"

namespace adsq::cpu {
namespace {

constexpr int kMinBits = 4, kMaxPartBits = 22;
constexpr int64_t kQueriesATask = 8;

// Calls task(first, last) for shares of the queries. What it throws is thrown when all threads are done.
template <class Task>
void share_queries(int64_t count, const Threads& threads, Task task) {
  const int64_t tasks = std::max<int64_t>(1, std::min(threads.count, count / kQueriesATask));
  std::vector<std::string> errors(static_cast<size_t>(tasks));
  threads.run(tasks, [&](int64_t t) {
    try {
      task(count * t / tasks, count * (t + 1) / tasks);
    } catch (const std::out_of_range& error) {
      errors[static_cast<size_t>(t)] = error.what();
    }
  });
  for (const std::string& error : errors) {
    if (!error.empty()) throw std::out_of_range(error);
  }
}

// Some of the queries, copied.
struct Gathered {
  std::vector<uint8_t> rows;
  std::vector<int64_t> numbers;
  Codes codes;

  Gathered(const Codes& queries, const uint8_t* used) : codes(queries) {
    for (int64_t q = 0; q < queries.count; ++q) {
      if (used[q] == 1) continue;
      const uint8_t* row = queries.rows + q * queries.width;
      rows.insert(rows.end(), row, row + queries.width);
      numbers.push_back(q);
    }
    codes.rows = rows.data();
    codes.count = static_cast<int64_t>(numbers.size());
  }
};

void scan_topk(const Codes& queries, const DistinctCodes& database, int64_t k, int32_t* distances, int64_t* ids,
               const Threads& threads) {
  if (database.offsets == nullptr)
    return hamming_topk(queries, database.codes, k, database.ids, distances, ids, threads);
  distinct_topk(queries, database, k, distances, ids, threads);
}

// Writes the first `limit` rows of codes found, and returns how many there are.
int64_t write_rows(const DistinctCodes& database, const std::vector<uint64_t>& keys, int64_t limit, Expander& expander,
                   int32_t* distances, int64_t* ids) {
  const auto count = static_cast<int64_t>(keys.size());
  if (database.offsets == nullptr) {
    const int64_t written = std::min(count, limit);
    for (int64_t i = 0; i < written; ++i) {
      const int64_t code = index_of(keys[static_cast<size_t>(i)]);
      distances[i] = static_cast<int32_t>(distance_of(keys[static_cast<size_t>(i)]));
      ids[i] = database.ids == nullptr ? code : database.ids[code];
    }
    return written;
  }
  std::vector<int32_t> near;
  std::vector<int64_t> codes;
  for (const uint64_t key : keys) {
    near.push_back(static_cast<int32_t>(distance_of(key)));
    codes.push_back(index_of(key));
  }
  return expander.expand({near.data(), codes.data(), count, false}, limit, distances, ids);
}

}  // namespace

HashLayout::HashLayout(int64_t width, int64_t count) {
  const auto all = static_cast<int>(8 * width);
  const double wanted = std::log2(static_cast<double>(std::max<int64_t>(2, count)));
  const double bits = std::clamp<double>(wanted, kMinBits, kMaxPartBits);
  num_tables = std::clamp(static_cast<int>(std::ceil(all / bits)), 1, kMaxTables);
  if (all > num_tables * kMaxPartBits) throw std::invalid_argument("codes: too long for hash tables");
  for (int j = 0; j <= num_tables; ++j) starts[j] = all * j / num_tables;
}

int64_t HashLayout::first_offset(int table) const {
  int64_t first = 0;
  for (int j = 0; j < table; ++j) first += (int64_t{1} << bits(j)) + 1;
  return first;
}

void make_hash_tables(const Codes& codes, const HashLayout& layout, int32_t* offsets, int32_t* positions,
                      uint8_t* rows) {
  std::vector<int32_t> parts(static_cast<size_t>(codes.count));
  uint64_t words[kMaxWords];
  for (int j = 0; j < layout.num_tables; ++j) {
    for (int64_t i = 0; i < codes.count; ++i) {
      words[codes.num_words() - 1] = 0;
      std::memcpy(words, codes.rows + i * codes.width, static_cast<size_t>(codes.width));
      parts[static_cast<size_t>(i)] = static_cast<int32_t>(part_of(words, layout, j));
    }
    int32_t* own = positions + j * codes.count;
    list_rows(parts.data(), codes.count, int64_t{1} << layout.bits(j), offsets + layout.first_offset(j), own);
    uint8_t* row = rows + j * codes.count * codes.width;
    for (int64_t i = 0; i < codes.count; ++i, row += codes.width) {
      std::memcpy(row, codes.rows + own[i] * codes.width, static_cast<size_t>(codes.width));
    }
  }
}

void hash_topk(const Codes& queries, const DistinctCodes& database, const HashTables& tables, int64_t k, bool force,
               int32_t* distances, int64_t* ids, uint8_t* used, const Threads& threads) {
  const auto words = query_words(scan_kernels(), queries);
  share_queries(queries.count, threads, [&](int64_t first, int64_t last) {
    HashQuery search(database, tables, queries.count);
    Expander expander(database);
    for (int64_t q = first; q < last; ++q) {
      if (q + 1 < last) search.prefetch(words.get() + (q + 1) * queries.num_words());
      const bool done = search.nearest(words.get() + q * queries.num_words(), k, force);
      used[q] = done ? 1 : search.began() ? 2 : 0;
      if (!done) continue;
      const int64_t written = write_rows(database, search.found(), k, expander, distances + q * k, ids + q * k);
      std::fill(distances + q * k + written, distances + (q + 1) * k, kNoDistance);
      std::fill(ids + q * k + written, ids + (q + 1) * k, kNoIndex);
    }
  });
  const Gathered rest(queries, used);
  if (rest.codes.count == queries.count) return scan_topk(queries, database, k, distances, ids, threads);
  std::vector<int32_t> near(static_cast<size_t>(rest.codes.count * k));
  std::vector<int64_t> found(near.size());
  if (near.empty()) return;
  scan_topk(rest.codes, database, k, near.data(), found.data(), threads);
  for (int64_t i = 0; i < rest.codes.count; ++i) {
    const int64_t q = rest.numbers[static_cast<size_t>(i)];
    std::copy_n(near.data() + i * k, k, distances + q * k);
    std::copy_n(found.data() + i * k, k, ids + q * k);
  }
}

std::vector<HashPlan> hash_plans(const Codes& queries, const DistinctCodes& database, const HashTables& tables,
                                 int64_t k) {
  const auto words = query_words(scan_kernels(), queries);
  HashQuery search(database, tables, queries.count);
  std::vector<HashPlan> plans;
  for (int64_t q = 0; q < queries.count; ++q) plans.push_back(search.plan(words.get() + q * queries.num_words(), k));
  return plans;
}

HashRange::HashRange(const Codes& queries, const DistinctCodes& database, const HashTables& tables, int64_t radius,
                     bool force, uint8_t* used, const Threads& threads)
    : database_(database), keys_(static_cast<size_t>(queries.count)), offsets_(1, 0) {
  const auto words = query_words(scan_kernels(), queries);
  const auto most = static_cast<int32_t>(std::min(radius, 8 * queries.width));
  share_queries(queries.count, threads, [&](int64_t first, int64_t last) {
    HashQuery search(database, tables, queries.count);
    for (int64_t q = first; q < last; ++q) {
      if (q + 1 < last) search.prefetch(words.get() + (q + 1) * queries.num_words());
      const bool done = search.within(words.get() + q * queries.num_words(), most, force);
      used[q] = done ? 1 : search.began() ? 2 : 0;
      if (done) keys_[static_cast<size_t>(q)] = search.found();
    }
  });
  const Gathered rest(queries, used);
  if (rest.codes.count > 0) {
    const RangeSearch search(rest.codes, database.codes, radius, threads);
    const auto total = static_cast<size_t>(search.offsets().back());
    std::vector<int32_t> distances(total);
    std::vector<int64_t> codes(total);
    search.write(nullptr, distances.data(), codes.data());
    for (size_t i = 0; i < rest.numbers.size(); ++i) {
      auto& keys = keys_[static_cast<size_t>(rest.numbers[i])];
      for (auto j = static_cast<size_t>(search.offsets()[i]); j < static_cast<size_t>(search.offsets()[i + 1]); ++j) {
        keys.push_back(static_cast<uint64_t>(distances[j]) << kIndexBits | static_cast<uint64_t>(codes[j]));
      }
    }
  }
  for (const auto& keys : keys_) {
    int64_t total = offsets_.back();
    for (const uint64_t key : keys) {
      total += database.offsets == nullptr ? 1 : Expander::count(database, index_of(key));
    }
    offsets_.push_back(total);
  }
}

void HashRange::write(int32_t* distances, int64_t* ids) const {
  Expander expander(database_);
  for (size_t q = 0; q < keys_.size(); ++q) {
    write_rows(database_, keys_[q], offsets_[q + 1] - offsets_[q], expander, distances + offsets_[q],
               ids + offsets_[q]);
  }
}

}  // namespace adsq::cpu
