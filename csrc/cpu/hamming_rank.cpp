#include "cpu/hamming_results.h"
#include "cpu/memory.h"

namespace adsq::cpu {
namespace {

constexpr int64_t kRankedCodes = 1 << 17;  // distances that are held at a time, per thread
constexpr int64_t kStreamed = 1 << 14;     // from how many indices of a query on they are written past the caches

class Ranker {
 public:
  explicit Ranker(const Search& search)
      : search_(search),
        allowed_(search.allowed),
        // Several queries share the spreading of a block, as long as their distances stay in the cache.
        at_a_time_(std::max<int64_t>(1, std::min<int64_t>(8, kRankedCodes / search.allowed))),
        distances_(aligned_array<uint16_t>(static_cast<size_t>(at_a_time_ * search.allowed))),
        order_(aligned_array<uint32_t>(static_cast<size_t>(search.allowed))),
        places_(static_cast<size_t>(kSegments * (8 * search.database.width + 1))) {}

  void rank(int64_t first, int64_t last) {
    for (; first < last; first += at_a_time_) {
      const int64_t count = std::min(at_a_time_, last - first), k = search_.output.k;
      if (k >= kStreamed) {
        provide_pages(search_.output.indices + first * k, count * k * static_cast<int64_t>(sizeof(int64_t)));
        provide_pages(search_.output.distances + first * k, count * k * static_cast<int64_t>(sizeof(int32_t)));
      }
      compare(first, count);
      for (int64_t q = 0; q < count; ++q) write(first + q, distances_.get() + q * allowed_);
    }
  }

 private:
  void compare(int64_t first, int64_t count) {
    const int num_words = search_.database.num_words();
    BlockReader reader(search_.kernels, search_.database, 0, search_.database.count, direct_block_size(num_words));
    int64_t done = 0;
    positions_.clear();
    for (Block block; reader.next(block); done += block.count) {
      if (block.positions != nullptr)
        positions_.insert(positions_.end(), block.positions, block.positions + block.count);
      for (int64_t q = 0; q < count; ++q) {
        search_.kernels.distances(block, search_.words + (first + q) * num_words, num_words,
                                  distances_.get() + q * allowed_ + done);
      }
    }
  }

  // A stable counting sort. Equal distances follow each other often, and each would wait for the counter of the last:
  // so the codes are taken from several places at once, each with its own counters.
  void write(int64_t query, const uint16_t* distances) {
    const int64_t num_distances = 8 * search_.database.width + 1, length = allowed_ / kSegments;
    std::fill(places_.begin(), places_.end(), 0);
    uint32_t* places[kSegments];
    for (int64_t s = 0; s < kSegments; ++s) places[s] = places_.data() + s * num_distances;
    for (int64_t i = 0; i < length; ++i) {
      for (int64_t s = 0; s < kSegments; ++s) ++places[s][distances[s * length + i]];
    }
    for (int64_t i = kSegments * length; i < allowed_; ++i) ++places[kSegments - 1][distances[i]];

    int32_t* sorted = search_.output.distances + query * search_.output.k;
    uint32_t start = 0;
    for (int64_t d = 0; d < num_distances; ++d) {
      const uint32_t first = start;
      for (int64_t s = 0; s < kSegments; ++s) {
        const uint32_t count = places[s][d];
        places[s][d] = start;
        start += count;
      }
      int32_t* from = sorted + std::min<int64_t>(first, search_.wanted);
      int32_t* to = sorted + std::min<int64_t>(start, search_.wanted);
      if (search_.wanted >= kStreamed) {
        fill_past_caches(from, to, static_cast<int32_t>(d));
      } else {
        std::fill(from, to, static_cast<int32_t>(d));
      }
    }
    if (search_.wanted >= kStreamed) finish_fills();
    uint32_t* order = order_.get();
    for (int64_t i = 0; i < length; ++i) {
      for (int64_t s = 0; s < kSegments; ++s) {
        order[places[s][distances[s * length + i]]++] = static_cast<uint32_t>(s * length + i);
      }
    }
    for (int64_t i = kSegments * length; i < allowed_; ++i) {
      order[places[kSegments - 1][distances[i]]++] = static_cast<uint32_t>(i);
    }

    int64_t* indices = search_.output.indices + query * search_.output.k;
    if (positions_.empty() && search_.output.ids == nullptr && search_.wanted >= kStreamed) {
      search_.kernels.write_indices(order, search_.wanted, indices);
    } else {
      for (int64_t i = 0; i < search_.wanted; ++i) {
        indices[i] = search_.output.id(positions_.empty() ? order[i] : positions_[order[i]]);
      }
    }
    search_.output.fill_up(query, search_.wanted);
  }

  static constexpr int64_t kSegments = 4;
  const Search& search_;
  const int64_t allowed_;
  const int64_t at_a_time_;
  Aligned<uint16_t> distances_;  // [query][allowed code]
  Aligned<uint32_t> order_;
  std::vector<int64_t> positions_;
  std::vector<uint32_t> places_;  // [segment][distance]
};

}  // namespace

void rank_all(const Search& search) {
  const int64_t work = search.allowed * search.num_queries;
  const int64_t tasks = std::min({search.threads.count, search.num_queries, 1 + work / kRankedCodes});
  search.threads.run(tasks, [&](int64_t task) {
    Ranker(search).rank(search.num_queries * task / tasks, search.num_queries * (task + 1) / tasks);
  });
}

}  // namespace adsq::cpu
