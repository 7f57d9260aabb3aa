// A call of a search by hash tables: which of its queries go by the tables, and which are left to a scan.
#pragma once
#include <functional>
#include <vector>

#include "cpu/distinct_queries.h"
#include "cpu/hamming_hash.h"
#include "cpu/hamming_hash_costs.h"
#include "cpu/hamming_hash_query.h"

namespace adsq::cpu {

// Moves those queries from `rest` to the result which the tables would cost less than their shares of a scan: the fewer
// queries share one, the more each takes.
std::vector<int64_t> worth_tables(const std::vector<double>& by_tables, const HashCosts& costs,
                                  std::vector<int64_t>& rest);

class HashCall {
 public:
  // `k` is 0 for a search within a radius.
  HashCall(const DistinctQueries& queries, const DistinctCodes& database, const HashTables& tables, int64_t k,
           const Threads& threads);

  // Searches the query with a number, given as words, and returns whether that was done.
  using Search = std::function<bool(HashQuery& query, Expander& expander, const uint64_t* words, int64_t number)>;

  // Searches the queries one after the other by the tables, and returns those to be scanned. `used` is of all queries,
  // of which queries.codes are the distinct ones.
  std::vector<int64_t> try_tables(bool force, uint8_t* used, const Search& search);

  // Runs the scan of so many of them, which returns how many codes it has found within a radius.
  template <class Scan>
  void scan(int64_t count, Scan run) const {
    const auto start = Clock::now();
    const int64_t found = run();
    if (count > 0) learned_.learn_scans(count, nanoseconds_since(start) / costs_.scan_call(count, found));
  }
  // Learns from how long all that took whether trying the tables has paid, as so many codes were found within a radius.
  void settle(int64_t found) const;

 private:
  void run(const std::vector<int64_t>& some, int64_t scanned, const Search& search);

  const DistinctQueries& queries_;
  const DistinctCodes& database_;
  const HashTables& tables_;
  const int64_t k_;
  const Threads& threads_;
  const HashLearned learned_;
  const HashCosts costs_;
  const Aligned<uint64_t> words_;
  const Clock::time_point start_ = Clock::now();
  bool force_ = false;
  std::vector<uint8_t> ways_;      // of the distinct queries, as `used`
  std::vector<double> by_tables_;  // what the tables would take
};

}  // namespace adsq::cpu
