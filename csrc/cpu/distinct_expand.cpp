#include "cpu/distinct_expand.h"

#include <algorithm>
#include <stdexcept>

namespace adsq::cpu {
namespace {

constexpr size_t kFewRows = 96, kManyRows = 4096;
constexpr int64_t kFetched = 256;

template <int kBits>
void sort_by_digits(std::vector<int32_t>& rows, std::vector<int32_t>& scratch) {
  scratch.resize(rows.size());
  const int32_t largest = *std::max_element(rows.begin(), rows.end());
  for (int shift = 0; shift < 31 && largest >> shift != 0; shift += kBits) {
    uint32_t starts[(1 << kBits) + 1] = {};
    const auto digit = [shift](int32_t row) { return (row >> shift) & ((1 << kBits) - 1); };
    for (const int32_t row : rows) ++starts[digit(row) + 1];
    for (int d = 0; d < 1 << kBits; ++d) starts[d + 1] += starts[d];
    for (const int32_t row : rows) scratch[starts[digit(row)]++] = row;
    rows.swap(scratch);
  }
}

}  // namespace

int64_t Expander::expand(const FoundCodes& found, int64_t limit, int32_t* distances, int64_t* ids) {
  int64_t written = 0;
  if (database_.offsets == nullptr) {
    for (; written < std::min(found.count, limit); ++written) {
      distances[written] = found.distances[written];
      ids[written] = id(found.codes[written]);
    }
    return written;
  }
  fetch(found);
  for (int64_t i = 0; i < found.count && written < limit;) {
    const int32_t distance = found.distances[i];
    int64_t end = i + 1;
    while (end < found.count && found.distances[end] == distance) ++end;
    const int64_t room = limit - written;
    const bool cut = found.cut && end == found.count;
    int64_t count;
    if (end == i + 1 && !cut) {
      count = take_one(found.codes[i], room, ids + written);
    } else {
      int32_t bound = INT32_MAX;
      if (cut && Expander::count(database_, found.codes[end - 1]) > 0) {
        bound = database_.rows[database_.offsets[found.codes[end - 1]]];
      }
      count = merge(found.codes + i, found.codes + end, room, bound, ids + written);
    }
    std::fill(distances + written, distances + written + count, distance);
    written += count;
    i = end;
  }
  return written;
}

// Lists lie anywhere in memory: it is waited for once and not for each.
void Expander::fetch(const FoundCodes& found) const {
  const int64_t some = std::min<int64_t>(found.count, kFetched);
  for (int64_t i = 0; i < some; ++i) __builtin_prefetch(database_.offsets + found.codes[i]);
  for (int64_t i = 0; i < some; ++i) __builtin_prefetch(database_.rows + database_.offsets[found.codes[i]]);
}

int64_t Expander::count(const DistinctCodes& database, int64_t code) {
  if (database.offsets == nullptr) return 1;
  const int64_t first = database.offsets[code], last = database.offsets[code + 1];
  if (first < 0 || last < first || last > database.num_rows)
    throw std::out_of_range("offsets: expected places in rows");
  return last - first;
}

int64_t Expander::id(int64_t row) const {
  if (row < 0 || row >= database_.num_rows) throw std::out_of_range("rows: expected rows");
  return database_.ids == nullptr ? row : database_.ids[row];
}

int64_t Expander::take_one(int64_t code, int64_t room, int64_t* ids) const {
  const int64_t taken = std::min(room, count(database_, code));
  const int32_t* rows = database_.rows + database_.offsets[code];
  for (int64_t j = 0; j < taken; ++j) ids[j] = id(rows[j]);
  return taken;
}

int64_t Expander::merge(const int64_t* code, const int64_t* end, int64_t room, int32_t bound, int64_t* ids) {
  constexpr int64_t kAhead = 8;  // lists lie far apart: what comes soon is fetched
  rows_.clear();
  for (; code < end; ++code) {
    if (end - code > 2 * kAhead) {
      __builtin_prefetch(database_.offsets + code[2 * kAhead]);
      __builtin_prefetch(database_.rows + database_.offsets[code[kAhead]]);
    }
    const int64_t size = std::min(room, count(database_, *code));
    const int32_t *row = database_.rows + database_.offsets[*code], *last = row + size;
    if (row < last && *row > bound) break;  // and the rows of later codes are later
    for (; row < last && *row <= bound; ++row) rows_.push_back(*row);
    if (static_cast<int64_t>(rows_.size()) / 2 >= room) bound = keep(room);
  }
  if (static_cast<int64_t>(rows_.size()) > room) keep(room);
  if (rows_.size() < kFewRows) {
    std::sort(rows_.begin(), rows_.end());
  } else if (rows_.size() < kManyRows) {
    sort_by_digits<8>(rows_, scratch_);
  } else {
    sort_by_digits<11>(rows_, scratch_);
  }
  for (const int32_t row : rows_) *ids++ = id(row);
  return static_cast<int64_t>(rows_.size());
}

// Keeps the first rows, and returns the last of them.
int32_t Expander::keep(int64_t count) {
  const auto last = rows_.begin() + count - 1;
  std::nth_element(rows_.begin(), last, rows_.end());
  const int32_t bound = *last;
  rows_.resize(static_cast<size_t>(count));
  return bound;
}

}  // namespace adsq::cpu
