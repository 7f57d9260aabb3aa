// What a query takes by hash tables and by a scan, in nanoseconds: measured on one machine (Zen 4), on random,
// clustered and trained codes. Only the ratios matter, and these move little from machine to machine.
#pragma once
#include <algorithm>
#include <cstdint>

#include "cpu/distinct_codes.h"

namespace adsq::cpu {

struct HashCosts {
  static constexpr int64_t kCacheBytes = 2 << 20, kMemoryBytes = 24 << 20;
  static constexpr int64_t kBatchQueries = 12;  // from so many on, queries share the reading of a scan

  double bucket;     // finding a bucket and reading its first codes
  double candidate;  // each code in it
  double taken;      // each code in it that is near enough
  double scan;       // a whole scan
  double found;      // each code that a scan finds

  HashCosts(const Codes& codes, int64_t num_queries, int64_t k) {
    const int64_t bytes = codes.count * codes.width;
    const double words = static_cast<double>(codes.num_words()), count = static_cast<double>(codes.count) * words;
    const bool batch = num_queries >= kBatchQueries;
    bucket = bytes <= kCacheBytes ? 30 : bytes <= kMemoryBytes ? 60 : 100;
    candidate = words * (bytes <= kCacheBytes ? 0.25 : bytes <= kMemoryBytes ? 0.5 : 0.8);
    taken = 18;
    found = 12;
    const double alone = bytes <= kCacheBytes ? 0.085 : bytes <= kMemoryBytes ? 0.12 : 0.29;
    const double shared = 0.033 + 2.0 / static_cast<double>(std::max<int64_t>(1, num_queries));
    scan = count * (batch ? std::min(alone, shared) : alone);
    if (k > 0) scan += 1000 + (batch ? 50 : 150) * static_cast<double>(std::min(k, codes.count));  // choosing them
  }
};

}  // namespace adsq::cpu
