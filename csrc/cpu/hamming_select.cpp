#include <cstdlib>
#include <new>

#include "cpu/hamming_results.h"
#include "cpu/hamming_sample.h"

namespace adsq::cpu {
namespace {

constexpr int64_t kSampledQueries = 32;  // that a second thread is worth
constexpr int64_t kKeyBytes = 64 << 20;  // for the keys of all queries that are searched at a time

class Selector {
 public:
  explicit Selector(const Search& search) : search_(search), database_(search.database), sample_(search) {}

  void run() {
    const int64_t num_queries = search_.num_queries;
    const int64_t capacity = capacity_of(search_.wanted, database_.width);
    const int64_t room = kKeyBytes / static_cast<int64_t>(sizeof(uint64_t)) / capacity;
    const int64_t at_most = std::max<int64_t>(1, std::min({room, kQueriesAtATime, num_queries}));
    const int64_t parts = split_work(database_, at_most, search_.threads.count).codes;
    const int64_t at_a_time = std::max<int64_t>(1, std::min(room / parts, at_most));
    room_ = at_a_time * parts;
    keys_ = aligned_array<uint64_t>(static_cast<size_t>(room_ * capacity));
    std::vector<int32_t> queries;
    for (int64_t first = 0; first < num_queries; first += at_a_time) {
      queries.clear();
      for (int64_t q = first; q < std::min(first + at_a_time, num_queries); ++q) {
        queries.push_back(static_cast<int32_t>(q));
      }
      std::vector<int32_t> missed = search(queries, true);
      // The sample misled: these have fewer than k codes within their threshold.
      if (!missed.empty()) search(missed, false);
    }
  }

 private:
  int32_t all() const { return static_cast<int32_t>(8 * database_.width); }

  // Queries that are searched together, in ascending order, and what for.
  struct Searched {
    const std::vector<int32_t>& queries;
    bool sampled;
    Split split;
    std::vector<int32_t> thresholds;    // by query
    std::vector<Selection> selections;  // [part][query]
    std::vector<char> enough;           // whether so many were found as are wanted

    int64_t count() const { return static_cast<int64_t>(queries.size()); }
    int32_t query(int64_t i) const { return queries[static_cast<size_t>(i)]; }
    Selection& selection(int64_t part, int64_t i) { return selections[static_cast<size_t>(part * count() + i)]; }
  };

  // Searches some queries and returns those that found too little.
  std::vector<int32_t> search(const std::vector<int32_t>& queries, bool sampled) {
    const auto count = static_cast<int64_t>(queries.size());
    const Split split = split_work(database_, count, search_.threads.count, room_ / count);
    Searched some{queries,
                  sampled && sample_.is_enough(),
                  split,
                  std::vector<int32_t>(static_cast<size_t>(queries.back()) + 1),
                  std::vector<Selection>(static_cast<size_t>(split.codes * count)),
                  std::vector<char>(static_cast<size_t>(count))};
    const auto in_shares = [&](int64_t shares, const auto& task) {
      search_.threads.run(shares, [&](int64_t i) { task(count * i / shares, count * (i + 1) / shares); });
    };
    const int64_t tasks = split.codes * split.queries;
    if (split.codes == 1) {  // each thread has its own queries, and waits for none
      in_shares(tasks, [&](int64_t first, int64_t last) {
        begin(some, first, last);
        scan(some, 0, first, last);
        write(some, first, last);
      });
    } else {
      if (some.sampled) {
        in_shares(std::min(tasks, 1 + count / kSampledQueries),
                  [&](int64_t first, int64_t last) { begin(some, first, last); });
      } else {
        begin(some, 0, count);
      }
      search_.threads.run(tasks, [&](int64_t task) {
        const int64_t i = task % split.queries;
        scan(some, task / split.queries, count * i / split.queries, count * (i + 1) / split.queries);
      });
      in_shares(tasks, [&](int64_t first, int64_t last) { write(some, first, last); });
    }
    std::vector<int32_t> missed;
    for (int64_t i = 0; i < count; ++i) {
      if (!some.enough[static_cast<size_t>(i)]) missed.push_back(some.query(i));
    }
    return missed;
  }

  // The steps of a search, of the queries first..last-1. How far to look at first:
  void begin(Searched& some, int64_t first, int64_t last) const {
    for (int64_t i = first; i < last; ++i) {
      const int32_t query = some.query(i);
      some.thresholds[static_cast<size_t>(query)] = search_.bound(query);
    }
    if (some.sampled) {
      sample_.lower({some.queries.begin() + first, some.queries.begin() + last}, some.thresholds.data());
    }
    const int64_t capacity = capacity_of(search_.wanted, database_.width);
    uint64_t* keys = keys_.get();
    for (int64_t part = 0; part < some.split.codes; ++part) {
      for (int64_t i = first; i < last; ++i) {
        const int32_t query = some.query(i), threshold = some.thresholds[static_cast<size_t>(query)];
        some.selection(part, i) = {
            keys + (part * some.count() + i) * capacity, 0, capacity, search_.wanted, threshold, query};
      }
    }
  }

