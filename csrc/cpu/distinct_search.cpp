#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "cpu/distinct_bounds.h"
#include "cpu/distinct_codes.h"
#include "cpu/distinct_expand.h"
#include "cpu/distinct_queries.h"

namespace adsq::cpu {
namespace {

constexpr int64_t kFoundCodes = 1 << 22;  // that are held at a time
constexpr int64_t kManyQueries = 32;      // for which looking for codes with many rows pays
constexpr int64_t kFewCodes = 32;         // so many are as quickly found as fewer
constexpr int64_t kMoreCodes = 4;         // times as many are sought where the rows were too few
constexpr int64_t kResultsATask = 1 << 14;
constexpr int64_t kNearestCost = 64;  // looking for the nearest code with many rows takes as long as so many results
constexpr int64_t kMany = 4;          // for more than a quarter of the rows they are ranked by themselves

// Calls task(expander, i) for i below `count`. What it throws is thrown when all threads are done.
template <class Task>
void expand_all(const DistinctCodes& database, int64_t count, int64_t num_results, const Threads& threads, Task task) {
  const int64_t tasks = std::max<int64_t>(1, std::min({threads.count, count, num_results / kResultsATask}));
  std::vector<std::string> errors(static_cast<size_t>(tasks));
  threads.run(tasks, [&](int64_t t) {
    try {
      Expander expander(database);
      for (int64_t i = count * t / tasks; i < count * (t + 1) / tasks; ++i) task(expander, i);
    } catch (const std::out_of_range& error) {
      errors[static_cast<size_t>(t)] = error.what();
    }
  });
  for (const std::string& error : errors) {
    if (!error.empty()) throw std::out_of_range(error);
  }
}

// Searches each query for the rows of its nearest codes, of fewer than k at first: codes have several rows.
class TopkSearch {
 public:
  TopkSearch(const DistinctCodes& database, int64_t k, int32_t* distances, int64_t* ids, const Threads& threads)
      : database_(database), k_(k), distances_(distances), ids_(ids), threads_(threads) {}

  // Writes the rows of places[q] for each query.
  void run(const Codes& queries, const std::vector<int64_t>& places) {
    if (queries.count < kManyQueries) return search_all(queries, places, {});
    const std::vector<int64_t> frequent = codes_with_rows(database_, k_);
    if (frequent.empty()) return search_all(queries, places, {});
    const FewCodes near(gathered(database_.codes, frequent).data(), static_cast<int64_t>(frequent.size()),
                        queries.width);
    // Where a query is such a code itself, the first rows of this code are the nearest.
    const auto words = query_words(scan_kernels(), queries);
    std::vector<int32_t> nearest_distances(static_cast<size_t>(queries.count));
    const int64_t work = queries.count * (std::min(k_, database_.num_rows) + kNearestCost);
    expand_all(database_, queries.count, work, threads_, [&](Expander& expander, int64_t q) {
      const int64_t place = places[static_cast<size_t>(q)];
      const FewCodes::Nearest nearest = near.nearest(words.get() + q * queries.num_words());
      nearest_distances[static_cast<size_t>(q)] = nearest.distance;
      if (nearest.distance > 0) return;
      const FoundCodes found{&nearest.distance, &frequent[static_cast<size_t>(nearest.place)], 1, false};
      expander.expand(found, k_, distances_ + place * k_, ids_ + place * k_);
    });
    std::vector<int64_t> left, left_places;
    std::vector<int32_t> bounds;
    for (int64_t q = 0; q < queries.count; ++q) {
      if (nearest_distances[static_cast<size_t>(q)] == 0) continue;
      left.push_back(q);
      left_places.push_back(places[static_cast<size_t>(q)]);
      bounds.push_back(nearest_distances[static_cast<size_t>(q)]);
    }
    if (left.empty()) return;
    const std::vector<uint8_t> rows = gathered(queries, left);
    Codes others = queries;
    others.rows = rows.data();
    others.count = static_cast<int64_t>(left.size());
    search_all(others, left_places, std::move(bounds));
  }

