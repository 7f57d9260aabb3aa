#include "cpu/hamming_hash_call.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>

#include "cpu/distinct_expand.h"

namespace adsq::cpu {
namespace {

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

constexpr double kMostLost = 0.01;       // of scanning all
constexpr double kSure = 0.9;            // of what seems saved, for estimates err
constexpr double kClose = 0.4;           // of a scan: less is saved where estimates of it err by so much
constexpr double kMostLostAtOnce = 0.3;  // of a scan: whatever disturbs a call is not to count too much

// Whether to try the tables again: as long as what the searches of a call that were given up have taken is less than
// what the others have saved, or little beside scanning all.
class Trials {
 public:
  Trials(bool force, double scan) : force_(force), scan_(scan) {}
  bool next() {
    lost_ -= kMostLost * scan_;
    return force_ || lost_ <= scan_;
  }
  void add(bool kept, double spent) { lost_ += kept ? -kSure * std::max(0.0, scan_ - spent) : spent; }

 private:
  const bool force_;
  const double scan_;
  double lost_ = 0;
};

}  // namespace

std::vector<int64_t> worth_tables(const std::vector<double>& by_tables, const HashCosts& costs,
                                  std::vector<int64_t>& rest) {
  const auto cost = [&](int64_t q) { return by_tables[static_cast<size_t>(q)]; };
  std::stable_sort(rest.begin(), rest.end(), [&](int64_t a, int64_t b) { return cost(a) < cost(b); });
  double sum = 0, least = std::numeric_limits<double>::infinity();
  size_t best = 0;
  for (size_t m = 0; m <= rest.size(); ++m) {
    const auto left = static_cast<int64_t>(rest.size() - m);
    const double all = sum + static_cast<double>(left) * costs.scan_of(left);
    if (all < least) least = all, best = m;
    if (m < rest.size()) sum += cost(rest[m]);
  }
  std::vector<int64_t> worth(rest.begin(), rest.begin() + static_cast<int64_t>(best));
  rest.erase(rest.begin(), rest.begin() + static_cast<int64_t>(best));
  std::sort(worth.begin(), worth.end());
  std::sort(rest.begin(), rest.end());
  return worth;
}

HashCall::HashCall(const DistinctQueries& queries, const DistinctCodes& database, const HashTables& tables, int64_t k,
                   const Threads& threads)
    : queries_(queries),
      database_(database),
      tables_(tables),
      k_(k),
      threads_(threads),
      learned_(tables.learned, queries.codes.count),
      costs_(database, tables.rates, learned_, k, queries.codes.count, threads.count),
      words_(query_words(scan_kernels(), queries.codes)),
      ways_(static_cast<size_t>(queries.codes.count)),
      by_tables_(ways_.size(), std::numeric_limits<double>::infinity()) {}

void HashCall::run(const std::vector<int64_t>& some, int64_t scanned, const Search& search) {
  const auto count = static_cast<int64_t>(some.size());
  if (count == 0) return;
  const int64_t num_words = queries_.codes.num_words();
  const auto words_of = [&](int64_t i) { return words_.get() + some[static_cast<size_t>(i)] * num_words; };
  const HashCosts shared = costs_.shared_by(scanned);
  share_queries(count, threads_, [&](int64_t first, int64_t last) {
    HashQuery query(database_, tables_, shared, k_);
    Expander expander(database_);
    Trials trials(force_, shared.scan);
    double expected = 0;
    bool any = false;
    const auto start = Clock::now();
    for (int64_t i = first; i < std::min(last, first + HashQuery::kRowsAhead); ++i) query.prefetch_rows(words_of(i));
    for (int64_t i = first; i < last; ++i) {
      if (!trials.next()) continue;
      if (i + HashQuery::kAhead < last) query.prefetch(words_of(i + HashQuery::kAhead));
      if (i + HashQuery::kRowsAhead < last) query.prefetch_rows(words_of(i + HashQuery::kRowsAhead));
      const auto q = static_cast<size_t>(some[static_cast<size_t>(i)]);
      const bool done = search(query, expander, words_of(i), static_cast<int64_t>(q));
      const double result = done ? shared.result : 0;
      trials.add(done, query.spent() + result + shared.call);
      expected += query.took() + result;
      any |= done || query.began();
      ways_[q] = done ? 1 : query.began() ? 2 : ways_[q];
      by_tables_[q] = query.cost();
    }
    if (any) {
      learned_.learn_tables(nanoseconds_since(start) / expected);
    } else {
      learned_.forget_tables();
    }
  });
}

std::vector<int64_t> HashCall::try_tables(bool force, uint8_t* used, const Search& search) {
  force_ = force;
  std::vector<int64_t> all(ways_.size()), rest;
  std::iota(all.begin(), all.end(), 0);
  const auto not_done = [&](int64_t q) { return ways_[static_cast<size_t>(q)] != 1; };
  const bool tries = force || !learned_.waits();
  if (tries) run(all, learned_.rest(queries_.codes.count), search);
  std::copy_if(all.begin(), all.end(), std::back_inserter(rest), not_done);
  if (!rest.empty()) {
    const std::vector<int64_t> worth = worth_tables(by_tables_, costs_, rest);
    run(worth, static_cast<int64_t>(rest.size()), search);
    std::copy_if(worth.begin(), worth.end(), std::back_inserter(rest), not_done);
    std::sort(rest.begin(), rest.end());
  }
  const auto count = static_cast<int64_t>(rest.size()), some = queries_.codes.count;
  if (tries && !force) learned_.learn_rest(count);
  if (2 * count < some) learned_.forget_scans(some);
  if (count == 0 || 2 * count >= some) learned_.forget_scans(0);
  for (size_t q = 0; q < queries_.numbers.size(); ++q) used[q] = ways_[static_cast<size_t>(queries_.numbers[q])];
  return rest;
}

void HashCall::settle(int64_t found) const {
  if (force_ || std::all_of(ways_.begin(), ways_.end(), [](uint8_t way) { return way == 0; })) return;
  const double more = nanoseconds_since(start_) / costs_.scan_call(queries_.codes.count, found) - 1;
  learned_.lose(more > 0 ? std::min(more, kMostLostAtOnce) : kSure * more);
  if (-kClose < more && more < 0) learned_.compare_with_scans();
}

}  // namespace adsq::cpu
