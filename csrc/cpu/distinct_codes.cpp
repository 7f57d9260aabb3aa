#include "cpu/distinct_codes.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "cpu/hamming_topk.h"

namespace adsq::cpu {
namespace {

constexpr int64_t kAhead = 32;  // rows whose places in the table are fetched together
constexpr int64_t kRadixRows = 1 << 10, kRadixBits = 11;
constexpr int64_t kResultsATask = 1 << 14;

uint32_t hash_of(const uint8_t* row, int64_t width) {
  uint64_t hash = static_cast<uint64_t>(width);
  for (int64_t b = 0; b < width; b += 8) {
    uint64_t word = 0;
    std::memcpy(&word, row + b, static_cast<size_t>(std::min<int64_t>(8, width - b)));
    hash = (hash ^ word) * 0x9E3779B97F4A7C15;
    hash ^= hash >> 32;
  }
  hash *= 0xD6E8FEB86659FD93;
  return static_cast<uint32_t>(hash >> 32);
}

// A table of open addresses. A place holds hash << 32 | number of the code + 1, and 0 where it is free.
class CodeTable {
 public:
  CodeTable(const uint8_t* rows, int64_t width) : rows_(rows), width_(width), places_(1 << 10) {}

  void fetch(uint32_t hash) const { __builtin_prefetch(places_.data() + (hash & mask())); }

  // Returns the number of a row's code.
  int32_t number(int64_t row, uint32_t hash) {
    for (size_t at = hash & mask();; at = (at + 1) & mask()) {
      const uint64_t place = places_[at];
      if (place == 0) {
        places_[at] = uint64_t{hash} << 32 | (first_.size() + 1);
        first_.push_back(row);
        if (2 * first_.size() > places_.size()) grow();
        return static_cast<int32_t>(first_.size() - 1);
      }
      if (static_cast<uint32_t>(place >> 32) != hash) continue;
      const auto number = static_cast<int32_t>((place & UINT32_MAX) - 1);
      const int64_t other = first_[static_cast<size_t>(number)];
      if (std::memcmp(rows_ + other * width_, rows_ + row * width_, static_cast<size_t>(width_)) == 0) return number;
    }
  }

  std::vector<int64_t> take_first() { return std::move(first_); }

 private:
  size_t mask() const { return places_.size() - 1; }

  void grow() {
    std::vector<uint64_t> old(4 * places_.size());
    old.swap(places_);
    for (const uint64_t place : old) {
      if (place == 0) continue;
      size_t at = (place >> 32) & mask();
      while (places_[at] != 0) at = (at + 1) & mask();
      places_[at] = place;
    }
  }

  const uint8_t* rows_;
  const int64_t width_;
  std::vector<uint64_t> places_;
  std::vector<int64_t> first_;
};

// Sorts rows, by their digits where they are many.
void sort_rows(std::vector<int32_t>& rows, std::vector<int32_t>& scratch) {
  if (static_cast<int64_t>(rows.size()) < kRadixRows) {
    std::sort(rows.begin(), rows.end());
    return;
  }
  scratch.resize(rows.size());
  const int32_t largest = *std::max_element(rows.begin(), rows.end());
  for (int shift = 0; shift < 31 && largest >> shift != 0; shift += kRadixBits) {
    size_t starts[(1 << kRadixBits) + 1] = {};
    const auto digit = [shift](int32_t row) { return (row >> shift) & ((1 << kRadixBits) - 1); };
    for (const int32_t row : rows) ++starts[digit(row) + 1];
    for (int d = 0; d < 1 << kRadixBits; ++d) starts[d + 1] += starts[d];
    for (const int32_t row : rows) scratch[starts[digit(row)]++] = row;
    rows.swap(scratch);
  }
}

// Puts the rows of the codes of one query in order.
class Expander {
 public:
  Expander(const FoundCodes& found, const RowLists& lists) : found_(found), lists_(lists) {}

  // Writes the first `limit` rows of a query, and returns how many there are, at most that many.
  int64_t expand(int64_t query, int64_t limit, int32_t* distances, int64_t* ids) {
    const int64_t last = found_.last(query);
    int64_t written = 0;
    for (int64_t i = found_.first(query); i < last && found_.codes[i] >= 0 && written < limit;) {
      const int32_t distance = found_.distances[i];
      int64_t end = i + 1;
      while (end < last && found_.codes[end] >= 0 && found_.distances[end] == distance) ++end;
      const int64_t room = limit - written;
      const int64_t count = end == i + 1 ? take_one(found_.codes[i], room, ids + written)
                                         : merge(found_.codes + i, found_.codes + end, room, ids + written);
      std::fill(distances + written, distances + written + count, distance);
      written += count;
      i = end;
    }
    return written;
  }

  static int64_t count(const RowLists& lists, int64_t code) {
    if (code >= lists.num_codes) throw std::out_of_range("indices: expected numbers of codes");
    const int64_t first = lists.offsets[code], last = lists.offsets[code + 1];
    if (first < 0 || last < first || last > lists.num_rows) throw std::out_of_range("offsets: expected places in rows");
    return last - first;
  }

 private:
  int64_t id(int32_t row) const {
    if (row < 0 || row >= lists_.num_rows) throw std::out_of_range("rows: expected rows");
    return lists_.ids == nullptr ? row : lists_.ids[row];
  }

