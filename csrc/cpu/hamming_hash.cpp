#include "cpu/hamming_hash.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>

#include "cpu/distinct_expand.h"
#include "cpu/distinct_queries.h"
#include "cpu/hamming_hash_costs.h"
#include "cpu/hamming_hash_query.h"

namespace adsq::cpu {
namespace {

constexpr int kMinBits = 4;
constexpr int64_t kLeastSample = 256, kMostSample = 1 << 15, kSampleShare = 128;

// Calls task(first, last) for shares of the queries. What it throws is thrown when all threads are done.
template <class Task>
void share_queries(int64_t count, const Threads& threads, Task task) {
  const int64_t tasks = table_tasks(count, threads.count);
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

// Whether to try the tables again: as long as what the searches that were given up have taken is less than what the
// others have saved, or little beside scanning all. Then seldom, as queries may change.
class Trials {
 public:
  Trials(bool force, int64_t num_queries, const HashCosts& costs)
      : force_(force), scan_(costs.scan), most_(costs.scan * (1 + kMostLost * static_cast<double>(num_queries))) {}
  bool next() { return force_ || lost_ <= most_ || ++left_out_ % kSeldom == 0; }
  void add(bool kept, double spent) {
    const double lost = kept ? spent - scan_ : spent;
    lost_ += lost > 0 ? lost : kSure * lost;
  }

 private:
  static constexpr double kMostLost = 0.01, kSure = 0.2;  // of what seems saved, for estimates err
  static constexpr int64_t kSeldom = 64;
  const bool force_;
  const double scan_, most_;
  double lost_ = 0;
  int64_t left_out_ = 0;
};

// Moves those queries from `rest` to the result which the tables would cost less than their shares of a scan: the fewer
// queries share one, the more each takes.
std::vector<int64_t> worth_tables(const std::vector<double>& by_tables, const HashCosts& costs,
                                  std::vector<int64_t>& rest) {
  const auto cost = [&](int64_t q) { return by_tables[static_cast<size_t>(q)]; };
  std::stable_sort(rest.begin(), rest.end(), [&](int64_t a, int64_t b) { return cost(a) < cost(b); });
  double sum = 0, least = std::numeric_limits<double>::infinity();
  size_t best = 0;
  for (size_t m = 0; m <= rest.size(); ++m) {
    const auto left = static_cast<int64_t>(rest.size() - m);
    const double all = sum + static_cast<double>(left) * costs.shared_by(left).scan;
    if (all < least) least = all, best = m;
    if (m < rest.size()) sum += cost(rest[m]);
  }
  std::vector<int64_t> worth(rest.begin(), rest.begin() + static_cast<int64_t>(best));
  rest.erase(rest.begin(), rest.begin() + static_cast<int64_t>(best));
  std::sort(worth.begin(), worth.end());
  std::sort(rest.begin(), rest.end());
  return worth;
}

// Searches the queries one after the other, search(number) by the tables, and returns those to be scanned. `used` is of
// all queries, of which queries.codes are the distinct ones. `k` is 0 for a search within a radius.
template <class Search>
std::vector<int64_t> try_tables(const DistinctQueries& queries, const DistinctCodes& database, const HashTables& tables,
                                int64_t k, bool force, uint8_t* used, const Threads& threads, Search search) {
  const Codes& codes = queries.codes;
  const auto words = query_words(scan_kernels(), codes);
  const HashCosts costs(database, tables.rates, k, threads.count);
  std::vector<uint8_t> ways(static_cast<size_t>(codes.count));
  std::vector<double> by_tables(ways.size(), std::numeric_limits<double>::infinity());
  const auto run = [&](const std::vector<int64_t>& some, int64_t scanned) {
    const auto count = static_cast<int64_t>(some.size());
    if (count == 0) return;
    const auto words_of = [&](int64_t i) { return words.get() + some[static_cast<size_t>(i)] * codes.num_words(); };
    const HashCosts shared = costs.shared_by(scanned);
    share_queries(count, threads, [&](int64_t first, int64_t last) {
      HashQuery query(database, tables, shared, k);
      Expander expander(database);
      Trials trials(force, last - first, shared);
      for (int64_t i = first; i < last; ++i) {
        if (!trials.next()) continue;
        if (i + HashQuery::kAhead < last) query.prefetch(words_of(i + HashQuery::kAhead));
        if (i + HashQuery::kRowsAhead < last) query.prefetch_rows(words_of(i + HashQuery::kRowsAhead));
        const auto q = static_cast<size_t>(some[static_cast<size_t>(i)]);
        const bool done = search(query, expander, words_of(i), static_cast<int64_t>(q));
        trials.add(done, query.spent() + (done ? shared.result : 0));
        ways[q] = done ? 1 : query.began() ? 2 : ways[q];
        by_tables[q] = query.cost();
      }
    });
  };
  std::vector<int64_t> all(ways.size()), rest;
  std::iota(all.begin(), all.end(), 0);
  run(all, codes.count);
  const auto not_done = [&](int64_t q) { return ways[static_cast<size_t>(q)] != 1; };
  std::copy_if(all.begin(), all.end(), std::back_inserter(rest), not_done);
  const std::vector<int64_t> worth = worth_tables(by_tables, costs, rest);
  run(worth, static_cast<int64_t>(rest.size()));
  std::copy_if(worth.begin(), worth.end(), std::back_inserter(rest), not_done);
  std::sort(rest.begin(), rest.end());
  for (size_t q = 0; q < queries.numbers.size(); ++q) used[q] = ways[static_cast<size_t>(queries.numbers[q])];
  return rest;
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

int64_t HashLayout::sample_size(int64_t count) {
  return std::min(count, std::clamp(count / kSampleShare, kLeastSample, kMostSample));
}

void make_hash_tables(const DistinctCodes& database, const HashLayout& layout, int32_t* offsets, int32_t* positions,
                      uint8_t* rows, uint8_t* sample) {
  const Codes& codes = database.codes;
  // Codes with many rows first in each bucket: soon as many rows are known as are wanted, and how far they are.
  std::vector<int32_t> order(database.offsets == nullptr ? 0 : static_cast<size_t>(codes.count));
  std::vector<int32_t> parts(static_cast<size_t>(codes.count));
  if (!order.empty()) {
    const auto rows_of = [&](int32_t c) { return Expander::count(database, c); };
    std::iota(order.begin(), order.end(), 0);
    const auto single = std::stable_partition(order.begin(), order.end(), [&](int32_t c) { return rows_of(c) > 1; });
    std::stable_sort(order.begin(), single, [&](int32_t a, int32_t b) { return rows_of(a) > rows_of(b); });
  }
  const auto code = [&](int64_t i) { return order.empty() ? i : order[static_cast<size_t>(i)]; };
  uint64_t words[kMaxWords];
  for (int j = 0; j < layout.num_tables; ++j) {
    for (int64_t i = 0; i < codes.count; ++i) {
      words[codes.num_words() - 1] = 0;
      std::memcpy(words, codes.rows + code(i) * codes.width, static_cast<size_t>(codes.width));
      parts[static_cast<size_t>(i)] = static_cast<int32_t>(part_of(words, layout, j));
    }
    int32_t* own = positions + j * codes.count;
    list_rows(parts.data(), codes.count, int64_t{1} << layout.bits(j), offsets + layout.first_offset(j), own);
    uint8_t* row = rows + j * codes.count * codes.width;
    for (int64_t i = 0; i < codes.count; ++i, row += codes.width) {
      own[i] = static_cast<int32_t>(code(own[i]));
      std::memcpy(row, codes.rows + own[i] * codes.width, static_cast<size_t>(codes.width));
    }
  }
  // At random, since codes may come in any order; one from each of as many stretches.
  std::mt19937_64 random(static_cast<uint64_t>(codes.count));
  const int64_t size = HashLayout::sample_size(codes.count);
  for (int64_t i = 0; i < size; ++i) {
    const int64_t first = codes.count * i / size, room = codes.count * (i + 1) / size - first;
    const int64_t code = first + static_cast<int64_t>(random() % static_cast<uint64_t>(room));
    std::memcpy(sample + i * codes.width, codes.rows + code * codes.width, static_cast<size_t>(codes.width));
  }
}

std::vector<int32_t> frequent_codes(const DistinctCodes& database) {
  std::vector<int32_t> codes;
  if (database.offsets == nullptr) return codes;
  const auto rows = [&](int32_t code) { return Expander::count(database, code); };
  for (int32_t c = 0; c < static_cast<int32_t>(database.codes.count); ++c) {
    if (rows(c) > 1) codes.push_back(c);
  }
  const auto most = static_cast<int64_t>(std::min<size_t>(FrequentCodes::kMost, codes.size()));
  std::partial_sort(codes.begin(), codes.begin() + most, codes.end(),
                    [&](int32_t a, int32_t b) { return rows(a) != rows(b) ? rows(a) > rows(b) : a < b; });
  codes.resize(static_cast<size_t>(most));
  return codes;
}

void hash_topk(const Codes& queries, const DistinctCodes& database, const HashTables& tables, int64_t k, bool force,
               int32_t* distances, int64_t* ids, uint8_t* used, const Threads& threads) {
  const DistinctQueries distinct(queries);
  const std::vector<int64_t>& places = distinct.first;
  const auto search = [&](HashQuery& query, Expander& expander, const uint64_t* words, int64_t q) {
    if (!query.nearest(words, force)) return false;
    const int64_t place = places[static_cast<size_t>(q)] * k;
    const int64_t written = expander.expand(query.found(), k, distances + place, ids + place);
    std::fill(distances + place + written, distances + place + k, kNoDistance);
    std::fill(ids + place + written, ids + place + k, kNoIndex);
    return true;
  };
  const std::vector<int64_t> rest = try_tables(distinct, database, tables, k, force, used, threads, search);
  if (static_cast<int64_t>(rest.size()) == queries.count)
    return distinct_topk(queries, database, k, distances, ids, threads);
  if (!rest.empty()) {
    const std::vector<uint8_t> rows = gathered(distinct.codes, rest);
    const auto count = static_cast<int64_t>(rest.size());
    std::vector<int32_t> near(static_cast<size_t>(count * k));
    std::vector<int64_t> found(near.size());
    distinct_topk({rows.data(), count, queries.width}, database, k, near.data(), found.data(), threads);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t q = places[static_cast<size_t>(rest[static_cast<size_t>(i)])];
      std::copy_n(near.data() + i * k, k, distances + q * k);
      std::copy_n(found.data() + i * k, k, ids + q * k);
    }
  }
  distinct.spread(k, distances, ids);
}

std::vector<HashPlan> hash_plans(const Codes& queries, const DistinctCodes& database, const HashTables& tables,
                                 int64_t k, int64_t threads) {
  const auto words = query_words(scan_kernels(), queries);
  const HashCosts costs(database, tables.rates, k, threads), shared = costs.shared_by(queries.count);
  HashQuery search(database, tables, shared, k);
  std::vector<HashPlan> plans;
  std::vector<double> by_tables;
  std::vector<int64_t> rest;
  for (int64_t q = 0; q < queries.count; ++q) {
    plans.push_back(search.plan(words.get() + q * queries.num_words()));
    by_tables.push_back(search.cost());
    if (!plans.back().hash) rest.push_back(q);
  }
  for (const int64_t q : worth_tables(by_tables, costs, rest)) plans[static_cast<size_t>(q)].hash = true;
  const double scan = costs.shared_by(static_cast<int64_t>(rest.size())).scan;
  for (HashPlan& plan : plans) plan.scan_cost = scan;
  return plans;
}

RangeRows hash_range(const Codes& queries, const DistinctCodes& database, const HashTables& tables, int64_t radius,
                     bool force, uint8_t* used, const Threads& threads) {
  DistinctQueries distinct(queries);
  const auto most = static_cast<int32_t>(std::min(radius, 8 * queries.width));
  std::vector<std::vector<uint64_t>> keys(distinct.first.size());
  const auto search = [&](HashQuery& query, Expander&, const uint64_t* words, int64_t q) {
    const bool done = query.within(words, most, force);
    if (done) keys[static_cast<size_t>(q)] = query.keys();
    return done;
  };
  const std::vector<int64_t> rest = try_tables(distinct, database, tables, 0, force, used, threads, search);
  if (static_cast<int64_t>(rest.size()) == distinct.codes.count) {
    return distinct_range(queries, database, radius, threads);
  }
  const std::vector<uint8_t> rows = gathered(distinct.codes, rest);
  const RangeSearch scan({rows.data(), static_cast<int64_t>(rest.size()), queries.width}, database.codes, radius,
                         threads);
  const std::vector<int64_t>& ends = scan.offsets();
  std::vector<int32_t> distances(static_cast<size_t>(ends.back()));
  std::vector<int64_t> codes(distances.size());
  scan.write(nullptr, distances.data(), codes.data());
  RangeRows result(database, threads);
  for (size_t q = 0, next = 0; q < keys.size(); ++q) {
    if (next < rest.size() && rest[next] == static_cast<int64_t>(q)) {
      const int64_t first = ends[next], last = ends[++next];
      result.distances.insert(result.distances.end(), distances.begin() + first, distances.begin() + last);
      result.codes.insert(result.codes.end(), codes.begin() + first, codes.begin() + last);
    } else {
      for (const uint64_t key : keys[q]) {
        result.distances.push_back(static_cast<int32_t>(distance_of(key)));
        result.codes.push_back(index_of(key));
      }
    }
    result.found_offsets.push_back(static_cast<int64_t>(result.codes.size()));
  }
  result.count(std::move(distinct.numbers));
  return result;
}

}  // namespace adsq::cpu