 private:
  // The same, where bounds[q] tells how far the rows of each query are at most; empty: not known.
  void search_all(const Codes& queries, const std::vector<int64_t>& places, std::vector<int32_t> bounds) {
    const int64_t most = std::min(k_, database_.codes.count);
    // Twice as many as hold k rows on average.
    const double share = static_cast<double>(database_.codes.count) / static_cast<double>(database_.num_rows);
    int64_t wanted = std::min(most, kFewCodes + static_cast<int64_t>(2 * share * static_cast<double>(k_)));
    std::vector<int64_t> some = places, missed;
    Codes left = queries;
    for (std::vector<uint8_t> copy;; wanted = std::min(most, kMoreCodes * wanted)) {
      missed.clear();
      const int64_t at_a_time = std::max<int64_t>(1, kFoundCodes / wanted);
      for (int64_t first = 0; first < left.count; first += at_a_time) {
        Codes part = left;
        part.rows += first * left.width;
        part.count = std::min(at_a_time, left.count - first);
        search(part, some.data() + first, bounds.empty() ? nullptr : bounds.data() + first, wanted, wanted < most,
               first, missed);
      }
      if (missed.empty()) return;
      std::vector<uint8_t> rest = gathered(left, missed);
      copy.swap(rest);
      left.rows = copy.data();
      left.count = static_cast<int64_t>(missed.size());
      for (size_t i = 0; i < missed.size(); ++i) {
        const auto query = static_cast<size_t>(missed[i]);
        missed[i] = some[query];
        if (!bounds.empty()) bounds[i] = bounds[query];
      }
      some.swap(missed);
    }
  }

  void search(const Codes& queries, const int64_t* places, const int32_t* bounds, int64_t wanted, bool cut,
              int64_t first, std::vector<int64_t>& missed) {
    const auto size = static_cast<size_t>(queries.count * wanted);
    if (near_.size() < size) near_.resize(size), codes_.resize(size);
    hamming_topk(queries, database_.codes, wanted, nullptr, near_.data(), codes_.data(), threads_, true, bounds);
    std::vector<char> enough(static_cast<size_t>(queries.count));
    const int64_t rows = std::min(k_, database_.num_rows);
    expand_all(database_, queries.count, queries.count * rows, threads_, [&](Expander& expander, int64_t q) {
      const int64_t* codes = codes_.data() + q * wanted;
      int64_t count = wanted;
      while (count > 0 && codes[count - 1] == kNoIndex) --count;  // the rows of those within a bound are enough
      const FoundCodes found{near_.data() + q * wanted, codes, count, cut && count == wanted};
      int32_t* distances = distances_ + places[q] * k_;
      int64_t* ids = ids_ + places[q] * k_;
      const int64_t written = expander.expand(found, k_, distances, ids);
      enough[static_cast<size_t>(q)] = !found.cut || written == rows;
      std::fill(distances + written, distances + k_, kNoDistance);
      std::fill(ids + written, ids + k_, kNoIndex);
    });
    for (int64_t q = 0; q < queries.count; ++q) {
      if (!enough[static_cast<size_t>(q)]) missed.push_back(first + q);
    }
  }

