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
  static constexpr int64_t kBatches = 3, kParts = 8, kNumbers = kBatches * kParts;

  // `numbers` are zeros where nothing is learned yet; null: nothing is learned, ever.
  HashLearned(double* numbers, int64_t num_queries)
      : numbers_(numbers),
        num_queries_(num_queries),
        batch_((num_queries >= 8) + (num_queries >= 256)),
        most_lost_(kMostLost[batch_]) {}

  // How many times as long as in the model the tables take, and a scan of so many of the queries.
  double tables() const { return std::exp(get(kTables)); }
  double scans(int64_t count) const { return std::exp(get(scan_part(count))); }
  // Whether calls that began in the tables have lost so much that this one is scanned. Then others try again, several
  // of them, since the first one finds nothing in the cache. Below zero: calls that are scanned to compare, which
  // adsq/_hash.py leaves to this.
  bool waits() const {
    const double calls = get(kWaiting, most_calls());
    if (calls != 0) set(kWaiting, calls > 0 ? calls - 1 : std::min(0.0, calls + 1), most_calls());
    return calls != 0;
  }

  // Whether calls have not saved much so far. That they do not may be a mistake: searches that are given up do not tell
  // what they take to their end, and the first ones find nothing in the cache.
  bool doubts() const { return numbers_ != nullptr && get(kLost, most_lost_) > -most_lost_; }

  // How many of so many queries will be left to a scan, as they were in calls before: the fewer share it, the more it
  // takes each, and the less is it worth to leave one.
  int64_t rest(int64_t count) const {
    return std::max<int64_t>(1, std::llround(static_cast<double>(count) * (1 - std::max(0.0, get(kKept, 1)))));
  }
  void learn_rest(int64_t count) const {
    const double kept = 1 - static_cast<double>(count) / static_cast<double>(std::max<int64_t>(1, num_queries_));
    set(kKept, get(kKept, 1) + kShare * (kept - get(kKept, 1)), 1);
  }

  // From what took so many times as long as the model says, factors included.
  void learn_tables(double ratio) const { learn(kTables, ratio); }
  void learn_scans(int64_t count, double ratio) const { learn(scan_part(count), ratio); }
  // Of what was not used in a call, the factor slowly returns to 1: else a way that once was slow is never seen again.
  void forget_tables() const { forget(kTables); }
  void forget_scans(int64_t count) const { forget(scan_part(count)); }
  // A call that began in the tables has lost so much, in scans of all its queries; below zero, saved.
  void lose(double scans) const {
    const double lost = get(kLost, most_lost_) + scans;
    set(kLost, lost > most_lost_ ? 0 : lost, most_lost_);
    if (lost <= -most_lost_) set(kWaited, 0, most_calls());
    if (lost <= most_lost_) return;
    const double calls = std::max(16 * most_lost_, 2 * get(kWaited, most_calls()));
    set(kWaited, calls, most_calls());
    set(kWaiting, calls, most_calls());
  }
  // A call was about as quick as scanning all its queries is said to be, which nobody has seen: some of the next are
  // scanned, now and then.
  void compare_with_scans() const {
    const double calls = get(kClose, kCloseCalls) + 1;
    set(kClose, calls < kFirstClose ? calls : kFirstClose - kCloseCalls, kCloseCalls);
    if (calls >= kFirstClose && get(kWaiting, most_calls()) == 0) set(kWaiting, -kCompared, most_calls());
  }

 private:
  // Factors as logarithms. Scans of few that are left take longer: the others have driven the codes out of the cache.
  enum Part { kTables, kScans, kScansOfRest, kLost, kWaited, kWaiting, kKept, kClose };
  static constexpr double kShare = 0.25, kMostAtOnce = 0.5, kMost = 3, kForgotten = 1.0 / 1024;
  static constexpr double kCloseCalls = 128, kFirstClose = 2, kCompared = 4;
  static constexpr double kMostLost[kBatches] = {4, 2, 0.25};

  double most_calls() const { return 128 * most_lost_; }  // so that trying costs about 1 %
  Part scan_part(int64_t count) const { return 2 * count >= num_queries_ ? kScans : kScansOfRest; }
  double* at(Part part) const { return numbers_ + batch_ * kParts + part; }
  double get(Part part, double most = kMost) const {
    double number = 0;
    if (numbers_ != nullptr) __atomic_load(at(part), &number, __ATOMIC_RELAXED);
    return std::isnan(number) ? 0 : std::clamp(number, -most, most);
  }
  void set(Part part, double number, double most) const {
    if (numbers_ == nullptr || std::isnan(number)) return;
    number = std::clamp(number, -most, most);
    __atomic_store(at(part), &number, __ATOMIC_RELAXED);
  }
  // In small steps: a call may have been disturbed.
  void learn(Part part, double ratio) const {
    const double step = ratio > 0 ? std::clamp(std::log(ratio), -kMostAtOnce, kMostAtOnce) : 0;
    set(part, get(part) + kShare * step, kMost);
  }
  void forget(Part part) const { set(part, (1 - kForgotten) * get(part), kMost); }

  double* const numbers_;
  const int64_t num_queries_, batch_;
  // Scans that may be lost before calls wait: many for calls that are short, for the first ones find nothing in the
  // cache. That much saved is no reason to lose more later.
  const double most_lost_;
};

}  // namespace adsq::cpu
