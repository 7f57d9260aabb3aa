// What a query takes by hash tables and by a scan, in nanoseconds.
//
// What a scan takes is measured where the tables are made, on these codes: it depends on where the codes lie, and how
// fast that memory is moves by a factor of 3 from machine to machine. So is one factor for what the tables take. What
// that consists of was fitted to some thousand searches among random, clustered and trained codes (an Intel Xeon).
#pragma once
#include <algorithm>
#include <chrono>
#include <cstdint>

#include "cpu/hamming_hash.h"
#include "cpu/hamming_hash_learned.h"

namespace adsq::cpu {

using Clock = std::chrono::steady_clock;

inline double nanoseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::nano>(Clock::now() - start).count();
}

// How many threads search the tables.
inline int64_t table_tasks(int64_t num_queries, int64_t threads) {
  constexpr int64_t kQueriesATask = 8;
  return std::max<int64_t>(1, std::min(threads, num_queries / kQueriesATask));
}

class HashCosts {
 public:
  double start;      // what comes before the first bucket
  double step;       // waiting for the first of several buckets
  double bucket;     // finding a bucket and reading its first codes
  double candidate;  // each code in it
  double taken;      // each code in it that is near enough
  double result;     // ordering and writing what was found
  double call;       // of what is made once a call
  double scan;       // a whole scan, shared by some queries
  double alone;      // a scan for one query
  double found;      // each code that a scan within a radius finds

  // Of a call with `num_queries`, for which this was learned; `k` is 0 for searches within a radius.
  HashCosts(const DistinctCodes& database, const HashRates& rates, const HashLearned& learned, int64_t k,
            int64_t num_queries, int64_t threads);

  // The same where so many queries share a scan, and share it among more of the threads than the tables. A scan costs
  // more here while it is in doubt whether searches are given up too soon.
  HashCosts shared_by(int64_t num_queries) const;
  // What a scan takes that so many queries share, for each of them.
  double scan_of(int64_t num_queries) const;
  // How long a scan of so many queries lasts that finds so many codes within a radius.
  double scan_call(int64_t num_queries, int64_t num_found) const;

 private:
  int64_t scan_threads(int64_t num_queries) const;
  double found_by(int64_t num_queries) const;

  const HashRates rates_;
  const HashLearned learned_;
  double patience_;
  const int64_t work_, k_, threads_;
  int64_t measured_[4];  // numbers of queries of rates.scans
};

// Measures the rates of tables that have none yet.
HashRates measure_rates(const DistinctCodes& database, HashTables tables);

}  // namespace adsq::cpu
