// One row of a full ranking, on its way from the caches to the result.
#pragma once
#include <algorithm>
#include <cstdint>

#include "cpu/hamming_results.h"
#include "cpu/memory.h"

namespace adsq::cpu {

// Writes the results of one query piece by piece, while the next one is computed: the processor computes little while
// it waits for memory, and memory is idle while it computes.
class Row {
 public:
  explicit Row(const Search& search)
      : search_(search),
        order_(aligned_array<uint32_t>(static_cast<size_t>(search.wanted))),
        distances_(aligned_array<uint16_t>(static_cast<size_t>(search.wanted))),
        index_pages_(search.output.indices, num_results(search) * static_cast<int64_t>(sizeof(int64_t)),
                     search.output.is_new),
        distance_pages_(search.output.distances, num_results(search) * static_cast<int64_t>(sizeof(int32_t)),
                        search.output.is_new) {}

  // Before rows are written: has the system provide their memory.
  void provide(int64_t first, int64_t count) {
    const int64_t k = search_.output.k;
    if (!is_large()) return;
    index_pages_.provide(search_.output.indices + first * k, count * k * static_cast<int64_t>(sizeof(int64_t)));
    distance_pages_.provide(search_.output.distances + first * k, count * k * static_cast<int64_t>(sizeof(int32_t)));
  }

  // Room for the allowed codes in order, and for their distances.
  uint32_t* order() { return order_.get(); }
  uint16_t* distances() { return distances_.get(); }

  // Begins the row of a query. Index `positions[code]`, or the code itself where it is null, is what ids are of.
  void start(int64_t query, const int64_t* positions) {
    query_ = query;
    positions_ = positions;
    done_ = distances_done_ = indices_done_ = 0;
    search_.output.fill_up(query, search_.wanted);
  }

  // Writes about `count` more results: up to where a cache line ends, since a line is best written whole.
  void write(int64_t count) {
    if (done_ == search_.wanted) return;
    done_ = std::min(done_ + count, search_.wanted);
    write_distances(whole_lines(search_.output.distances + query_ * search_.output.k));
    write_indices(whole_lines(search_.output.indices + query_ * search_.output.k));
  }

  // Writes what is left.
  void finish() { write(search_.wanted); }

 private:
  static constexpr int64_t kStreamed = 1 << 14;  // from how many results a query on they are written past the caches

  bool is_large() const { return search_.wanted >= kStreamed; }
  static int64_t num_results(const Search& search) { return search.num_queries * search.output.k; }

  // Has the processor look up the address of the page after the next one: a store that has to wait for it holds up all
  // stores behind it.
  static void fetch_next_page(const void* to) {
    constexpr uintptr_t kPage = 4096;
    const uintptr_t next = (reinterpret_cast<uintptr_t>(to) / kPage + 2) * kPage;
    __builtin_prefetch(reinterpret_cast<const void*>(next), 1, 2);
  }

  // How many results fill whole lines of a row.
  template <class To>
  int64_t whole_lines(const To* row) const {
    if (done_ == search_.wanted) return done_;
    const auto beyond = static_cast<int64_t>(reinterpret_cast<uintptr_t>(row + done_) % 64 / sizeof(To));
    return std::max<int64_t>(0, done_ - beyond);
  }

  void write_distances(int64_t last) {
    const uint16_t* from = distances_.get() + distances_done_;
    int32_t* to = search_.output.distances + query_ * search_.output.k + distances_done_;
    const int64_t count = last - distances_done_;
    if (is_large()) {
      fetch_next_page(to);
      search_.kernels.write_distances(from, count, to);
    } else {
      std::copy_n(from, count, to);
    }
    distances_done_ = last;
  }

  void write_indices(int64_t last) {
    const Output& output = search_.output;
    int64_t* to = output.indices + query_ * output.k;
    if (is_large() && positions_ == nullptr && output.ids == nullptr) {
      fetch_next_page(to + indices_done_);
      search_.kernels.write_indices(order_.get() + indices_done_, last - indices_done_, to + indices_done_);
    } else {
      for (int64_t i = indices_done_; i < last; ++i) {
        const int64_t code = order_[static_cast<size_t>(i)];
        to[i] = output.id(positions_ == nullptr ? code : positions_[code]);
      }
    }
    indices_done_ = last;
  }

  const Search& search_;
  Aligned<uint32_t> order_;
  Aligned<uint16_t> distances_;
  HugeResult index_pages_, distance_pages_;
  const int64_t* positions_ = nullptr;
  int64_t query_ = 0, done_ = search_.wanted, distances_done_ = 0, indices_done_ = 0;
};

}  // namespace adsq::cpu
