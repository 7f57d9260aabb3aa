#include "cpu/hamming_hash_query.h"

#include <cmath>

#include "cpu/distinct_expand.h"

namespace adsq::cpu {
namespace {

constexpr int kBucketsAtATime = 32;
constexpr int64_t kFetchedBytes = 512;  // of a bucket; what follows them the processor sees coming
constexpr double kStake = 0.1;          // share of a scan that may be lost before it, where codes cluster
constexpr double kClustered = 2;        // how much fuller buckets then are than on average
constexpr int64_t kFirstStretch = 16;   // codes of a bucket that are compared before any is taken

// As in hamming_direct.h: this file is compiled for any processor.
int count_bits(uint64_t x) {
  x -= (x >> 1) & 0x5555555555555555;
  x = (x & 0x3333333333333333) + ((x >> 2) & 0x3333333333333333);
  return static_cast<int>((((x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F) * 0x0101010101010101) >> 56);
}

// Sorts keys by code, and then by distance.
void sort_keys(std::vector<uint64_t>& keys, int64_t num_codes, int64_t num_distances) {
  constexpr size_t kFew = 256;
  static constexpr int kBits = 11;
  if (keys.size() < kFew) return std::sort(keys.begin(), keys.end());
  std::vector<uint64_t> scratch(keys.size());
  const auto pass = [&](int shift) {
    uint32_t starts[(1 << kBits) + 1] = {};
    const auto digit = [shift](uint64_t key) { return (key >> shift) & ((1 << kBits) - 1); };
    for (const uint64_t key : keys) ++starts[digit(key) + 1];
    for (int d = 0; d < 1 << kBits; ++d) starts[d + 1] += starts[d];
    for (const uint64_t key : keys) scratch[starts[digit(key)]++] = key;
    keys.swap(scratch);
  };
  for (int shift = 0; (num_codes - 1) >> shift > 0; shift += kBits) pass(shift);
  for (int shift = 0; (num_distances - 1) >> shift > 0; shift += kBits) pass(kIndexBits + shift);
}

double choose(int n, int k) {
  if (k > n) return 0;
  double ways = 1;
  for (int i = 0; i < k; ++i) ways = ways * (n - i) / (i + 1);
  return ways;
}

}  // namespace

HashQuery::HashQuery(const DistinctCodes& database, const HashTables& tables, int64_t num_queries)
    : database_(database),
      tables_(tables),
      kernels_(scan_kernels()),
      num_queries_(num_queries),
      costs_(database.codes, num_queries, 0),
      counts_(static_cast<size_t>(all() + 1)) {
  for (int j = 0; j < this->tables(); ++j) {
    first_offsets_[j] = tables_.layout.first_offset(j);
    masks_[j] = ((uint64_t{1} << tables_.layout.bits(j)) - 1) << tables_.layout.starts[j] % 64;
  }
}

int64_t HashQuery::rows_of(int64_t code) const {
  return database_.offsets == nullptr ? 1 : Expander::count(database_, code);
}

// Calls visit(place of the first code in the table, how many) for the buckets of a step.
template <class Visit>
void HashQuery::buckets(int32_t r, Visit visit) const {
  const int table = r % tables(), bits = tables_.layout.bits(table), flips = r / tables();
  const int32_t* offsets = tables_.offsets + first_offsets_[table];
  if (flips > bits) return;
  const Codes& codes = database_.codes;
  const uint8_t* rows = tables_.rows + table * codes.count * codes.width;
  const uint64_t end = uint64_t{1} << bits;
  // Some at a time, so that the memory they lie in is waited for once and not for each.
  int64_t places[kBucketsAtATime], counts[kBucketsAtATime];
  for (uint64_t mask = (uint64_t{1} << flips) - 1; mask < end;) {
    int number = 0;
    do {
      const uint64_t bucket = parts_[table] ^ mask;
      places[number] = offsets[bucket];
      counts[number] = int64_t{offsets[bucket + 1]} - offsets[bucket];
      const uint8_t* first = rows + places[number] * codes.width;
      const int64_t bytes = std::min(counts[number++] * codes.width, kFetchedBytes);
      for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(first + i);
      if (mask == 0) break;
      const uint64_t low = mask & -mask, carried = mask + low;  // the next larger number with as many bits
      mask = carried | (((mask ^ carried) >> 2) >> __builtin_ctzll(low));
    } while (mask < end && number < kBucketsAtATime);
    for (int i = 0; i < number; ++i) visit(places[i], counts[i]);
    if (mask == 0) return;
  }
}

void HashQuery::start(const uint64_t* query, int32_t threshold, int64_t k) {
  query_ = query;
  for (int j = 0; j < tables(); ++j) parts_[j] = part_of(query, tables_.layout, j);
  selection_.threshold = threshold;
  selection_.count = selection_.limit = 0;
  selection_.query = 0;
  found_.clear();
  std::fill(counts_.begin(), counts_.end(), 0);
  k_ = k;
  costs_ = HashCosts(database_.codes, num_queries_, k);
  rows_within_ = steps_ = probes_ = candidates_ = taken_ = 0;
}

void HashQuery::step(int32_t r) {
  const int table = r % tables();
  const Codes& codes = database_.codes;
  const uint8_t* rows = tables_.rows + table * codes.count * codes.width;
  buckets(r, [&](int64_t first, int64_t count) {
    ++probes_;
    candidates_ += count;
    // In stretches, since what the first of them hold lowers the threshold for the others.
    for (int64_t size = kFirstStretch; count > 0; size *= 4) {
      const int64_t some = std::min(size, count);
      kernels_.scan_rows(rows + first * codes.width, codes.width, some, first,
                         {query_, codes.num_words(), &selection_, 1});
      if (selection_.count > 0) take(r, table);
      first += some;
      count -= some;
    }
  });
  ++steps_;
}

// Whether a step before r met a code, given how it differs from the query.
bool HashQuery::met_before(const uint64_t* differing, int32_t r) const {
  const bool one_word = database_.codes.num_words() == 1;
  for (int j = 0; j < tables() && (j < r || r > tables()); ++j) {
    const uint64_t part = one_word ? *differing & masks_[j] : part_of(differing, tables_.layout, j);
    if (part == 0 ? j < r : r > tables() && count_bits(part) * tables() + j < r) return true;
  }
  return false;
}

void HashQuery::take(int32_t r, int table) {
  taken_ += selection_.count;
  const Codes& codes = database_.codes;
  const int64_t start = table * codes.count;
  const size_t old = found_.size();
  uint64_t differing[kMaxWords];
  for (int64_t i = 0; i < selection_.count; ++i) {
    const int64_t distance = distance_of(selection_.keys[i]), place = start + index_of(selection_.keys[i]);
    if (distance > selection_.threshold) continue;
    differing[codes.num_words() - 1] = 0;
    std::memcpy(differing, tables_.rows + place * codes.width, static_cast<size_t>(codes.width));
    for (int w = 0; w < codes.num_words(); ++w) differing[w] ^= query_[w];
    if (met_before(differing, r)) continue;
    const int64_t code = tables_.positions[place];
    found_.push_back(static_cast<uint64_t>(distance) << kIndexBits | static_cast<uint64_t>(code));
    if (k_ > 0 && database_.offsets != nullptr) __builtin_prefetch(database_.offsets + code);
  }
  selection_.count = 0;
  if (k_ == 0) return;
  for (size_t i = old; i < found_.size(); ++i) {
    const int64_t rows = rows_of(index_of(found_[i]));
    counts_[static_cast<size_t>(distance_of(found_[i]))] += rows;
    if (distance_of(found_[i]) > selection_.threshold) continue;
    rows_within_ += rows;
    // Codes at the threshold are still taken: the first k of them by row are not known before all are.
    while (rows_within_ - counts_[static_cast<size_t>(selection_.threshold)] >= k_) {
      rows_within_ -= counts_[static_cast<size_t>(selection_.threshold--)];
    }
  }
}

double HashQuery::cost_of(int32_t r) const {
  const int bits = tables_.layout.bits(r % tables());
  // Near buckets are as full as those before, or as all are on average.
  const double average = static_cast<double>(database_.codes.count) / static_cast<double>(uint64_t{1} << bits);
  const double seen = static_cast<double>(candidates_) / static_cast<double>(std::max<int64_t>(1, probes_));
  const double size = r < 2 * tables() ? std::max(average, seen / bits) : std::max(average, seen);
  return choose(bits, r / tables()) * (costs_.bucket + size * costs_.candidate);
}

double HashQuery::cost_until(int32_t first, int32_t last) const {
  double cost = 0;
  for (int32_t r = first; r <= last && cost <= costs_.scan; ++r) cost += cost_of(r);
  return cost;
}

// Whether a scan seems cheaper than the steps from r on. The k-th neighbour is no farther than the threshold, and
// mostly no farther than it would be among random codes. Where codes cluster about the query the threshold falls with
// every step, and what little can be lost is worth another.
bool HashQuery::gives_up(int32_t r) {
  if (spent() + cost_until(r, std::min(selection_.threshold, std::max(r, usual_radius()))) <= costs_.scan) return false;
  const double all_buckets = static_cast<double>(uint64_t{1} << tables_.layout.bits(0));
  const double average = static_cast<double>(probes_) * static_cast<double>(database_.codes.count) / all_buckets;
  const bool clustered = static_cast<double>(candidates_) > kClustered * average;
  return !clustered || spent() + cost_of(r) > kStake * costs_.scan;
}

// How far the k-th neighbour is among as many random codes.
int32_t HashQuery::usual_radius() {
  if (usual_k_ == k_) return usual_radius_;
  double ways = std::ldexp(static_cast<double>(database_.codes.count), -all()), within = ways;
  int32_t d = 0;
  for (; d < all() && within < static_cast<double>(k_); ++d) {
    ways = ways * (all() - d) / (d + 1);
    within += ways;
  }
  usual_k_ = k_;
  return usual_radius_ = d;
}

double HashQuery::spent() const {
  // A scan, too, has work with a code that is found.
  const double found = k_ > 0 ? 0 : costs_.found * static_cast<double>(found_.size());
  return costs_.bucket * static_cast<double>(probes_) + costs_.candidate * static_cast<double>(candidates_) +
         costs_.taken * static_cast<double>(taken_) - found;
}

// Returns how many codes a step meets, and has the first of each bucket fetched into the cache.
int64_t HashQuery::fetch(int32_t r) const {
  int64_t total = 0;
  buckets(r, [&](int64_t, int64_t count) { total += count; });
  return total;
}

void HashQuery::prefetch(const uint64_t* query) const {
  for (int j = 0; j < tables(); ++j) {
    __builtin_prefetch(tables_.offsets + first_offsets_[j] + part_of(query, tables_.layout, j));
  }
}

// Of the buckets that differ in no bit.
double HashQuery::first_cost() const {
  int64_t candidates = 0;
  for (int32_t r = 0; r < tables(); ++r) candidates += fetch(r);
  return costs_.bucket * tables() + costs_.candidate * static_cast<double>(candidates);
}

bool HashQuery::nearest(const uint64_t* query, int64_t k, bool force) {
  start(query, all(), k);
  if (!force && first_cost() > costs_.scan / 2) return false;
  for (int32_t r = 0; r <= all(); ++r) {
    if (!force && r >= tables() && gives_up(r)) return false;
    step(r);
    if (selection_.threshold <= r) break;
  }
  finish();
  return true;
}

bool HashQuery::within(const uint64_t* query, int32_t radius, bool force) {
  start(query, std::min(radius, all()), 0);
  double probes = 0, candidates = 0;
  if (!force) {
    for (int32_t r = 0; r <= selection_.threshold; ++r) {
      probes += choose(tables_.layout.bits(r % tables()), r / tables());
      if (probes * costs_.bucket > costs_.scan) return false;
    }
    for (int32_t r = 0; r <= selection_.threshold; ++r) candidates += static_cast<double>(fetch(r));
    if (probes * costs_.bucket + candidates * costs_.candidate > costs_.scan) return false;
  }
  for (int32_t r = 0; r <= selection_.threshold; ++r) {
    if (!force && r >= tables()) {
      // What is left has no more codes that are near enough, and so met again, than what was read.
      const double near = static_cast<double>(taken_) / static_cast<double>(std::max<int64_t>(1, candidates_));
      const double each = costs_.candidate + std::max(0.0, costs_.taken - costs_.found) * near;
      const double left = (probes - static_cast<double>(probes_)) * costs_.bucket +
                          (candidates - static_cast<double>(candidates_)) * each;
      if (spent() + left > costs_.scan) return false;
    }
    step(r);
  }
  finish();
  return true;
}

HashPlan HashQuery::plan(const uint64_t* query, int64_t k) {
  start(query, all(), k);
  double cost = first_cost();
  bool hash = cost <= costs_.scan / 2;
  if (hash) {
    for (int32_t r = 0; r < tables(); ++r) step(r);
    cost = spent() + cost_until(tables(), std::min(selection_.threshold, usual_radius()));
    hash = selection_.threshold < tables() || !gives_up(tables());
  }
  return {hash, cost, costs_.scan, candidates_, selection_.threshold};
}

FoundCodes HashQuery::found() {
  distances_.clear();
  codes_.clear();
  for (const uint64_t key : found_) {
    distances_.push_back(static_cast<int32_t>(distance_of(key)));
    codes_.push_back(index_of(key));
  }
  return {distances_.data(), codes_.data(), static_cast<int64_t>(codes_.size()), false};
}

// Drops what was taken before the threshold was as low as it is.
void HashQuery::finish() {
  const int64_t limit = selection_.threshold;
  found_.erase(std::remove_if(found_.begin(), found_.end(), [limit](uint64_t key) { return distance_of(key) > limit; }),
               found_.end());
  sort_keys(found_, database_.codes.count, all() + 1);
}

}  // namespace adsq::cpu
