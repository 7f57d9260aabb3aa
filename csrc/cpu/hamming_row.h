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
    distances_to_ = search_.output.distances + query * search_.output.k;
    indices_to_ = search_.output.indices + query * search_.output.k;
    positions_ = positions;
    done_ = 0;
    search_.output.fill_up(query, search_.wanted);
  }

  // Writes about `count` more results: up to where a line of distances ends, since a line is best written whole.
  // Indices then fill whole lines too, unless only one of the results begins on a line.
  void write(int64_t count) {
    int64_t last = done_ + count;
    if (last >= search_.wanted) {
      last = search_.wanted;
    } else {
      last -= static_cast<int64_t>(reinterpret_cast<uintptr_t>(distances_to_ + last) % 64 / sizeof(int32_t));
    }
    if (last <= done_) return;
    write_distances(last - done_);
    write_indices(last - done_);
    done_ = last;
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

  void write_distances(int64_t count) {
    const uint16_t* from = distances_.get() + done_;
    int32_t* to = distances_to_ + done_;
    if (is_large()) {
      fetch_next_page(to);
      search_.kernels.write_distances(from, count, to);
    } else {
      std::copy_n(from, count, to);
    }
  }

  void write_indices(int64_t count) {
    const uint32_t* from = order_.get() + done_;
    int64_t* to = indices_to_ + done_;
    const Output& output = search_.output;
    if (is_large() && positions_ == nullptr && output.ids == nullptr) {
      fetch_next_page(to);
      search_.kernels.write_indices(from, count, to);
    } else {
      for (int64_t i = 0; i < count; ++i) to[i] = output.id(positions_ == nullptr ? from[i] : positions_[from[i]]);
    }
  }

  const Search& search_;
  Aligned<uint32_t> order_;
  Aligned<uint16_t> distances_;
  HugeResult index_pages_, distance_pages_;
  int32_t* distances_to_ = nullptr;
  int64_t* indices_to_ = nullptr;
  const int64_t* positions_ = nullptr;
  int64_t done_ = search_.wanted;
};

}  // namespace adsq::cpu
