#include "cpu/hamming_results.h"
#include "cpu/hamming_row.h"
#include "cpu/memory.h"

namespace adsq::cpu {
namespace {

constexpr int64_t kRankedCodes = 1 << 19;  // distances that are held at a time, per thread
constexpr int64_t kSmallWork = 1 << 17;    // pairs below which a second thread costs more than it brings

// A stable counting sort that does not count first: each distance has a list of chunks, which codes are appended to.
// What bounds it are the stores, and these are two a code, the code and the end of its list.
class Sorter {
 public:
  Sorter(int64_t num_codes, int64_t num_distances)
      : num_codes_(num_codes),
        num_distances_(num_distances),
        first_(aligned_array<uint32_t>(kSegments * kLists)),
        end_(aligned_array<uint32_t>(kSegments * kLists)) {
    // Every list may have a chunk that is not full, as far as there are codes for it.
    const int64_t chunks = num_codes / kChunk + std::min(num_codes, kSegments * num_distances);
    codes_ = aligned_array<uint32_t>(static_cast<size_t>(chunks * kChunk));
    next_ = aligned_array<uint32_t>(static_cast<size_t>(chunks));
  }

  // Calls meanwhile(count) after each `count` codes, so that stores to memory go on beside those to the caches.
  template <class Meanwhile>
  void sort(const uint16_t* distances, Meanwhile meanwhile) {
    for (int64_t s = 0; s < kSegments; ++s) std::fill_n(end_.get() + s * kLists, num_distances_, 0);
    used_ = 0;
    const int64_t length = num_codes_ / kSegments;
    for (int64_t start = 0; start < length; start += kStep) {
      const int64_t stop = std::min(start + kStep, length);
      append(distances, start, stop, length);
      meanwhile(kSegments * (stop - start));
    }
    for (int64_t i = kSegments * length; i < num_codes_; ++i) append(distances[i], kSegments - 1, i);
  }

  // Writes the first `count` codes in order, and their distances. Up to 64 bytes behind them are overwritten.
  void read(int64_t count, uint32_t* order, uint16_t* sorted) const {
    int64_t done = 0;
    for (int64_t d = 0; d < num_distances_ && done < count; ++d) {
      const int64_t before = done;
      for (int64_t s = 0; s < kSegments; ++s) {
        const int64_t list = s * kLists + d, end = end_[list];
        if (end == 0) continue;
        for (int64_t chunk = first_[list];; chunk = next_[chunk]) {
          const int64_t start = chunk * kChunk,
                        size = std::min({kChunk, end > start ? end - start : kChunk, count - done});
          copy(codes_.get() + start, size, order + done);
          done += size;
          if (chunk == (end - 1) / kChunk) break;
        }
      }
      fill(sorted + before, done - before, static_cast<uint16_t>(d));
    }
  }

 private:
  static constexpr int64_t kSegments = 2, kStep = 16, kChunk = 256;
  // From a segment's lists to those of the next one: known to the compiler, so that one register and the distance are
  // the address, and a cache line more than a power of two, so that the segments' ends do not share places in a cache.
  static constexpr int64_t kLists = kMaxBits + 16;

  // These work on whole cache lines, also behind the end: how often a loop of single codes runs is hard to foresee, and
  // most runs are short. A chunk is so many lines.
  static void copy(const uint32_t* from, int64_t count, uint32_t* to) {
    constexpr int64_t kLine = 64 / sizeof(uint32_t);
    static_assert(kChunk % kLine == 0);
    for (int64_t i = 0; i < count; i += kLine) __builtin_memcpy(to + i, from + i, 64);
  }
  static void fill(uint16_t* to, int64_t count, uint16_t distance) {
    constexpr int64_t kLine = 64 / sizeof(uint16_t);
    uint16_t line[kLine];
    std::fill_n(line, kLine, distance);
    for (int64_t i = 0; i < count; i += kLine) __builtin_memcpy(to + i, line, 64);
  }

