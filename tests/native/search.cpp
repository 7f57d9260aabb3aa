// hamming_topk and RangeSearch, the same with equal codes stored once, and both by hash tables.
#include "search.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "cpu/distinct_codes.h"
#include "cpu/hamming_hash_costs.h"
#include "cpu/hamming_topk.h"

namespace adsq::test {
namespace {

enum class Mask { kNone, kAll, kNothing, kOne, kHalf, kBlocks };

// Which codes may be found; null, and not empty, for Mask::kNone.
Buffer<uint8_t> make_mask(Mask kind, int64_t count, Random& random) {
  Buffer<uint8_t> mask(kind == Mask::kNone ? 0 : count);
  bool allowed = true;
  for (int64_t i = 0, rest = 0; i < mask.size(); ++i) {
    if (kind == Mask::kBlocks && rest-- == 0) rest = random.below(40 + count / 8), allowed = !allowed;
    const bool is_allowed =
        kind == Mask::kAll || (kind == Mask::kHalf && random.chance(2)) || (kind == Mask::kBlocks && allowed);
    mask[i] = is_allowed ? random.pick<uint8_t>({1, 1, 2, 128, 255}) : 0;
  }
  if (kind == Mask::kOne && count > 0) mask[random.pick<int64_t>({0, count / 2, count - 1})] = 2;
  return mask;
}

// Ascending, and too large for 32 bits.
Buffer<int64_t> make_ids(bool wanted, int64_t count, Random& random) {
  Buffer<int64_t> ids(wanted ? count : 0);
  int64_t id = 0;
  for (int64_t i = 0; i < ids.size(); ++i) ids[i] = id += 1 + random.below(int64_t{1} << 32);
  return ids;
}

// What a search may find and how it names it.
struct Names {
  const uint8_t* mask;
  const int64_t* ids;
  bool allow(int64_t index) const { return mask == nullptr || mask[index] != 0; }
  int64_t of(int64_t index) const { return ids == nullptr ? index : ids[index]; }
};

// What a search should return.
struct Found {
  std::vector<int64_t> offsets{0}, indices;
  std::vector<int32_t> distances;
  void add(int32_t distance, int64_t index) { distances.push_back(distance), indices.push_back(index); }
};

Found nearest(const Ranking& ranking, int64_t k, const Names& names) {
  Found found;
  for (const auto& order : ranking) {
    int64_t rest = k;
    for (auto next = order.begin(); next != order.end() && rest > 0; ++next) {
      if (names.allow(next->index)) found.add(next->distance, names.of(next->index)), --rest;
    }
    for (; rest > 0; --rest) found.add(cpu::kNoDistance, cpu::kNoIndex);
  }
  return found;
}

Found within(const Ranking& ranking, int64_t radius, const Names& names) {
  Found found;
  for (const auto& order : ranking) {
    for (auto next = order.begin(); next != order.end() && next->distance <= radius; ++next) {
      if (names.allow(next->index)) found.add(next->distance, names.of(next->index));
    }
    found.offsets.push_back(static_cast<int64_t>(found.indices.size()));
  }
  return found;
}

void compare_topk(const DataSet& data, const Found& expected, int64_t k, const Names& names,
                  const cpu::Threads& threads) {
  const Buffer<int32_t> distances(data.num_queries * k, 4);
  const Buffer<int64_t> indices(data.num_queries * k, 8);
  cpu::hamming_topk(data.queries(), data.codes(names.mask), k, names.ids, distances.data(), indices.data(), threads);
  check_equal("distances of hamming_topk", distances, expected.distances);
  check_equal("indices of hamming_topk", indices, expected.indices);
}

void compare_range(const DataSet& data, const Found& expected, int64_t radius, const Names& names,
                   const cpu::Threads& threads) {
  const cpu::RangeSearch search(data.queries(), data.codes(names.mask), radius, threads);
  CHECK(search.offsets() == expected.offsets);
  const Buffer<int32_t> distances(search.offsets().back());
  const Buffer<int64_t> indices(search.offsets().back());
  search.write(names.ids, distances.data(), indices.data());
  check_equal("distances of RangeSearch", distances, expected.distances);
  check_equal("indices of RangeSearch", indices, expected.indices);
}

// The codes of a data set, each once.
struct Distinct {
  Buffer<uint8_t> codes;
  Buffer<int32_t> offsets, rows;

