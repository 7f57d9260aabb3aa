#include "cpu/hamming_hash_costs.h"

#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <random>
#include <vector>

#include "cpu/distinct_queries.h"
#include "cpu/hamming_hash_query.h"

namespace adsq::cpu {
namespace {

constexpr int64_t kMeasuredBytes = 64 << 20;  // of the codes: more of them take as long each
constexpr int64_t kRounds = 8;
constexpr double kEnough = 1e6;  // nanoseconds of rounds after which no other begins
constexpr int64_t kSearches = 128, kSearchRounds = 3, kFewSearches = 8, kNeighbours = 10;
constexpr double kMostScans = 4, kMostTime = 2e7;  // that one search may seem to take, and nanoseconds of all
// Of what the tables take beside the model. Where that is more, searches learn it; where a disturbance made it seem so,
// none would ever try the tables.
constexpr double kLeastFactor = 0.25, kMostFactor = 1.5;
constexpr int64_t kFlipped = 3;  // bits, so that the codes are near and not equal

// Beyond the first so many neighbours, what each takes a scan to choose: for few queries, and for many.
constexpr double kChoosing[] = {50, 30};

constexpr int64_t kCacheBytes = 2 << 20, kMemoryBytes = 24 << 20;
constexpr double kPatience = 1.3;                  // times a scan, while it is in doubt what the tables take
constexpr double kCall = 2000, kRangeCall = 3500;  // what a search by the tables makes once a call

// How many queries the scans are measured with: two numbers below those that go by bit planes, and two from there on.
// What lies between is interpolated.
void measured_queries(int64_t width, int64_t* numbers) {
  const int64_t sliced = std::min<int64_t>(16, sliced_queries(scan_kernels(), width));
  numbers[0] = 1, numbers[1] = sliced - 1, numbers[2] = sliced, numbers[3] = 64;
}

// The least of some rounds: whatever disturbs one makes it longer.
template <class Task>
double least_time(Task task) {
  double least = 0, all = 0;
  for (int64_t round = 0; round < kRounds && (round < 2 || all < kEnough); ++round) {
    const auto start = Clock::now();
    task();
    const double time = nanoseconds_since(start);
    least = round == 0 ? time : std::min(least, time);
    all += time;
  }
  return least;
}

// A scan by so many queries that finds nothing, or next to it.
double scan_time(const Codes& codes, const std::vector<uint64_t>& words, int64_t num_queries) {
  return least_time([&] {
    OwnedSelections owned;
    std::vector<Selection>& selections = owned.all;
    for (int64_t q = 0; q < num_queries; ++q) selections.push_back({nullptr, 0, 0, 0, 0, static_cast<int32_t>(q)});
    scan_part(scan_kernels(), codes, 0, codes.count, {words.data(), codes.num_words(), selections.data(), num_queries});
  });
}

// Words of queries that are near some of the codes.
Aligned<uint64_t> near_queries(const Codes& codes, const HashTables& tables, int64_t count) {
  std::vector<int64_t> rows;
  const int64_t size = HashLayout::sample_size(codes.count);
  for (int64_t i = 0; i < count; ++i) rows.push_back(size * i / count);
  const std::vector<uint8_t> some = gathered({tables.sample, size, codes.width}, rows);
  auto words = query_words(scan_kernels(), {some.data(), count, codes.width});
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t bit = i % kFlipped; bit < 8 * codes.width; bit += 8 * codes.width / kFlipped) {
      words[i * codes.num_words() + bit / 64] ^= uint64_t{1} << bit % 64;
    }
  }
  return words;
}

// What searches near some of the codes take, as a factor of what the model says: the median.
double tables_time(const DistinctCodes& database, const HashTables& tables) {
  const Codes& codes = database.codes;
  HashCosts costs = HashCosts(database, tables.rates, HashLearned(nullptr, kSearches), kNeighbours, kSearches, 1)
                        .shared_by(kSearches);
  costs.scan *= kMostScans, costs.alone *= kMostScans;
  HashQuery search(database, tables, costs, kNeighbours);
  const auto words = near_queries(codes, tables, kSearches);
  // Again and again, as scans are, where that finds in the cache what new queries find there, too.
  const int64_t rounds = codes.count * codes.width <= kCacheBytes ? kSearchRounds : 1;
  std::vector<double> least(kSearches, std::numeric_limits<double>::infinity()), factors;
  const auto begin = Clock::now();
  for (int64_t i = 0; i < rounds * kSearches && nanoseconds_since(begin) < kMostTime; ++i) {
    const int64_t q = i % kSearches;
    const auto words_of = [&](int64_t ahead) { return words.get() + (q + ahead) % kSearches * codes.num_words(); };
    const auto start = Clock::now();
    search.prefetch(words_of(HashQuery::kAhead));
    search.prefetch_rows(words_of(HashQuery::kRowsAhead));
    search.nearest(words_of(0), false);
    double& time = least[static_cast<size_t>(q)];
    time = std::min(time, nanoseconds_since(start) / (search.began() ? search.spent() + costs.result : 0));
  }
  std::copy_if(least.begin(), least.end(), std::back_inserter(factors),
               [](double time) { return std::isfinite(time); });
  if (static_cast<int64_t>(factors.size()) < kFewSearches) return 1;
  const auto middle = factors.begin() + static_cast<int64_t>(factors.size() / 2);
  std::nth_element(factors.begin(), middle, factors.end());
  return std::clamp(*middle, kLeastFactor, kMostFactor);
}

}  // namespace

