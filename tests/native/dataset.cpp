#include "dataset.h"

#include <algorithm>

namespace adsq::test {
namespace {

constexpr const char* kNames[kNumKinds] = {"random",    "equal",     "two",         "few",       "descending",
                                           "ascending", "clustered", "complements", "duplicates"};

void flip(uint8_t* row, int64_t bit) { row[bit / 8] = static_cast<uint8_t>(row[bit / 8] ^ (1 << (bit % 8))); }

// Overwrites codes, or queries, each with one of `distinct` codes, apart from up to `flips` bits.
void repeat(const DataSet& data, int64_t distinct, int64_t flips, Random& random) {
  Buffer<uint8_t> centres(distinct * data.width);
  fill_random(centres, random);
  const auto overwrite = [&](uint8_t* row) {
    std::copy_n(centres.data() + random.below(distinct) * data.width, data.width, row);
    for (int64_t f = flips == 0 ? 0 : random.below(flips + 1); f > 0; --f) flip(row, random.below(8 * data.width));
  };
  for (int64_t i = 0; i < data.count; ++i) overwrite(data.row(i));
  // The others are random queries.
  for (int64_t q = 0; q < data.num_queries; q += 2) overwrite(data.query(q));
}

// The first query is the origin; about place / count of the bits differ from it.
void slope(const DataSet& data, bool descending, Random& random) {
  for (int64_t i = 0; i < data.count; ++i) {
    std::copy_n(data.query(0), data.width, data.row(i));
    const int64_t place = descending ? data.count - 1 - i : i, bits = 8 * data.width;
    for (int64_t b = 0; b < bits * place / data.count; ++b) flip(data.row(i), (b + i) % bits);
  }
  for (int64_t q = 1; q < data.num_queries; q += 2) {
    std::copy_n(data.query(0), data.width, data.query(q));
    flip(data.query(q), random.below(8 * data.width));
  }
}

// Most codes are a query of the first half, or its complement.
void copy_queries(const DataSet& data, bool complement, Random& random) {
  for (int64_t i = 0; i < data.count; ++i) {
    if (random.chance(4)) continue;
    const uint8_t* query = data.query(random.below((data.num_queries + 1) / 2));
    for (int64_t b = 0; b < data.width; ++b) data.row(i)[b] = complement ? static_cast<uint8_t>(~query[b]) : query[b];
  }
}

}  // namespace

int64_t num_data_sets = 0;

void fill_random(const Buffer<uint8_t>& buffer, Random& random) {
  for (int64_t i = 0; i < buffer.size(); ++i) buffer[i] = random.byte();
}

DataSet make_data(Kind kind, int64_t width, int64_t count, int64_t num_queries, int64_t offset, Random& random) {
  ++num_data_sets;
  context = std::string(kNames[static_cast<int>(kind)]) + ": " + std::to_string(count) + " codes of " +
            std::to_string(width) + " bytes at " + std::to_string(offset) + ", " + std::to_string(num_queries) +
            " queries";
  DataSet data{width, count, num_queries, Buffer<uint8_t>(count * width, offset),
               Buffer<uint8_t>(num_queries * width, offset)};
  fill_random(data.rows, random);
  fill_random(data.query_rows, random);
  if (num_queries == 0) return data;
  switch (kind) {
    case Kind::kRandom: break;
    case Kind::kEqual: repeat(data, 1, 0, random); break;
    case Kind::kTwo: repeat(data, 2, 0, random); break;
    case Kind::kFew: repeat(data, 5, 0, random); break;
    case Kind::kClustered: repeat(data, 4, 5, random); break;
    case Kind::kDescending: slope(data, true, random); break;
    case Kind::kAscending: slope(data, false, random); break;
    case Kind::kComplements: copy_queries(data, true, random); break;
    case Kind::kDuplicates: copy_queries(data, false, random); break;
  }
  return data;
}

int32_t distance(const uint8_t* a, const uint8_t* b, int64_t num_bits) {
  int32_t sum = 0;
  for (int64_t i = 0; i < num_bits / 8; ++i) sum += __builtin_popcount(a[i] ^ b[i]);
  const int64_t last = num_bits / 8;
  if (num_bits % 8 != 0) sum += __builtin_popcount((a[last] ^ b[last]) & ((1 << (num_bits % 8)) - 1));
  return sum;
}

Ranking rank(const DataSet& data) {
  Ranking ranking(static_cast<size_t>(data.num_queries));
  for (int64_t q = 0; q < data.num_queries; ++q) {
    auto& order = ranking[static_cast<size_t>(q)];
    for (int64_t i = 0; i < data.count; ++i) order.push_back({distance(data.query(q), data.row(i), 8 * data.width), i});
    std::stable_sort(order.begin(), order.end(), [](auto& a, auto& b) { return a.distance < b.distance; });
  }
  return ranking;
}

}  // namespace adsq::test
