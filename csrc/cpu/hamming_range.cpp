#include <algorithm>
#include <cstdlib>
#include <utility>

#include "cpu/hamming_results.h"

namespace adsq::cpu {
namespace {

constexpr int64_t kResultsATask = 1 << 17;

}  // namespace

RangeSearch::RangeSearch(const Codes& queries, const Codes& database, int64_t radius, const Threads& threads)
    : threads_(threads), num_distances_(static_cast<int>(8 * database.width + 1)), offsets_(1, 0) {
  const ScanKernels& kernels = scan_kernels();
  const auto words = query_words(kernels, queries);
  const auto threshold = static_cast<int32_t>(std::min<int64_t>(radius, num_distances_ - 1));
  const Split split = split_work(database, queries.count, threads.count);
  parts_ = split.codes;
  selections_.all.resize(static_cast<size_t>(parts_ * queries.count));
  threads.run(split.codes * split.queries, [&](int64_t task) {
    const int64_t part = task / split.queries, share = task % split.queries;
    const int64_t last = queries.count * (share + 1) / split.queries;
    for (int64_t first = queries.count * share / split.queries; first < last; first += kQueriesAtATime) {
      OwnedSelections owned;  // as long as the search may throw
      std::vector<Selection>& some = owned.all;
      for (int64_t q = first; q < std::min(first + kQueriesAtATime, last); ++q) {
        some.push_back({nullptr, 0, 0, 0, threshold, static_cast<int32_t>(q)});
      }
      scan_part(kernels, database, part_start(database.count, part, parts_),
                part_start(database.count, part + 1, parts_),
                {words.get(), database.num_words(), some.data(), static_cast<int64_t>(some.size())});
      for (Selection& selection : some) {
        std::swap(selection, selections_.all[static_cast<size_t>(selection.query * parts_ + part)]);
      }
    }
  });
  for (int64_t q = 0; q < queries.count; ++q) {
    int64_t total = offsets_.back();
    for (int64_t p = 0; p < parts_; ++p) total += selections_.all[static_cast<size_t>(q * parts_ + p)].count;
    offsets_.push_back(total);
  }
}

OwnedSelections::~OwnedSelections() {
  for (const Selection& selection : all) std::free(selection.keys);
}

void RangeSearch::write(const int64_t* ids, int32_t* distances, int64_t* indices) const {
  const auto count = static_cast<int64_t>(offsets_.size()) - 1;
  const int64_t tasks = std::max<int64_t>(1, std::min({threads_.count, count, offsets_.back() / kResultsATask}));
  threads_.run(tasks, [&](int64_t task) {
    std::vector<int64_t> starts(static_cast<size_t>(num_distances_ + 1));
    for (int64_t q = count * task / tasks; q < count * (task + 1) / tasks; ++q) {
      std::fill(starts.begin(), starts.end(), 0);
      starts[0] = offsets_[static_cast<size_t>(q)];
      const Selection* parts = selections_.all.data() + q * parts_;
      for (int64_t p = 0; p < parts_; ++p) {
        for (int64_t i = 0; i < parts[p].count; ++i) ++starts[static_cast<size_t>(distance_of(parts[p].keys[i]) + 1)];
      }
      for (int d = 0; d < num_distances_; ++d) starts[static_cast<size_t>(d + 1)] += starts[static_cast<size_t>(d)];
      for (int64_t p = 0; p < parts_; ++p) {
        for (int64_t i = 0; i < parts[p].count; ++i) {
          const uint64_t key = parts[p].keys[i];
          const int64_t place = starts[static_cast<size_t>(distance_of(key))]++;
          distances[place] = static_cast<int32_t>(distance_of(key));
          indices[place] = ids == nullptr ? index_of(key) : ids[index_of(key)];
        }
      }
    }
  });
}

}  // namespace adsq::cpu
