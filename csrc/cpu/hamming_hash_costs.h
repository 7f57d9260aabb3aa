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

  double step;       // waiting for the first of several buckets
  double bucket;     // finding a bucket and reading its first codes
  double candidate;  // each code in it
  double taken;      // each code in it that is near enough
  double scan;       // a whole scan, shared by some queries
  double alone;      // a scan for one query
  double found;      // each code that a scan finds

  HashCosts(const Codes& codes, int64_t num_queries, int64_t k) {
    const int64_t bytes = codes.count * codes.width;
    const double words = static_cast<double>(codes.num_words()), count = static_cast<double>(codes.count) * words;
    step = bytes <= kCacheBytes ? 30 : bytes <= kMemoryBytes ? 300 : 400;
    bucket = bytes <= kCacheBytes ? 30 : bytes <= kMemoryBytes ? 50 : 40;
    candidate = words * (bytes <= kCacheBytes ? 0.25 : bytes <= kMemoryBytes ? 0.5 : 0.8);
    taken = k > 0 ? 28 : 18;
    found = 12;
    // What queries share of a scan, and what they do not. From kBatchQueries on they go by bit planes.
    const double streamed = bytes <= kCacheBytes ? 0.04 : bytes <= kMemoryBytes ? 0.06 : 0.25;
    const auto scan_of = [&](int64_t queries) {
      const bool batch = queries >= kBatchQueries;
      const double shared = batch ? 0.38 : streamed, each = batch ? 0.0245 : 0.042;
      const double reading = count * (each + shared / static_cast<double>(std::max<int64_t>(1, queries)));
      if (k == 0) return reading;
      return reading + 1000 + (batch ? 30 : 100) * static_cast<double>(std::min(k, codes.count));  // choosing them
    };
    scan = scan_of(num_queries);
    alone = scan_of(1);
  }
};

}  // namespace adsq::cpu
