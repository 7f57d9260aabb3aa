// Multi-index hashing (Norouzi, Punjani and Fleet, arXiv 1307.2982): codes in several tables, each by another part of
// their bits. A code within distance r of a query is, in some table, within about r / tables of the query's part.
#pragma once
#include <cstdint>
#include <vector>

#include "cpu/distinct_codes.h"

namespace adsq::cpu {

constexpr int kMaxTables = 64, kMaxPartBits = 22;

// Part j of a code are its bits starts[j]..starts[j + 1] - 1. A table has a bucket for each value of its part.
struct HashLayout {
  int num_tables;
  int starts[kMaxTables + 1];

  HashLayout(int64_t width, int64_t count);
  int bits(int table) const { return starts[table + 1] - starts[table]; }
  // Where the bucket offsets of each table begin; and of table num_tables, how many there are.
  int64_t first_offset(int table) const;
  // How many of the codes tell how far the nearest to a query may be.
  static int64_t sample_size(int64_t count);
};

// How fast things go on this machine, with these codes (hamming_hash_costs.h): doubles, as they are kept in a tensor.
struct HashRates {
  double scans[4];     // nanoseconds of whole scans, for four numbers of queries
  double choosing[2];  // and of choosing the nearest for each of few queries, and of many
  double tables;       // what the tables take, as a factor
};

// Codes that have many rows each, the most rows first. Where one of them has k rows, the k nearest rows are no farther.
struct FrequentCodes {
  static constexpr int64_t kMost = 256;
  const uint8_t* rows;   // [count][width]
  const double* counts;  // rows of each, at least 2
  int64_t count;
};

// Buckets one after the other: those of table j begin at offsets[first_offset(j) + part], counted from j * count.
struct HashTables {
  HashLayout layout;
  const int32_t* offsets;
  const int32_t* positions;  // [table][count]: which code
  const uint8_t* rows;       // [table][count][width]: the codes themselves
  const uint8_t* sample;     // [sample_size(count)][width]
  FrequentCodes frequent;
  HashRates rates;
  double* learned;  // [HashLearned::kNumbers], of hamming_hash_learned.h, or null
};

void make_hash_tables(const DistinctCodes& database, const HashLayout& layout, int32_t* offsets, int32_t* positions,
                      uint8_t* rows, uint8_t* sample);

// The numbers of these codes.
std::vector<int32_t> frequent_codes(const DistinctCodes& database);

// What the search of a query by the tables takes, in nanoseconds of the model (hamming_hash_costs.h), and a scan.
struct HashPlan {
  bool hash;
  double hash_cost, scan_cost;
  int64_t candidates;  // codes in the buckets that all searches begin with
  int32_t radius;      // the k-th neighbour is at most this far, as far as these buckets tell
};

// The database of a search by hash: codes that may repeat, without lists, or distinct ones.
// Where `force` is not set, queries for which a scan is cheaper are scanned; `used` tells, 1 for the tables, 0 for a
// scan and 2 where the search began in the tables and ended in a scan.
void hash_topk(const Codes& queries, const DistinctCodes& database, const HashTables& tables, int64_t k, bool force,
               int32_t* distances, int64_t* ids, uint8_t* used, const Threads& threads);

std::vector<HashPlan> hash_plans(const Codes& queries, const DistinctCodes& database, const HashTables& tables,
                                 int64_t k, int64_t threads);

RangeRows hash_range(const Codes& queries, const DistinctCodes& database, const HashTables& tables, int64_t radius,
                     bool force, uint8_t* used, const Threads& threads);

}  // namespace adsq::cpu
