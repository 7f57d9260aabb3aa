#include "cpu/hamming_hash_query.h"

#include <cmath>
#include <limits>
#include <utility>

namespace adsq::cpu {
namespace {

constexpr int64_t kFetchedBytes = 512;  // of a bucket; what follows them the processor sees coming
constexpr double kTaken = 5;            // codes that are taken for each that is wanted
constexpr int64_t kFirstStretch = 16;   // codes that are compared before any is taken; four times as many each time
constexpr int64_t kLastStretch = 1 << 14;

}  // namespace

HashQuery::HashQuery(const DistinctCodes& database, const HashTables& tables, const HashCosts& costs, int64_t k)
    : database_(database),
      tables_(tables),
      kernels_(scan_kernels()),
      k_(k),
      costs_(costs),
      counts_(static_cast<size_t>(all() + 1)),
      usual_taken_(kTaken * static_cast<double>(k) * static_cast<double>(database.codes.count) /
                   static_cast<double>(std::max<int64_t>(1, database.num_rows))) {
  for (int j = 0; j < this->tables(); ++j) {
    order_[j] = j;
    first_offsets_[j] = tables_.layout.first_offset(j);
    masks_[j] = ((uint64_t{1} << tables_.layout.bits(j)) - 1) << tables_.layout.starts[j] % 64;
  }
  const FrequentCodes& frequent = tables_.frequent;
  if (k == 0 || database.offsets == nullptr) return;
  int64_t some = 0;
  while (some < frequent.count && frequent.counts[some] >= static_cast<double>(k)) ++some;
  static_assert(FrequentCodes::kMost <= FewCodes::kMost);
  frequent_ = FewCodes(frequent.rows, some, database.codes.width);
}

// How far the k-th row is at most.
int32_t HashQuery::farthest() const { return frequent_.empty() ? all() : frequent_.nearest(query_).distance; }

// Calls visit(place of the first code in the table, how many) for buckets whose part differs in so many bits.
template <class Visit>
void HashQuery::buckets(int table, int flips, Visit visit) const {
  const int bits = tables_.layout.bits(table);
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

void HashQuery::start(const uint64_t* query, int32_t threshold) {
  query_ = query;
  for (int j = 0; j < tables(); ++j) {
    parts_[j] = part_of(query, tables_.layout, j);
    sizes_[j] = bucket(j)[1] - bucket(j)[0];
  }
  selection_.threshold = threshold;
  selection_.count = selection_.limit = 0;
  selection_.query = 0;
  found_.clear();
  if (k_ > 0) std::fill(counts_.begin(), counts_.end(), 0);
  rows_within_ = steps_ = probes_ = candidates_ = taken_ = 0;
  std::fill_n(levels_, num_levels_, Level{});
  num_levels_ = 0;
  order_tables();
  expected_radius_ = -1;
  sampled_ = 0;
  cost_ = std::numeric_limits<double>::infinity();
}

void HashQuery::order_tables() {
  for (int32_t s = 1; s < tables(); ++s) {
    const int table = order_[s];
    const int32_t size = sizes_[table];
    int32_t place = s;
    for (; place > 0 && sizes_[order_[place - 1]] > size; --place) order_[place] = order_[place - 1];
    order_[place] = table;
  }
}

void HashQuery::step(int32_t r) {
  const int flips = r / tables(), table = order_[r - flips * tables()];
  const Codes& codes = database_.codes;
  const uint8_t* rows = tables_.rows + table * codes.count * codes.width;
  const int64_t probes = probes_, candidates = candidates_;
  // In stretches, since what the first codes hold lowers the threshold for the others; once it is known, in one.
  int64_t number = 0, size = 0, most = rows_within_ < k_ ? kFirstStretch : kLastStretch;
  const auto compare = [&] {
    kernels_.scan_rows(stretches_, number, codes.width, {query_, codes.num_words(), &selection_, 1});
    if (selection_.count > 0) take(r, selection_.keys, std::exchange(selection_.count, 0));
    number = size = 0;
    most = std::min(4 * most, kLastStretch);
  };
  buckets(table, flips, [&](int64_t first, int64_t count) {
    ++probes_;
    candidates_ += count;
    while (count > 0) {
      const int64_t some = std::min(most - size, count);
      stretches_[number++] = {rows + first * codes.width, some, table * codes.count + first};
      size += some;
      first += some;
      count -= some;
      if (size == most || number == kBucketsAtATime) compare();
    }
  });
  if (number > 0) compare();
  ++steps_;
  num_levels_ = flips + 1;
  levels_[flips].probes += static_cast<double>(probes_ - probes);
  levels_[flips].candidates += static_cast<double>(candidates_ - candidates);
}

// The first steps of a search within a radius, at most kBucketsAtATime: each reads one bucket, and none lowers the
// threshold for those after it.
void HashQuery::first_steps(int32_t count) {
  const Codes& codes = database_.codes;
  for (int32_t s = 0; s < count; ++s) {
    const int table = order_[s];
    const int64_t place = table * codes.count + *bucket(table);
    stretches_[s] = {tables_.rows + place * codes.width, sizes_[table], place};
    candidates_ += sizes_[table];
  }
  kernels_.scan_rows(stretches_, count, codes.width, {query_, codes.num_words(), &selection_, 1});
  // What was found lies in the order of the buckets.
  const uint64_t *keys = selection_.keys, *end = keys + std::exchange(selection_.count, 0);
  for (int32_t s = 0; s < count && keys < end; ++s) {
    const uint64_t* last = keys;
    const int64_t first = stretches_[s].first;
    while (last < end && first <= index_of(*last) && index_of(*last) < first + stretches_[s].count) ++last;
    if (keys < last) take(s, keys, last - keys);
    keys = last;
  }
  steps_ += count, probes_ += count;
}

void HashQuery::prefetch(const uint64_t* query) const {
  for (int j = 0; j < tables(); ++j) {
    __builtin_prefetch(tables_.offsets + first_offsets_[j] + part_of(query, tables_.layout, j));
  }
}

void HashQuery::prefetch_rows(const uint64_t* query) const {
  constexpr int64_t kBytes = 128;
  const Codes& codes = database_.codes;
  for (int j = 0; j < tables(); ++j) {
    const int64_t place = tables_.offsets[first_offsets_[j] + part_of(query, tables_.layout, j)];
    const uint8_t* first = tables_.rows + (j * codes.count + place) * codes.width;
    for (int64_t i = 0; i <= kBytes; i += 64) __builtin_prefetch(first + i);
  }
}

// Returns how many codes a step meets.
int64_t HashQuery::count_codes(int32_t r) const {
  if (r < tables()) return sizes_[order_[r]];
  int64_t total = 0;
  buckets(table(r), r / tables(), [&](int64_t, int64_t count) { total += count; });
  return total;
}

// Whether the rows with the query's own code are enough: trained codes often are a query's as well. They are in a
// bucket of every table.
bool HashQuery::equal_are_enough() {
  const int table = order_[0];
  const int64_t count = sizes_[table];
  if (!few_codes(count)) return false;
  const int32_t threshold = std::exchange(selection_.threshold, 0);
  const Codes& codes = database_.codes;
  const int64_t first = *bucket(table);
  const int64_t place = table * codes.count + first;
  const Rows bucket{tables_.rows + place * codes.width, count, place};
  kernels_.scan_rows(&bucket, 1, codes.width, {query_, codes.num_words(), &selection_, 1});
  if (selection_.count > 0) take(0, selection_.keys, std::exchange(selection_.count, 0));
  if (rows_within_ >= k_) return true;
  // They will be met again.
  found_.clear();
  counts_[0] = rows_within_ = taken_ = 0;
  selection_.threshold = threshold;
  return false;
}

bool HashQuery::nearest(const uint64_t* query, bool force) {
  start(query, all());
  selection_.threshold = farthest();
  if (equal_are_enough()) {
    finish();
    return true;
  }
  if (!force && too_much_at_first()) return false;
  bool done = false;
  for (int32_t r = 0; r <= all() && !done; ++r) {
    if (!force && r > 0 && r % tables() == 0 && gives_up(r)) break;
    step(r);
    done = selection_.threshold <= r;
  }
  learn_taken();
  if (done) finish();
  return done;
}

bool HashQuery::within(const uint64_t* query, int32_t radius, bool force) {
  start(query, std::min(radius, all()));
  if (!force && !counts_buckets()) return false;
  const bool ask = !force && !sure_;
  const int32_t first = ask ? 0 : std::min({tables(), selection_.threshold + 1, kBucketsAtATime});
  if (first > 0) first_steps(first);
  for (int32_t r = first; r <= selection_.threshold; ++r) {
    if (ask && r > 0 && gives_up_within()) return false;
    step(r);
  }
  finish();
  return true;
}

HashPlan HashQuery::plan(const uint64_t* query) {
  start(query, all());
  selection_.threshold = farthest();
  if (equal_are_enough()) return {true, cost_ = spent(), costs_.scan, candidates_, 0};
  bool hash = !too_much_at_first();
  if (hash) {
    for (int32_t r = 0; r < tables(); ++r) step(r);
    hash = selection_.threshold < tables() || !gives_up(tables());
  }
  const int32_t radius = expected_radius_ < 0 ? selection_.threshold : std::min(selection_.threshold, expected_radius_);
  if (hash && selection_.threshold < tables()) cost_ = spent() + costs_.result + costs_.call;
  return {hash, std::isfinite(cost_) ? cost_ : first_cost(), costs_.scan, candidates_, radius};
}

}  // namespace adsq::cpu
