// What searches by hash tables have taken, and the scans in their place, beside what the model of costs says.
//
// What the model cannot know: whether queries and buckets are in the cache, and how codes lie about the queries that
// come. So it learns two factors from the time of each call, for searches of about as many neighbours, or within about
// the same radius (adsq/_hash.py), and of about as many queries. Only speed depends on them.
// Several threads may search at the same time. Each number is read and written as a whole, and what is learned at the
// same moment by another thread may be lost.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

namespace adsq::cpu {

class HashLearned {
 public:
  static constexpr int64_t kBatches = 3, kParts = 3, kNumbers = kBatches * kParts;

  // Zeros where nothing is learned yet; null: nothing is learned, ever.
  explicit HashLearned(double* numbers) : numbers_(numbers) {}

  // How many times as long as in the model calls take with so many queries.
  double tables(int64_t num_queries) const { return std::exp(get(num_queries, kTables)); }
  double scans(int64_t num_queries) const { return std::exp(get(num_queries, kScans)); }
  // What searches that were given up have lost, in scans.
  double lost(int64_t num_queries) const { return get(num_queries, kLost); }
  void set_lost(int64_t num_queries, double scans) const { set(num_queries, kLost, scans, kMostLost); }

  // From calls that took so many times as long as the model says, factors included.
  void learn_tables(int64_t num_queries, double ratio) const { learn(num_queries, kTables, ratio); }
  void learn_scans(int64_t num_queries, double ratio) const { learn(num_queries, kScans, ratio); }
  // Of what was not used in a call, the factor slowly returns to 1: else a way that once was slow is never seen again.
  void forget_tables(int64_t num_queries) const { forget(num_queries, kTables); }
  void forget_scans(int64_t num_queries) const { forget(num_queries, kScans); }

 private:
  enum Part { kTables, kScans, kLost };  // the factors as logarithms
  static constexpr double kShare = 0.25, kMostAtOnce = 0.5, kMost = 3, kForgotten = 1.0 / 1024;
  static constexpr double kMostLost = 1.5;  // much that was saved is no reason to lose as much later

  double* at(int64_t num_queries, Part part) const {
    return numbers_ + (num_queries < 8 ? 0 : num_queries < 256 ? 1 : 2) * kParts + part;
  }
  double get(int64_t num_queries, Part part) const {
    double number = 0;
    if (numbers_ != nullptr) __atomic_load(at(num_queries, part), &number, __ATOMIC_RELAXED);
    return std::isnan(number) ? 0 : std::clamp(number, -kMost, kMost);
  }
  void set(int64_t num_queries, Part part, double number, double most) const {
    if (numbers_ == nullptr || std::isnan(number)) return;
    number = std::clamp(number, -most, most);
    __atomic_store(at(num_queries, part), &number, __ATOMIC_RELAXED);
  }
  // In small steps: a call may have been disturbed.
  void learn(int64_t num_queries, Part part, double ratio) const {
    const double step = ratio > 0 ? std::clamp(std::log(ratio), -kMostAtOnce, kMostAtOnce) : 0;
    set(num_queries, part, get(num_queries, part) + kShare * step, kMost);
  }
  void forget(int64_t num_queries, Part part) const {
    set(num_queries, part, (1 - kForgotten) * get(num_queries, part), kMost);
  }

  double* numbers_;
};

}  // namespace adsq::cpu