  explicit Distinct(const DataSet& data) {
    const Buffer<int32_t> numbers(data.count);
    const std::vector<int64_t> first = cpu::number_codes(data.rows.data(), data.count, data.width, numbers.data());
    const auto count = static_cast<int64_t>(first.size());
    codes = Buffer<uint8_t>(count * data.width, kPageEnd);
    offsets = Buffer<int32_t>(count + 1);
    rows = Buffer<int32_t>(data.count);
    for (int64_t c = 0; c < count; ++c) {
      CHECK(c == 0 || first[static_cast<size_t>(c)] > first[static_cast<size_t>(c - 1)]);
      std::copy_n(data.row(first[static_cast<size_t>(c)]), data.width, codes.data() + c * data.width);
    }
    for (int64_t i = 0; i < data.count; ++i) {
      CHECK(std::memcmp(data.row(i), codes.data() + numbers[i] * data.width, static_cast<size_t>(data.width)) == 0);
    }
    cpu::list_rows(numbers.data(), data.count, count, offsets.data(), rows.data());
  }
};

// Hash tables of some codes.
struct Tables {
  cpu::HashLayout layout;
  Buffer<int32_t> offsets, positions;
  Buffer<uint8_t> rows, sample, frequent;
  Buffer<double> counts, learned;
  cpu::HashRates rates{};

