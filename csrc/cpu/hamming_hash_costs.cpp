#include "cpu/hamming_hash_costs.h"

#include <chrono>
#include <cstdlib>
#include <random>
#include <vector>

#include "cpu/hamming_hash_query.h"

namespace adsq::cpu {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMeasuredBytes = 64 << 20;  // of the codes: more of them take as long each
constexpr int64_t kRounds = 8;
constexpr double kEnough = 1e6;  // nanoseconds of rounds after which no other begins
constexpr int64_t kSearches = 64, kFewSearches = 8, kNeighbours = 10;
constexpr int64_t kFlipped = 3;  // bits, so that the codes are near and not equal

double nanoseconds(Clock::time_point since) {
  return std::chrono::duration<double, std::nano>(Clock::now() - since).count();
}

// The least of some rounds: whatever disturbs one makes it longer.
double scan_time(const Codes& codes, const std::vector<uint64_t>& words, int64_t num_queries) {
  double least = 0, all = 0;
  for (int64_t round = 0; round < kRounds && (round < 2 || all < kEnough); ++round) {
    std::vector<Selection> selections;
    for (int64_t q = 0; q < num_queries; ++q) selections.push_back({nullptr, 0, 0, 0, 0, static_cast<int32_t>(q)});
    const auto start = Clock::now();
    scan_part(scan_kernels(), codes, 0, codes.count, {words.data(), codes.num_words(), selections.data(), num_queries});
    const double time = nanoseconds(start);
    for (const Selection& selection : selections) std::free(selection.keys);
    least = round == 0 ? time : std::min(least, time);
    all += time;
  }
  return least;
}

// What searches near some of the codes take, as a factor of what the model says: the median.
double tables_time(const DistinctCodes& database, const HashTables& tables) {
  const Codes& codes = database.codes;
  const HashCosts costs(database, tables.rates, 1, kNeighbours, 1);
  HashQuery search(database, tables, costs, kNeighbours);
  const Codes sample{tables.sample, HashLayout::sample_size(codes.count), codes.width};
  const int64_t searches = std::min(kSearches, sample.count);
  const auto words = query_words(scan_kernels(), sample);
  std::vector<double> factors;
  for (int64_t i = 0; i < searches; ++i) {
    uint64_t* query = words.get() + sample.count * i / searches * codes.num_words();
    for (int64_t bit = i % kFlipped; bit < 8 * codes.width; bit += 8 * codes.width / kFlipped) {
      query[bit / 64] ^= uint64_t{1} << bit % 64;
    }
    const auto start = Clock::now();
    search.nearest(query, false);
    const double time = nanoseconds(start);
    if (search.began()) factors.push_back(time / (search.spent() + costs.result));
  }
  if (static_cast<int64_t>(factors.size()) < kFewSearches) return 1;
  const auto middle = factors.begin() + static_cast<int64_t>(factors.size() / 2);
  std::nth_element(factors.begin(), middle, factors.end());
  return *middle;
}

}  // namespace

HashRates measure_rates(const DistinctCodes& database, HashTables tables) {
  const Codes& codes = database.codes;
  HashRates rates{{}, 1};
  if (codes.count == 0) return rates;
  Codes part = codes;
  part.count = std::min(codes.count, std::max<int64_t>(1, kMeasuredBytes / codes.width));
  int64_t numbers[4];
  measured_queries(scan_kernels(), codes.width, numbers);
  std::mt19937_64 random(0);
  std::vector<uint64_t> words(static_cast<size_t>(numbers[3] * codes.num_words()));
  for (uint64_t& word : words) word = random();
  const double share = static_cast<double>(codes.count) / static_cast<double>(part.count);
  for (int i = 0; i < 4; ++i) rates.scans[i] = share * scan_time(part, words, numbers[i]);
  tables.rates = rates;
  rates.tables = tables_time(database, tables);
  return rates;
}

}  // namespace adsq::cpu
