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

  // While this lives, so many of them are scanned; it is learned how long that takes.
  class Scan {
   public:
    Scan(const HashCall& call, int64_t count) : call_(call), count_(count), start_(Clock::now()) {}
    ~Scan() { call_.learned_.learn_scans(count_, nanoseconds_since(start_) / call_.costs_.scan_call(count_, found)); }
    Scan(const Scan&) = delete;
    Scan& operator=(const Scan&) = delete;

    int64_t found = 0;  // codes within a radius

   private:
    const HashCall& call_;
    const int64_t count_;
    const Clock::time_point start_;
  };

 private:
  void run(const std::vector<int64_t>& some, int64_t scanned, bool force, const Search& search);

  const DistinctQueries& queries_;
  const DistinctCodes& database_;
  const HashTables& tables_;
  const int64_t k_;
  const Threads& threads_;
  const HashLearned learned_;
  const HashCosts costs_;
  const Aligned<uint64_t> words_;
  std::vector<uint8_t> ways_;      // of the distinct queries, as `used`
  std::vector<double> by_tables_;  // what the tables would take
};

}  // namespace adsq::cpu