  // A part of the codes:
  void scan(Searched& some, int64_t part, int64_t first, int64_t last) const {
    scan_part(search_.kernels, database_, part_start(database_.count, part, some.split.codes),
              part_start(database_.count, part + 1, some.split.codes),
              {search_.words, database_.num_words(), &some.selection(part, first), last - first});
    // Searches that end are moved among the selections; their keys tell the place.
    const int64_t capacity = capacity_of(search_.wanted, database_.width);
    for (int64_t i = first; i < last; ++i) {
      Selection& selection = some.selection(part, i);
      for (;;) {
        const int64_t place = (selection.keys - keys_.get()) / capacity - part * some.count();
        if (place == i) break;
        std::swap(selection, some.selection(part, place));
      }
    }
  }

  // And the results.
  void write(Searched& some, int64_t first, int64_t last) const {
    for (int64_t i = first; i < last; ++i) {
      const int32_t query = some.query(i);
      const bool is_all = some.thresholds[static_cast<size_t>(query)] == search_.bound(query);
      some.enough[static_cast<size_t>(i)] =
          write_nearest(query, &some.selection(0, i), some.count(), some.split.codes, is_all);
    }
  }

  // Writes the nearest codes of one query, found part by part, `stride` selections apart, in ascending order of index:
  // a stable counting sort. Returns whether these are enough, as they are where no more lie within the query's bound.
  bool write_nearest(int32_t query, const Selection* parts, int64_t stride, int64_t num_parts, bool is_all) const {
    int64_t starts[kMaxBits + 2];
    std::fill(starts, starts + all() + 2, 0);
    int64_t total = 0;
    for (int64_t p = 0; p < num_parts; ++p) {
      const Selection& part = parts[p * stride];
      for (int64_t i = 0; i < part.count; ++i) ++starts[distance_of(part.keys[i]) + 1];
      total += part.count;
    }
    if (total < search_.wanted && !is_all) return false;
    for (int32_t d = 0; d < all(); ++d) starts[d + 1] += starts[d];
    int32_t* distances = search_.output.distances + query * search_.output.k;
    int64_t* indices = search_.output.indices + query * search_.output.k;
    for (int64_t p = 0; p < num_parts; ++p) {
      const Selection& part = parts[p * stride];
      for (int64_t i = 0; i < part.count; ++i) {
        const int64_t place = starts[distance_of(part.keys[i])]++;
        if (place >= search_.wanted) continue;
        distances[place] = static_cast<int32_t>(distance_of(part.keys[i]));
        indices[place] = search_.output.id(index_of(part.keys[i]));
      }
    }
    search_.output.fill_up(query, std::min(total, search_.wanted));
    return true;
  }

  const Search& search_;
  const Codes& database_;
  const Sample sample_;
  Aligned<uint64_t> keys_;  // of so many selections
  int64_t room_ = 0;
};

}  // namespace

Cut cut_at(const uint64_t* keys, int64_t count, int64_t rank, int32_t largest) {
  int64_t counts[kMaxBits + 2];
  std::fill(counts, counts + largest + 1, 0);
  for (int64_t i = 0; i < count; ++i) ++counts[distance_of(keys[i])];
  Cut cut{0, 0};
  while (cut.distance < largest && cut.below + counts[cut.distance] < rank) cut.below += counts[cut.distance++];
  return cut;
}

void make_room(Selection& selection) {
  if (selection.limit == 0) {
    const int64_t capacity = std::max<int64_t>(64, 2 * selection.capacity);
    void* keys = std::realloc(selection.keys, sizeof(uint64_t) * static_cast<size_t>(capacity));
    if (keys == nullptr) throw std::bad_alloc();
    selection.keys = static_cast<uint64_t*>(keys);
    selection.capacity = capacity;
    return;
  }
  // What lies below the cut stays, and the first codes at the cut. Later ones at the cut lose to these by index.
  // Those that stayed at the cut before lie one above the threshold.
  const Cut cut = cut_at(selection.keys, selection.count, selection.limit, selection.threshold + 1);
  int64_t room_at_cut = selection.limit - cut.below, kept = 0;
  for (int64_t i = 0; i < selection.count; ++i) {
    const uint64_t key = selection.keys[i];
    const bool at_cut = distance_of(key) == cut.distance;
    selection.keys[kept] = key;
    kept += (distance_of(key) < cut.distance) | (at_cut & (room_at_cut > 0));
    room_at_cut -= at_cut;
  }
  selection.count = kept;
  selection.threshold = static_cast<int32_t>(cut.distance) - 1;
}

void select_nearest(const Search& search) { Selector(search).run(); }

}  // namespace adsq::cpu
