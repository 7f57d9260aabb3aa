// What a search by hash tables will take, as far as can be told before and in the midst of it.
#include <cmath>

#include "cpu/hamming_hash_query.h"

namespace adsq::cpu {
namespace {

constexpr double kSearches = 8;        // of which what they took is the mean, about
constexpr double kFarther = 0.25;      // of searches, which end a step later than expected
constexpr double kGrowth = 3;          // codes within r + 1 bits for each within r, where there are few
constexpr double kLittle = 0.1;        // of a scan
constexpr double kCompared = 0.25;     // of what a code in a bucket takes, where it is far
constexpr double kMostAtFirst = 0.75;  // of a scan
constexpr double kMostScans = 2;       // that a search may seem to take, with what is spent, before it is given up

double choose(int n, int k) {
  if (k > n) return 0;
  double ways = 1;
  for (int i = 0; i < k; ++i) ways = ways * (n - i) / (i + 1);
  return ways;
}

}  // namespace

// Whether looking for equal codes among these costs little beside a scan: next to none of them is taken.
bool HashQuery::few_codes(int64_t candidates) const {
  return costs_.step + kCompared * costs_.candidate * static_cast<double>(candidates) < kLittle * costs_.scan;
}

// Codes that are taken before better ones are found cost more than all else where buckets are small. How many these are
// the searches before tell; the first is taken to need few for each code that is wanted.
double HashQuery::left_to_take() const { return std::max(0.0, usual_taken_ - static_cast<double>(taken_)); }

void HashQuery::learn_taken() { usual_taken_ += (static_cast<double>(taken_) - usual_taken_) / kSearches; }

// Of the buckets that differ in no bit, which hold many of the codes that are taken.
double HashQuery::first_cost() const {
  const int32_t steps = std::min(tables(), selection_.threshold + 1);
  int64_t candidates = 0;
  for (int32_t r = 0; r < steps; ++r) candidates += count_codes(r);
  return costs_.start + (costs_.step + costs_.bucket) * steps + costs_.candidate * static_cast<double>(candidates) +
         costs_.taken * left_to_take() / 2 + costs_.result + costs_.call;
}

bool HashQuery::too_much_at_first() {
  const bool is_all = selection_.threshold < tables();
  const double cost = first_cost();
  if (is_all) cost_ = cost;
  return cost > (is_all ? costs_.scan : kMostAtFirst * costs_.scan);
}

double HashQuery::took() const {
  return costs_.start + costs_.step * static_cast<double>(steps_) + costs_.bucket * static_cast<double>(probes_) +
         costs_.candidate * static_cast<double>(candidates_) + costs_.taken * static_cast<double>(taken_) + sampled_;
}

double HashQuery::spent() const { return took() - costs_.found * static_cast<double>(found_.size()); }

// How full buckets are that differ in so many bits. About a query that has a cluster they become less full by about the
// same factor with each bit, until they are as full as all are on average.
double HashQuery::fullness(int flips, int bits) const {
  const double average = static_cast<double>(database_.codes.count) / static_cast<double>(uint64_t{1} << bits);
  int known = flips;
  while (known > 0 && levels_[known].probes == 0) --known;
  if (levels_[known].probes == 0) return average;
  double ratio = 1 / static_cast<double>(bits);
  if (known > 0) ratio = std::min(1.0, levels_[known].fullness() / std::max(average, levels_[known - 1].fullness()));
  return std::max(average, levels_[known].fullness() * std::pow(ratio, flips - known));
}

// What the steps from r on take if the last is `last`.
double HashQuery::left_nearest(int32_t r, int32_t last) const {
  double cost = costs_.taken * left_to_take() + costs_.result + costs_.call;
  for (; r <= last + 1 && cost <= costs_.alone; ++r) {
    const int bits = tables_.layout.bits(table(r)), flips = r / tables();
    const double step = costs_.step + choose(bits, flips) * (costs_.bucket + fullness(flips, bits) * costs_.candidate);
    cost += r <= last ? step : last < selection_.threshold ? kFarther * step : 0;
  }
  return cost;
}

// Whether a scan seems cheaper than the steps from r on. What is spent already counts only where the estimates have
// proved wrong.
bool HashQuery::gives_up(int32_t r) {
  double left = left_nearest(r, selection_.threshold);
  if (left > costs_.scan) {
    if (expected_radius_ < 0) expect_radius();
    left = left_nearest(r, std::min(selection_.threshold, std::max(r, expected_radius_)));
  }
  cost_ = spent() + left;
  return left > costs_.scan || cost_ > kMostScans * costs_.scan;
}

// Estimates the distance of the k-th row from a sample of codes; at most what it is among random codes.
void HashQuery::expect_radius() {
  if (usual_radius_ < 0) usual_radius_ = usual_radius();
  expected_radius_ = usual_radius_;
  const Codes& codes = database_.codes;
  const int64_t size = HashLayout::sample_size(codes.count);
  sampled_ = costs_.alone * static_cast<double>(size) / static_cast<double>(codes.count);
  sample_.threshold = std::min(selection_.threshold, expected_radius_);
  sample_.count = sample_.limit = 0;
  const Rows sample{tables_.sample, size, 0};
  kernels_.scan_rows(&sample, 1, codes.width, {query_, codes.num_words(), &sample_, 1});
  sample_counts_.assign(counts_.size(), 0);
  for (int64_t i = 0; i < sample_.count; ++i) ++sample_counts_[static_cast<size_t>(distance_of(sample_.keys[i]))];
  const double wanted = static_cast<double>(k_) * static_cast<double>(size) / static_cast<double>(database_.num_rows);
  double within = 0;
  for (int32_t r = 0; r <= sample_.threshold; ++r) {
    within += static_cast<double>(sample_counts_[static_cast<size_t>(r)]);
    if (within == 0 || within < wanted) continue;
    // Where less than one of the sample is wanted, the nearest of these is too far.
    const double fewer = wanted < 1 ? std::log(within / wanted) / std::log(kGrowth) : 0;
    expected_radius_ = std::max(0, r - static_cast<int32_t>(fewer));
    return;
  }
}

// How far the k-th neighbour is among as many random codes.
int32_t HashQuery::usual_radius() const {
  double ways = std::ldexp(static_cast<double>(database_.codes.count), -all()), within = ways;
  int32_t d = 0;
  for (; d < all() && within < static_cast<double>(k_); ++d) {
    ways = ways * (all() - d) / (d + 1);
    within += ways;
  }
  return d;
}

// Counts the buckets and codes that a search within a radius meets. Returns whether these seem cheaper than a scan;
// sure_ tells that they do even if all the codes are near.
bool HashQuery::counts_buckets() {
  const int32_t own = std::min(tables(), selection_.threshold + 1);
  all_probes_ = own, all_candidates_ = 0;
  for (int32_t r = own; r <= selection_.threshold; ++r) {
    all_probes_ += choose(tables_.layout.bits(table(r)), r / tables());
    if (all_probes_ * costs_.bucket > costs_.alone) return false;
  }
  for (int32_t r = 0; r <= selection_.threshold; ++r) all_candidates_ += static_cast<double>(count_codes(r));
  cost_ = costs_.start + costs_.step * (selection_.threshold + 1) + all_probes_ * costs_.bucket +
          all_candidates_ * costs_.candidate + costs_.result + costs_.call;
  const double found = std::max(0.0, costs_.taken - costs_.found) * all_candidates_;
  sure_ = cost_ + found <= costs_.scan;
  return cost_ <= costs_.scan;
}

// Whether a scan seems cheaper than what is left of these. That has no more codes that are near enough, and so met
// again, than what was read.
bool HashQuery::gives_up_within() {
  const double near = static_cast<double>(taken_) / static_cast<double>(std::max<int64_t>(1, candidates_));
  const double each = costs_.candidate + std::max(0.0, costs_.taken - costs_.found) * near;
  const double steps = selection_.threshold + 1 - static_cast<double>(steps_);
  const double left = costs_.step * steps + (all_probes_ - static_cast<double>(probes_)) * costs_.bucket +
                      (all_candidates_ - static_cast<double>(candidates_)) * each;
  cost_ = spent() + left;
  return left > costs_.scan;
}

}  // namespace adsq::cpu
