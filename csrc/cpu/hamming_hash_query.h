// The search of one query after the other in hash tables.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "cpu/distinct_bounds.h"
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

// Steps: step r looks into the buckets of one table, table(r), whose part differs in r / tables bits from the query's.
// After it, all codes within distance r are found. A code is taken at the first step that meets it, and at no other.
// The tables come in the order of what the query's own bucket holds: the more of them are full, the sooner it is done.
class HashQuery {
 public:
  // `k` is 0 for searches within a radius.
  HashQuery(const DistinctCodes& database, const HashTables& tables, const HashCosts& costs, int64_t k);
  ~HashQuery() {
    std::free(selection_.keys);
    std::free(sample_.keys);
  }
  HashQuery(const HashQuery&) = delete;
  HashQuery& operator=(const HashQuery&) = delete;

  // Find the codes that hold the k nearest rows, or all within a radius. Return false, having stopped, where a scan is
  // cheaper and `force` is not set; began() tells whether any bucket was read.
  bool nearest(const uint64_t* query, bool force);
  bool within(const uint64_t* query, int32_t radius, bool force);
  bool began() const { return steps_ > 0; }
  // Then: what it took; what it took more than a scan does with those codes; and what the whole search would take, as
  // far as it is known; at least so much, where that is more than a scan.
  double took() const;
  double spent() const;
  double cost() const { return cost_; }

  // Has what the searches of later queries read first fetched into the cache: of query kAhead, and, from there, of
  // query kRowsAhead from now.
  static constexpr int64_t kAhead = 6, kRowsAhead = 3;
  void prefetch(const uint64_t* query) const;
  void prefetch_rows(const uint64_t* query) const;

  // What `nearest` decides before and after the steps that every search begins with.
  HashPlan plan(const uint64_t* query);

  // What was found, ascending: distance << kIndexBits | code. And the same in two lists, until the next search.
  const std::vector<uint64_t>& keys() const { return found_; }
  FoundCodes found();

 private:
  void start(const uint64_t* query, int32_t threshold);
  void step(int32_t r);
  void first_steps(int32_t count);
  void take(int32_t r, const uint64_t* keys, int64_t count);
  void order_tables();
  int table(int32_t r) const { return order_[r % tables()]; }
  bool met_before(const uint64_t* differing, int32_t r) const;
  template <class Visit>
  void buckets(int table, int flips, Visit visit) const;
  int64_t count_codes(int32_t r) const;
  const int32_t* bucket(int table) const { return tables_.offsets + first_offsets_[table] + parts_[table]; }
  int32_t farthest() const;
  bool equal_are_enough();
  void finish();
  int64_t code_of(uint64_t key) const { return tables_.positions[index_of(key)]; }
  int tables() const { return tables_.layout.num_tables; }
  int32_t all() const { return static_cast<int32_t>(8 * database_.codes.width); }

  // What it will take (hamming_hash_choice.cpp).
  bool few_codes(int64_t candidates) const;
  double left_to_take() const;
  void learn_taken();
  double first_cost() const;
  bool too_much_at_first();
  double fullness(int flips, int bits) const;
  double left_nearest(int32_t r, int32_t last) const;
  bool gives_up(int32_t r);
  void expect_radius();
  int32_t usual_radius() const;
  bool counts_buckets();
  bool gives_up_within();

  // What buckets with so many bits differing held.
  struct Level {
    double probes, candidates;
    double fullness() const { return candidates / probes; }
  };

  const DistinctCodes& database_;
  const HashTables& tables_;
  const ScanKernels& kernels_;
  const int64_t k_;
  const HashCosts& costs_;
  const uint64_t* query_ = nullptr;
  int order_[kMaxTables];
  int64_t first_offsets_[kMaxTables];
  uint32_t parts_[kMaxTables];
  int32_t sizes_[kMaxTables];   // of the query's own buckets
  uint64_t masks_[kMaxTables];  // of parts, where codes have one word
  static constexpr int kBucketsAtATime = 32;
  Rows stretches_[kBucketsAtATime];  // of codes that are compared together
  Selection selection_{};
  std::vector<uint64_t> found_;  // distance << kIndexBits | place in the tables; when all is found, | code
  std::vector<int32_t> distances_;
  std::vector<int64_t> codes_;
  std::vector<int64_t> counts_;  // rows at each distance
  Level levels_[kMaxPartBits + 1] = {};
  int num_levels_ = 0;
  Selection sample_{};
  std::vector<int64_t> sample_counts_;
  int32_t usual_radius_ = -1;  // not known yet
  FewCodes frequent_;          // that have k rows
  double usual_taken_;
  int32_t expected_radius_ = 0;
  double all_probes_ = 0, all_candidates_ = 0, sampled_ = 0, cost_ = 0;
  bool sure_ = false;
  int64_t rows_within_ = 0, steps_ = 0, probes_ = 0, candidates_ = 0, taken_ = 0;
};

}  // namespace adsq::cpu
