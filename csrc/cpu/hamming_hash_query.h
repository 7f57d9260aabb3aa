// The search of one query after the other in hash tables.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "cpu/distinct_expand.h"
#include "cpu/hamming_hash.h"
#include "cpu/hamming_hash_costs.h"
#include "cpu/hamming_results.h"

namespace adsq::cpu {

// Part `table` of a code given as words.
inline uint32_t part_of(const uint64_t* words, const HashLayout& layout, int table) {
  const int start = layout.starts[table], bits = layout.bits(table), word = start / 64, shift = start % 64;
  uint64_t part = words[word] >> shift;
  if (shift + bits > 64) part |= words[word + 1] << (64 - shift);
  return static_cast<uint32_t>(part & ((uint64_t{1} << bits) - 1));
}

// Steps: step r looks into the buckets of table r % tables whose part differs in r / tables bits from the query's.
// After it, all codes within distance r are found. A code is taken at the first step that meets it, and at no other.
class HashQuery {
 public:
  HashQuery(const DistinctCodes& database, const HashTables& tables, int64_t num_queries);
  ~HashQuery() { std::free(selection_.keys); }
  HashQuery(const HashQuery&) = delete;
  HashQuery& operator=(const HashQuery&) = delete;

  // Find the codes that hold the k nearest rows, or all within a radius. Return false, having stopped, where a scan is
  // cheaper and `force` is not set; began() tells whether any bucket was read.
  bool nearest(const uint64_t* query, int64_t k, bool force);
  bool within(const uint64_t* query, int32_t radius, bool force);
  bool began() const { return steps_ > 0; }

  // Has what the search of a later query reads first fetched into the cache.
  void prefetch(const uint64_t* query) const;

  // What `nearest` decides before and after the steps that every search begins with.
  HashPlan plan(const uint64_t* query, int64_t k);

  // What was found, ascending: distance << kIndexBits | code. And the same in two lists, until the next search.
  const std::vector<uint64_t>& keys() const { return found_; }
  FoundCodes found();

 private:
  void start(const uint64_t* query, int32_t threshold, int64_t k);
  void step(int32_t r);
  void take(int32_t r, int table);
  bool met_before(const uint64_t* differing, int32_t r) const;
  template <class Visit>
  void buckets(int32_t r, Visit visit) const;
  int64_t fetch(int32_t r) const;
  bool gives_up(int32_t r);
  int32_t usual_radius();
  double spent() const;
  double first_cost() const;
  double cost_of(int32_t r) const;
  double cost_until(int32_t first, int32_t last) const;
  void finish();
  int64_t rows_of(int64_t code) const;
  int tables() const { return tables_.layout.num_tables; }
  int32_t all() const { return static_cast<int32_t>(8 * database_.codes.width); }

  const DistinctCodes& database_;
  const HashTables& tables_;
  const ScanKernels& kernels_;
  const int64_t num_queries_;
  HashCosts costs_;
  const uint64_t* query_ = nullptr;
  int64_t first_offsets_[kMaxTables];
  uint32_t parts_[kMaxTables];
  uint64_t masks_[kMaxTables];  // of parts, where codes have one word
  Selection selection_{};
  std::vector<uint64_t> found_;
  std::vector<int32_t> distances_;
  std::vector<int64_t> codes_;
  std::vector<int64_t> counts_;  // rows at each distance
  int64_t usual_k_ = -1;
  int32_t usual_radius_ = 0;
  int64_t k_ = 0, rows_within_ = 0, steps_ = 0, probes_ = 0, candidates_ = 0, taken_ = 0;
};

}  // namespace adsq::cpu