  const DistinctCodes& database_;
  const int64_t k_;
  int32_t* distances_;
  int64_t* ids_;
  const Threads& threads_;
  std::vector<int32_t> near_;
  std::vector<int64_t> codes_;
};

// Whether so many results are had sooner from the rows themselves: sorting the rows of all codes at a distance costs
// more than comparing each row. Of few codes most are alone at their distance, and their rows need no sorting.
bool rank_rows(const DistinctCodes& database, int64_t k) {
  return k > database.num_rows / kMany && database.codes.count > 8 * database.codes.width;
}

// Each row with its code.
std::vector<uint8_t> codes_of_rows(const DistinctCodes& database) {
  const int64_t width = database.codes.width;
  std::vector<uint8_t> codes(static_cast<size_t>(database.num_rows * width));
  for (int64_t c = 0; c < database.codes.count; ++c) {
    const uint8_t* code = database.codes.rows + c * width;
    const int32_t* rows = database.rows + database.offsets[c];
    for (int64_t i = 0, count = Expander::count(database, c); i < count; ++i) {
      if (rows[i] < 0 || rows[i] >= database.num_rows) throw std::out_of_range("rows: expected rows");
      std::copy_n(code, width, codes.data() + rows[i] * width);
    }
  }
  return codes;
}

}  // namespace

void distinct_topk(const Codes& queries, const DistinctCodes& database, int64_t k, int32_t* distances, int64_t* ids,
                   const Threads& threads, bool is_new) {
  if (database.offsets == nullptr) {
    return hamming_topk(queries, database.codes, k, database.ids, distances, ids, threads, is_new);
  }
  if (database.codes.count == 0 || database.num_rows == 0) {
    std::fill(distances, distances + queries.count * k, kNoDistance);
    std::fill(ids, ids + queries.count * k, kNoIndex);
    return;
  }
  if (rank_rows(database, k)) {
    const std::vector<uint8_t> codes = codes_of_rows(database);
    Codes rows = database.codes;
    rows.rows = codes.data();
    rows.count = database.num_rows;
    return hamming_topk(queries, rows, k, database.ids, distances, ids, threads, is_new);
  }
  const DistinctQueries distinct(queries);
  TopkSearch(database, k, distances, ids, threads).run(distinct.codes, distinct.first);
  distinct.spread(k, distances, ids);
}

RangeRows distinct_range(const Codes& queries, const DistinctCodes& database, int64_t radius, const Threads& threads) {
  DistinctQueries distinct(queries);
  const RangeSearch found(distinct.codes, database.codes, radius, threads);
  RangeRows rows(database, threads);
  const auto total = static_cast<size_t>(found.offsets().back());
  rows.found_offsets = found.offsets();
  rows.distances.resize(total);
  rows.codes.resize(total);
  found.write(nullptr, rows.distances.data(), rows.codes.data());
  rows.count(std::move(distinct.numbers));
  return rows;
}

void RangeRows::count(std::vector<int32_t> queries) {
  numbers_ = std::move(queries);
  std::vector<int64_t> counts;
  for (size_t q = 0; q + 1 < found_offsets.size(); ++q) {
    int64_t count = 0;
    for (int64_t i = found_offsets[q]; i < found_offsets[q + 1]; ++i) {
      count += Expander::count(database_, codes[static_cast<size_t>(i)]);
    }
    counts.push_back(count);
  }
  offsets_.assign(1, 0);
  for (const int32_t number : numbers_) offsets_.push_back(offsets_.back() + counts[static_cast<size_t>(number)]);
}

void RangeRows::write(int32_t* near, int64_t* ids) const {
  const auto count = static_cast<int64_t>(numbers_.size());
  std::vector<int64_t> first(found_offsets.size(), -1);  // query with each number
  for (int64_t q = count; q-- > 0;) first[static_cast<size_t>(numbers_[static_cast<size_t>(q)])] = q;
  const auto first_of = [&](int64_t q) { return first[static_cast<size_t>(numbers_[static_cast<size_t>(q)])]; };
  const auto start = [&](int64_t q) { return offsets_[static_cast<size_t>(q)]; };
  expand_all(database_, count, offsets_.back(), threads_, [&](Expander& expander, int64_t q) {
    if (first_of(q) != q) return;
    const auto number = static_cast<size_t>(numbers_[static_cast<size_t>(q)]);
    const int64_t from = found_offsets[number];
    const FoundCodes found{distances.data() + from, codes.data() + from, found_offsets[number + 1] - from, false};
    expander.expand(found, start(q + 1) - start(q), near + start(q), ids + start(q));
  });
  for (int64_t q = 0; q < count; ++q) {
    const int64_t from = start(first_of(q)), size = start(q + 1) - start(q);
    if (first_of(q) == q) continue;
    std::copy(near + from, near + from + size, near + start(q));
    std::copy(ids + from, ids + from + size, ids + start(q));
  }
}

}  // namespace adsq::cpu