  explicit Tables(const cpu::DistinctCodes& database) : Tables(database, cpu::frequent_codes(database)) {}
  Tables(const cpu::DistinctCodes& database, const std::vector<int32_t>& most)
      : layout(database.codes.width, database.codes.count),
        offsets(layout.first_offset(layout.num_tables)),
        positions(layout.num_tables * database.codes.count),
        rows(layout.num_tables * database.codes.count * database.codes.width, kPageEnd),
        sample(cpu::HashLayout::sample_size(database.codes.count) * database.codes.width, kPageEnd),
        frequent(static_cast<int64_t>(most.size()) * database.codes.width, kPageEnd),
        counts(static_cast<int64_t>(most.size())),
        learned(cpu::HashLearned::kNumbers) {
    std::fill_n(learned.data(), learned.size(), 0.0);
    const cpu::Codes& codes = database.codes;
    cpu::make_hash_tables(database, layout, offsets.data(), positions.data(), rows.data(), sample.data());
    for (size_t i = 0; i < most.size(); ++i) {
      std::copy_n(codes.rows + most[i] * codes.width, codes.width,
                  frequent.data() + static_cast<int64_t>(i) * codes.width);
      counts[static_cast<int64_t>(i)] = database.offsets[most[i] + 1] - database.offsets[most[i]];
      CHECK(i == 0 || counts[static_cast<int64_t>(i)] <= counts[static_cast<int64_t>(i) - 1]);
    }
    rates = cpu::measure_rates(database, tables());
    for (const double time : rates.scans) CHECK(time >= 0);
    CHECK(rates.tables > 0);
  }
  cpu::HashTables tables() const {
    return {layout,      offsets.data(), positions.data(),
            rows.data(), sample.data(),  {frequent.data(), counts.data(), counts.size()},
            rates,       learned.data()};
  }
};

void compare_hash(const DataSet& data, const cpu::DistinctCodes& database, const Tables& tables, const Found& near,
                  int64_t k, const Found& inside, int64_t radius, bool force, const cpu::Threads& threads) {
  const Buffer<int32_t> distances(data.num_queries * k);
  const Buffer<int64_t> indices(data.num_queries * k);
  const Buffer<uint8_t> used(data.num_queries);
  cpu::hash_topk(data.queries(), database, tables.tables(), k, force, distances.data(), indices.data(), used.data(),
                 threads);
  check_equal("distances of hash_topk", distances, near.distances);
  check_equal("indices of hash_topk", indices, near.indices);
  for (int64_t q = 0; q < data.num_queries; ++q) CHECK(force ? used[q] == 1 : used[q] <= 2);
  CHECK_EQUAL(cpu::hash_plans(data.queries(), database, tables.tables(), k, threads.count).size(),
              static_cast<size_t>(data.num_queries));
  const cpu::RangeRows range =
      cpu::hash_range(data.queries(), database, tables.tables(), radius, force, used.data(), threads);
  CHECK(range.offsets() == inside.offsets);
  const Buffer<int32_t> range_distances(range.offsets().back());
  const Buffer<int64_t> range_indices(range.offsets().back());
  range.write(range_distances.data(), range_indices.data());
  check_equal("distances of hash_range", range_distances, inside.distances);
  check_equal("indices of hash_range", range_indices, inside.indices);
}

cpu::DistinctCodes database_of(const DataSet& data, const Distinct& distinct, const int64_t* ids) {
  return {{distinct.codes.data(), distinct.offsets.size() - 1, data.width},
          distinct.offsets.data(),
          distinct.rows.data(),
          data.count,
          ids};
}

void compare_distinct(const DataSet& data, const cpu::DistinctCodes& database, const Found& near, int64_t k,
                      const Found& inside, int64_t radius, const cpu::Threads& threads) {
  const Buffer<int32_t> distances(data.num_queries * k);
  const Buffer<int64_t> indices(data.num_queries * k);
  cpu::distinct_topk(data.queries(), database, k, distances.data(), indices.data(), threads);
  check_equal("distances of distinct_topk", distances, near.distances);
  check_equal("indices of distinct_topk", indices, near.indices);
  const cpu::RangeRows range = cpu::distinct_range(data.queries(), database, radius, threads);
  CHECK(range.offsets() == inside.offsets);
  const Buffer<int32_t> range_distances(range.offsets().back());
  const Buffer<int64_t> range_indices(range.offsets().back());
  range.write(range_distances.data(), range_indices.data());
  check_equal("distances of distinct_range", range_distances, inside.distances);
  check_equal("indices of distinct_range", range_indices, inside.indices);
}

}  // namespace

void compare_search(const DataSet& data, const Ranking& ranking, const std::vector<int64_t>& thread_counts,
                    Random& random) {
  const int64_t n = data.count, bits = 8 * data.width;
  const std::string outer = context;
  const Distinct distinct(data);
  const cpu::DistinctCodes once = database_of(data, distinct, nullptr);
  std::optional<Tables> flat_tables, tables;
  if (data.width <= 65) {
    flat_tables.emplace(cpu::DistinctCodes{data.codes(nullptr), nullptr, nullptr, n, nullptr});
    tables.emplace(once);
    // Whatever is measured, or believed, the results are the same.
    flat_tables->rates.tables *= random.pick<double>({0.01, 1, 100});
    tables->rates.tables *= random.pick<double>({0.01, 1, 100});
    for (int64_t i = 0; i < cpu::HashLearned::kNumbers; ++i) {
      flat_tables->learned[i] = random.pick<double>({-3, 0, 0.5, 3, 1e9, std::nan("")});
    }
  }
  for (int draw = 0; draw < 3; ++draw) {
    const auto kind = draw == 0 ? Mask::kNone : static_cast<Mask>(random.below(6));
    const Buffer<uint8_t> mask = make_mask(kind, n, random);
    const Buffer<int64_t> ids = make_ids(random.chance(2), n, random);
    const Names names{mask.data(), ids.data()};
    const int64_t k = random.pick<int64_t>({1, 1 + random.below(10), 1 + n / 400, 1 + n / 40,
                                            std::max<int64_t>(1, n / 4), std::max<int64_t>(1, n), n + 3});
    const int64_t radius = random.pick<int64_t>({0, 1, bits / 4, bits / 2, bits - 1, bits, int64_t{1} << 40});
    context = outer + ", mask " + std::to_string(static_cast<int>(kind)) + (ids.size() > 0 ? ", ids" : "") + ", k " +
              std::to_string(k) + ", radius " + std::to_string(radius);
    const Found near = nearest(ranking, k, names), inside = within(ranking, radius, names);
    for_every_way(thread_counts, [&](RealThreads& real) {
      compare_topk(data, near, k, names, real.threads);
      compare_range(data, inside, radius, names, real.threads);
      if (mask.size() == 0) {
        const cpu::DistinctCodes flat{data.codes(nullptr), nullptr, nullptr, n, names.ids};
        const cpu::DistinctCodes database = database_of(data, distinct, names.ids);
        const int64_t most = std::min(radius, bits);
        compare_distinct(data, database, near, k, inside, most, real.threads);
        // Forced, the tables take far longer than a scan where much is wanted.
        const bool force = random.chance(2) && n * data.num_queries <= 1 << 15;
        if (!tables || !random.chance(2)) return;
        compare_hash(data, flat, *flat_tables, near, k, inside, most, force, real.threads);
        compare_hash(data, database, *tables, near, k, inside, most, force, real.threads);
      }
      CHECK(real.most_tasks <= real.threads.count);
    });
  }
  context = outer;
}

// A search that is cut short, as by a lack of memory, frees what it has found: AddressSanitizer sees it at the end.
void test_range_that_fails() {
  Random random(6);
  const DataSet data = make_data(Kind::kRandom, 8, 3000, 20, 0, random);
  const cpu::Threads failing{1, [](int64_t tasks, const std::function<void(int64_t)>& task) {
                               for (int64_t i = 0; i < tasks; ++i) task(i);
                               throw std::bad_alloc();
                             }};
  bool failed = false;
  try {
    const cpu::RangeSearch search(data.queries(), data.codes(), 64, failing);
  } catch (const std::bad_alloc&) {
    failed = true;
  }
  CHECK(failed);
}

// The first threshold of a search comes from a sample of the codes. Here the sampled codes equal some of the queries
// and no others do, so that these queries find too little and have to be searched again.
void test_misleading_sample() {
  Random random(5);
  for (const int64_t num_queries : {3, 65}) {
    constexpr int64_t kCount = 40000, kWanted = 100;
    const DataSet data = make_data(Kind::kRandom, 8, kCount, num_queries, 0, random);
    // As hamming_sample.cpp draws it; `runs` below tells whether it still does.
    const bool few = num_queries < 12;
    const int64_t together = few ? 8 : 1, places = (few ? 512 : kCount / 64) / together, stretch = kCount / places;
    uint64_t state = 0x9E3779B97F4A7C15;
    for (int64_t i = 0; i < places; ++i) {
      state ^= state << 13, state ^= state >> 7, state ^= state << 17;
      const auto place = static_cast<int64_t>((state >> 32) * static_cast<uint64_t>(stretch) >> 32);
      const int64_t first = (i * stretch + place) / together * together;
      const int64_t query = i % (few ? 10 : 20);  // 48 copies, or 31: more than the sample's rank, fewer than wanted
      if (query % 3 != 1 || query >= num_queries) continue;
      for (int64_t j = first; j < first + together; ++j) std::copy_n(data.query(query), data.width, data.row(j));
    }
    const Names names{nullptr, nullptr};
    const Found near = nearest(rank(data), kWanted, names);
    context += ", misleading";
    for_every_way({1, 3}, [&](RealThreads& real) {
      compare_topk(data, near, kWanted, names, real.threads);
      CHECK(real.most_tasks <= real.threads.count);
      // A search, twice; over parts of the codes the thresholds first, and then a search and its output, twice.
      CHECK_EQUAL(real.runs, real.most_tasks == 1 ? 2 : 5);
    });
  }
}

}  // namespace adsq::test