  // Codes start to stop - 1 of each segment. Equal distances follow each other often, and each would wait for the end
  // that the last one stored: so the codes are taken from several places at once, each with its own lists. A function
  // of its own, so that all it needs is in registers.
  __attribute__((noinline)) void append(const uint16_t* distances, int64_t start, int64_t stop, int64_t length) {
    for (int64_t i = start; i < stop; ++i) {
      for (int64_t s = 0; s < kSegments; ++s) append(distances[s * length + i], s, s * length + i);
    }
  }
  void append(uint16_t distance, int64_t segment, int64_t code) {
    const int64_t list = segment * kLists + distance;
    uint32_t end = end_[list];
    if (__builtin_expect(end % kChunk == 0, 0)) end = open(list, end);
    codes_[end] = static_cast<uint32_t>(code);
    end_[list] = end + 1;
  }
  // Returns where the next chunk of a list starts.
  __attribute__((noinline)) uint32_t open(int64_t list, uint32_t end) {
    (end == 0 ? first_[list] : next_[end / kChunk - 1]) = used_;
    return kChunk * used_++;
  }

  const int64_t num_codes_, num_distances_;
  Aligned<uint32_t> codes_;  // [chunk][place]
  Aligned<uint32_t> next_;   // chunk of the same list
  Aligned<uint32_t> first_;  // [segment][distance], a chunk
  Aligned<uint32_t> end_;    // [segment][distance], chunk * kChunk + place; 0: nothing yet
  uint32_t used_ = 0;        // chunks
};

class Ranker {
 public:
  explicit Ranker(const Search& search)
      : search_(search),
        // Several queries share the spreading of a block, as long as their distances stay in the cache.
        at_a_time_(std::max<int64_t>(1, std::min<int64_t>(8, kRankedCodes / search.allowed))),
        distances_(aligned_array<uint16_t>(static_cast<size_t>(at_a_time_ * search.allowed))),
        sorter_(search.allowed, 8 * search.database.width + 1),
        row_(search) {}

  void rank(int64_t first, int64_t last) {
    for (; first < last; first += at_a_time_) {
      const int64_t count = std::min(at_a_time_, last - first);
      row_.provide(first, count);
      compare(first, count);
      for (int64_t q = 0; q < count; ++q) {
        sorter_.sort(distances_.get() + q * search_.allowed, [this](int64_t codes) { row_.write(codes); });
        row_.finish();
        sorter_.read(search_.wanted, row_.order(), row_.distances());
        row_.start(first + q, positions_.empty() ? nullptr : positions_.data());
      }
    }
    row_.finish();
    finish_writes();
  }

 private:
  void compare(int64_t first, int64_t count) {
    const int num_words = search_.database.num_words();
    BlockReader reader(search_.kernels, search_.database, 0, search_.database.count, direct_block_size(num_words));
    int64_t done = 0;
    for (Block block; reader.next(block); done += block.count) {
      if (positions_.size() < static_cast<size_t>(search_.allowed) && block.positions != nullptr)
        positions_.insert(positions_.end(), block.positions, block.positions + block.count);
      for (int64_t q = 0; q < count; ++q) {
        search_.kernels.distances(block, search_.words + (first + q) * num_words, num_words,
                                  distances_.get() + q * search_.allowed + done);
      }
    }
  }

  const Search& search_;
  const int64_t at_a_time_;
  Aligned<uint16_t> distances_;  // [query][allowed code]
  Sorter sorter_;
  Row row_;
  std::vector<int64_t> positions_;  // of the allowed codes, where there is a mask
};

}  // namespace

void rank_all(const Search& search) {
  const int64_t work = search.allowed * search.num_queries;
  const int64_t tasks = std::min({search.threads.count, search.num_queries, 1 + work / kSmallWork});
  search.threads.run(tasks, [&](int64_t task) {
    Ranker(search).rank(search.num_queries * task / tasks, search.num_queries * (task + 1) / tasks);
  });
}

}  // namespace adsq::cpu