HashCosts::HashCosts(const DistinctCodes& database, const HashRates& rates, const HashLearned& learned, int64_t k,
                     int64_t num_queries, int64_t threads)
    : rates_(rates),
      learned_(learned),
      work_(database.codes.count * database.codes.num_words()),
      k_(k),
      threads_(threads) {
  const Codes& codes = database.codes;
  const bool lists = k > 0 && database.offsets != nullptr;
  const int64_t bytes = codes.count * codes.width;
  const bool cached = bytes <= kCacheBytes, near = bytes <= kMemoryBytes;
  const double factor = rates.tables * learned.tables();
  start = factor * 200;
  step = factor * (cached ? 75 : near ? 700 : 800);
  bucket = factor * (cached ? 20 : near ? 14 : 34);
  candidate = factor * codes.num_words() * (cached ? 0.6 : near ? 0.65 : 0.7);
  taken = factor * (lists ? 30 : k == 0 && cached ? 25 : near ? 15 : 23);
  result = k > 0 ? factor * (200 + 10 * static_cast<double>(k)) : 0;
  call = (k > 0 ? kCall : kRangeCall) / static_cast<double>(std::max<int64_t>(1, num_queries));
  measured_queries(codes.width, measured_);
  patience_ = learned.doubts() ? kPatience : 1;
  alone = patience_ * scan_of(1);
  scan = found = 0;
}

HashCosts HashCosts::shared_by(int64_t num_queries) const {
  HashCosts costs = *this;
  num_queries = std::max<int64_t>(1, num_queries);
  costs.scan = patience_ * scan_of(num_queries);
  costs.found = found_by(num_queries);
  return costs;
}

int64_t HashCosts::scan_threads(int64_t num_queries) const {
  return std::min(threads_, 1 + work_ * num_queries / kSmallScan);
}

double HashCosts::scan_call(int64_t num_queries, int64_t num_found) const {
  const auto tasks = static_cast<double>(table_tasks(num_queries, scan_threads(num_queries)));
  const double all = scan_of(num_queries) * static_cast<double>(num_queries);
  return (all + found_by(num_queries) * static_cast<double>(num_found)) / tasks;
}

double HashCosts::found_by(int64_t num_queries) const {
  return k_ > 0 ? 0 : rates_.tables * 12 * learned_.scans(num_queries);
}

double HashCosts::scan_of(int64_t num_queries) const {
  if (num_queries == 0) return 0;
  const int64_t used = scan_threads(num_queries);
  const double speedup = static_cast<double>(used) / static_cast<double>(table_tasks(num_queries, used));
  const int batch = num_queries >= measured_[2];
  const double* some = rates_.scans + 2 * batch;
  const auto first = static_cast<double>(measured_[2 * batch]), second = static_cast<double>(measured_[2 * batch + 1]);
  const double more = std::max(0.0, some[1] - some[0]) / std::max(1.0, second - first);
  double each = (some[0] + more * (static_cast<double>(num_queries) - first)) / static_cast<double>(num_queries);
  each /= speedup;
  if (k_ > 0) {
    // Threads share the queries; what one query found, one thread chooses from.
    const double choosing = rates_.choosing[batch] + kChoosing[batch] * static_cast<double>(k_ - kNeighbours);
    each += std::max(0.0, choosing) / (batch ? speedup : 1);
  }
  return each * learned_.scans(num_queries);
}

HashRates measure_rates(const DistinctCodes& database, HashTables tables) {
  HashRates rates{{}, {}, 1};
  const Codes& codes = database.codes;
  if (codes.count == 0) return rates;
  Codes part = codes;
  part.count = std::min(codes.count, std::max<int64_t>(1, kMeasuredBytes / codes.width));
  int64_t numbers[4];
  measured_queries(codes.width, numbers);
  std::mt19937_64 random(0);
  std::vector<uint64_t> words(static_cast<size_t>(numbers[3] * codes.num_words()));
  for (uint64_t& word : words) word = random();
  const double share = static_cast<double>(codes.count) / static_cast<double>(part.count);
  for (int i = 0; i < 4; ++i) rates.scans[i] = share * scan_time(part, words, numbers[i]);
  for (int batch = 0; batch < 2; ++batch) {
    const int64_t count = numbers[3 * batch];
    const auto near = near_queries(codes, tables, count);
    std::vector<int32_t> distances(static_cast<size_t>(count * kNeighbours));
    std::vector<int64_t> ids(distances.size());
    // What lies beyond the codes' bits are zeros: rows are the words' first bytes.
    std::vector<uint8_t> rows(static_cast<size_t>(count * codes.width));
    for (int64_t q = 0; q < count; ++q) {
      std::memcpy(rows.data() + q * codes.width, near.get() + q * codes.num_words(), static_cast<size_t>(codes.width));
    }
    const Threads one{1, [](int64_t tasks, const std::function<void(int64_t)>& task) {
                        for (int64_t i = 0; i < tasks; ++i) task(i);
                      }};
    const double time = least_time([&] {
      distinct_topk({rows.data(), count, codes.width}, database, kNeighbours, distances.data(), ids.data(), one);
    });
    rates.choosing[batch] = std::max(0.0, time - rates.scans[3 * batch]) / static_cast<double>(count);
  }
  tables.rates = rates;
  rates.tables = tables_time(database, tables);
  return rates;
}

}  // namespace adsq::cpu
