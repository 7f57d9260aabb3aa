// What a query takes by hash tables and by a scan, in nanoseconds.
//
// What a scan takes is measured where the tables are made, on these codes: it depends on where the codes lie, and how
// fast that memory is moves by a factor of 3 from machine to machine. So is one factor for what the tables take. What
// that consists of was fitted to some thousand searches among random, clustered and trained codes (Granite Rapids).
#pragma once
#include <algorithm>
#include <cstdint>

#include "cpu/hamming_hash.h"

namespace adsq::cpu {

// How many queries the scans are measured with: two numbers below those that go by bit planes, and two from there on.
// What lies between is interpolated.
inline void measured_queries(const ScanKernels& kernels, int64_t width, int64_t* numbers) {
  const int64_t sliced = std::min<int64_t>(16, sliced_queries(kernels, width));
  numbers[0] = 1, numbers[1] = sliced - 1, numbers[2] = sliced, numbers[3] = 64;
}

// How many threads search the tables.
inline int64_t table_tasks(int64_t num_queries, int64_t threads) {
  constexpr int64_t kQueriesATask = 8;
  return std::max<int64_t>(1, std::min(threads, num_queries / kQueriesATask));
}

struct HashCosts {
  static constexpr int64_t kCacheBytes = 2 << 20, kMemoryBytes = 24 << 20;

  double step;       // waiting for the first of several buckets
  double bucket;     // finding a bucket and reading its first codes
  double candidate;  // each code in it
  double taken;      // each code in it that is near enough
  double result;     // ordering and writing what was found
  double scan;       // a whole scan, shared by some queries
  double alone;      // a scan for one query
  double found;      // each code that a scan finds

  // A scan is shared by `num_queries`, and by more of the threads than the tables are.
  HashCosts(const DistinctCodes& database, const HashRates& rates, int64_t num_queries, int64_t k, int64_t threads) {
    const Codes& codes = database.codes;
    const bool lists = k > 0 && database.offsets != nullptr;
    const int64_t bytes = codes.count * codes.width;
    const double words = static_cast<double>(codes.num_words());
    const bool cached = bytes <= kCacheBytes, near = bytes <= kMemoryBytes;
    step = rates.tables * (cached ? 75 : near ? 700 : 800);
    bucket = rates.tables * (cached ? 20 : near ? 14 : 34);
    candidate = rates.tables * words * (cached ? 0.6 : near ? 0.65 : 0.7);
    taken = rates.tables * (lists ? 30 : near ? 15 : 23);
    result = k > 0 ? rates.tables * (400 + 10 * static_cast<double>(std::min(k, codes.count))) : 0;
    found = rates.tables * 12;
    int64_t numbers[4];
    measured_queries(scan_kernels(), codes.width, numbers);
    const auto scan_of = [&](int64_t queries) {
      const int64_t work = codes.count * codes.num_words() * queries, used = std::min(threads, 1 + work / kSmallScan);
      const double speedup = static_cast<double>(used) / static_cast<double>(table_tasks(queries, used));
      const bool batch = queries >= numbers[2];
      const double *some = rates.scans + (batch ? 2 : 0), first = static_cast<double>(numbers[batch ? 2 : 0]);
      const double more = (some[1] - some[0]) / std::max(1.0, static_cast<double>(numbers[batch ? 3 : 1]) - first);
      const double all = some[0] + std::max(0.0, more) * (static_cast<double>(queries) - first);
      double each = all / static_cast<double>(queries);
      if (k > 0) each += 1000 + (batch ? 30 : 100) * static_cast<double>(std::min(k, codes.count));  // choosing them
      return each / speedup;
    };
    scan = scan_of(std::max<int64_t>(1, num_queries));
    alone = scan_of(1);
  }
};

// Measures the rates of tables that have none yet.
HashRates measure_rates(const DistinctCodes& database, HashTables tables);

}  // namespace adsq::cpu