  int64_t take_one(int64_t code, int64_t room, int64_t* ids) const {
    const int64_t taken = std::min(room, count(lists_, code));
    const int32_t* rows = lists_.rows + lists_.offsets[code];
    for (int64_t j = 0; j < taken; ++j) ids[j] = id(rows[j]);
    return taken;
  }

  int64_t merge(const int64_t* code, const int64_t* end, int64_t room, int64_t* ids) {
    rows_.clear();
    int32_t bound = INT32_MAX;  // rows beyond it are too many
    for (; code < end; ++code) {
      const int32_t *row = lists_.rows + lists_.offsets[*code], *last = row + std::min(room, count(lists_, *code));
      for (; row < last && *row <= bound; ++row) rows_.push_back(*row);
      if (static_cast<int64_t>(rows_.size()) / 2 >= room) bound = keep(room);
    }
    if (static_cast<int64_t>(rows_.size()) > room) keep(room);
    sort_rows(rows_, scratch_);
    for (const int32_t row : rows_) *ids++ = id(row);
    return static_cast<int64_t>(rows_.size());
  }

  // Keeps the first rows, and returns the last of them.
  int32_t keep(int64_t count) {
    const auto last = rows_.begin() + count - 1;
    std::nth_element(rows_.begin(), last, rows_.end());
    const int32_t bound = *last;
    rows_.resize(static_cast<size_t>(count));
    return bound;
  }

  const FoundCodes& found_;
  const RowLists& lists_;
  std::vector<int32_t> rows_, scratch_;
};

// Calls task(expander, query) for all queries. What it throws is thrown when all threads are done.
template <class Task>
void for_queries(const FoundCodes& found, const RowLists& lists, int64_t num_results, const Threads& threads,
                 Task task) {
  const int64_t count = found.num_queries;
  const int64_t tasks = std::max<int64_t>(1, std::min({threads.count, count, num_results / kResultsATask}));
  std::vector<std::string> errors(static_cast<size_t>(tasks));
  threads.run(tasks, [&](int64_t t) {
    try {
      Expander expander(found, lists);
      for (int64_t q = count * t / tasks; q < count * (t + 1) / tasks; ++q) task(expander, q);
    } catch (const std::out_of_range& error) {
      errors[static_cast<size_t>(t)] = error.what();
    }
  });
  for (const std::string& error : errors) {
    if (!error.empty()) throw std::out_of_range(error);
  }
}

}  // namespace

std::vector<int64_t> number_codes(const uint8_t* rows, int64_t count, int64_t width, int32_t* numbers) {
  CodeTable table(rows, width);
  uint32_t hashes[kAhead];
  for (int64_t first = 0; first < count; first += kAhead) {
    const int64_t size = std::min(kAhead, count - first);
    for (int64_t i = 0; i < size; ++i) {
      hashes[i] = hash_of(rows + (first + i) * width, width);
      table.fetch(hashes[i]);
    }
    for (int64_t i = 0; i < size; ++i) numbers[first + i] = table.number(first + i, hashes[i]);
  }
  return table.take_first();
}

void list_rows(const int32_t* numbers, int64_t count, int64_t num_codes, int32_t* offsets, int32_t* rows) {
  // Each code's entry is first the end of its list, and then moves with the rows that are put before it.
  std::fill(offsets, offsets + num_codes + 1, 0);
  for (int64_t i = 0; i < count; ++i) ++offsets[numbers[i]];
  int32_t end = 0;
  for (int64_t c = 0; c <= num_codes; ++c) offsets[c] = end += offsets[c];
  for (int64_t i = count; i-- > 0;) rows[--offsets[numbers[i]]] = static_cast<int32_t>(i);
}

void expand_topk(const FoundCodes& found, const RowLists& lists, int64_t k, int32_t* distances, int64_t* ids,
                 const Threads& threads) {
  for_queries(found, lists, found.num_queries * std::min(k, lists.num_rows), threads,
              [&](Expander& expander, int64_t q) {
                const int64_t written = expander.expand(q, k, distances + q * k, ids + q * k);
                std::fill(distances + q * k + written, distances + (q + 1) * k, kNoDistance);
                std::fill(ids + q * k + written, ids + (q + 1) * k, kNoIndex);
              });
}

std::vector<int64_t> expanded_offsets(const FoundCodes& found, const RowLists& lists) {
  std::vector<int64_t> offsets{0};
  for (int64_t q = 0; q < found.num_queries; ++q) {
    int64_t total = offsets.back();
    for (int64_t i = found.first(q); i < found.last(q); ++i) {
      if (found.codes[i] < 0) throw std::out_of_range("indices: expected numbers of codes");
      total += Expander::count(lists, found.codes[i]);
    }
    offsets.push_back(total);
  }
  return offsets;
}

void expand_range(const FoundCodes& found, const RowLists& lists, const int64_t* offsets, int32_t* distances,
                  int64_t* ids, const Threads& threads) {
  for_queries(found, lists, offsets[found.num_queries], threads, [&](Expander& expander, int64_t q) {
    expander.expand(q, offsets[q + 1] - offsets[q], distances + offsets[q], ids + offsets[q]);
  });
}

}  // namespace adsq::cpu
