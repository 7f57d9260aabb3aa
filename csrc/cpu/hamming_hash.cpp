#include "cpu/hamming_hash.h"

#include <algorithm>
#include <utility>

#include "cpu/distinct_expand.h"
#include "cpu/distinct_queries.h"
#include "cpu/hamming_hash_call.h"
#include "cpu/hamming_hash_costs.h"
#include "cpu/hamming_hash_query.h"

namespace adsq::cpu {

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
  HashCall call(distinct, database, tables, k, threads);
  const std::vector<int64_t> rest = call.try_tables(force, used, search);
  const auto count = static_cast<int64_t>(rest.size());
  if (count == distinct.codes.count) {
    call.scan(count, [&] { return distinct_topk(queries, database, k, distances, ids, threads), 0; });
    return call.settle(0);
  }
  if (!rest.empty()) {
    const std::vector<uint8_t> rows = gathered(distinct.codes, rest);
    std::vector<int32_t> near(static_cast<size_t>(count * k));
    std::vector<int64_t> found(near.size());
    const Codes some{rows.data(), count, queries.width};
    call.scan(count, [&] { return distinct_topk(some, database, k, near.data(), found.data(), threads), 0; });
    for (int64_t i = 0; i < count; ++i) {
      const int64_t q = places[static_cast<size_t>(rest[static_cast<size_t>(i)])];
      std::copy_n(near.data() + i * k, k, distances + q * k);
      std::copy_n(found.data() + i * k, k, ids + q * k);
    }
  }
  call.settle(0);
  distinct.spread(k, distances, ids);
}

std::vector<HashPlan> hash_plans(const Codes& queries, const DistinctCodes& database, const HashTables& tables,
                                 int64_t k, int64_t threads) {
  const auto words = query_words(scan_kernels(), queries);
  const HashLearned learned(tables.learned, queries.count);
  const HashCosts costs(database, tables.rates, learned, k, queries.count, threads);
  const HashCosts shared = costs.shared_by(learned.rest(queries.count));
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
  const double scan = costs.scan_of(std::max<int64_t>(1, static_cast<int64_t>(rest.size())));
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
  HashCall call(distinct, database, tables, 0, threads);
  const std::vector<int64_t> rest = call.try_tables(force, used, search);
  const auto count = static_cast<int64_t>(rest.size());
  const std::vector<uint8_t> rows = gathered(distinct.codes, rest);
  std::vector<int64_t> ends, codes;
  std::vector<int32_t> distances;
  if (count > 0) {
    call.scan(count, [&] {
      const RangeSearch found({rows.data(), count, queries.width}, database.codes, radius, threads);
      ends = found.offsets();
      distances.resize(static_cast<size_t>(ends.back()));
      codes.resize(distances.size());
      found.write(nullptr, distances.data(), codes.data());
      return ends.back();
    });
  }
  auto num_found = static_cast<int64_t>(codes.size());
  for (const auto& some : keys) num_found += static_cast<int64_t>(some.size());
  call.settle(num_found);
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
