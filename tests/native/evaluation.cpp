// hamming_relevance_histogram and hamming_average_precision.
#include <algorithm>
#include <cmath>

#include "cpu/hamming_ranking.h"
#include "search.h"

namespace adsq::test {
namespace {

// Class ids, or rows of bits: [count, num_words].
struct Classes {
  int64_t num_words;
  bool are_ids;
  Buffer<uint64_t> words;

  cpu::Labels labels() const { return {words.data(), are_ids ? words.size() : rows, num_words, are_ids}; }
  int64_t rows;
};

Classes make_classes(int64_t count, int64_t num_words, bool are_ids, Random& random) {
  Classes classes{num_words, are_ids, Buffer<uint64_t>(count * num_words), count};
  for (int64_t i = 0; i < classes.words.size(); ++i) {
    // Few classes, so that neighbouring queries have equal ones, some without a bit, and ids of any size.
    const uint64_t value = static_cast<uint64_t>(random.below(4));
    classes.words[i] = are_ids ? value * 0x5000000000000001 : random.chance(2) ? 0 : uint64_t{1} << (21 * value);
  }
  return classes;
}

bool share_a_label(const Classes& a, int64_t i, const Classes& b, int64_t j) {
  for (int64_t w = 0; w < a.num_words; ++w) {
    const uint64_t x = a.words[i * a.num_words + w], y = b.words[j * b.num_words + w];
    if (a.are_ids ? x == y : (x & y) != 0) return true;
  }
  return false;
}

// Counts of all and of the relevant codes at each distance: [queries, num_bits + 1].
struct Histogram {
  std::vector<int64_t> total, relevant;
};

Histogram count(const DataSet& data, const Classes& wanted, const Classes& given, int64_t num_bits) {
  Histogram counts;
  counts.total.resize(static_cast<size_t>(data.num_queries * (num_bits + 1)));
  counts.relevant = counts.total;
  for (int64_t q = 0; q < data.num_queries; ++q) {
    for (int64_t i = 0; i < data.count; ++i) {
      const auto place = static_cast<size_t>(q * (num_bits + 1) + distance(data.query(q), data.row(i), num_bits));
      ++counts.total[place];
      counts.relevant[place] += share_a_label(wanted, q, given, i);
    }
  }
  return counts;
}

// The sum of precisions at the relevant ranks up to k, for one query, and how many codes are relevant. With `expected`,
// the mean over all orders of equal distances: each rank within a group of `all` codes, `good` of them relevant, holds
// a relevant one with probability good / all, and then (good - 1) / (all - 1) of those before it in the group.
std::pair<double, int64_t> precision_sum(const std::vector<Neighbour>& order, const std::vector<char>& is_relevant,
                                         int64_t k, bool expected) {
  double sum = 0;
  int64_t hits = 0;
  const auto count = static_cast<int64_t>(order.size());
  for (int64_t first = 0, last = 0; first < count; first = last) {
    const int64_t hits_before = hits;
    for (; last < count && order[static_cast<size_t>(last)].distance == order[static_cast<size_t>(first)].distance;
         ++last) {
      if (!is_relevant[static_cast<size_t>(order[static_cast<size_t>(last)].index)]) continue;
      ++hits;
      if (!expected && last < k) sum += static_cast<double>(hits) / static_cast<double>(last + 1);
    }
    const auto all = static_cast<double>(last - first), good = static_cast<double>(hits - hits_before);
    for (int64_t r = first; expected && good > 0 && r < std::min(last, k); ++r) {
      const double earlier = all > 1 ? static_cast<double>(r - first) * (good - 1) / (all - 1) : 0;
      sum += good / all * (static_cast<double>(hits_before + 1) + earlier) / static_cast<double>(r + 1);
    }
  }
  return {sum, hits};
}

}  // namespace

void compare_evaluation(const DataSet& data, const Ranking& ranking, const std::vector<int64_t>& thread_counts,
                        Random& random) {
  const std::string outer = context;
  for (const bool are_ids : {true, false}) {
    const int64_t num_words = are_ids ? 1 : random.below(4);
    const Classes wanted = make_classes(data.num_queries, num_words, are_ids, random);
    const Classes given = make_classes(data.count, num_words, are_ids, random);
    const int64_t num_bits = 8 * data.width - random.below(8);
    const int64_t k = random.pick<int64_t>({1, 7, 1 + data.count / 2, data.count, data.count + 3});
    const bool expected = random.chance(2);
    context = outer + ", " + (are_ids ? "class ids" : std::to_string(num_words) + " words of labels") + ", " +
              std::to_string(num_bits) + " bits, k " + std::to_string(k) + (expected ? ", expected" : ", by index");
    const Histogram counts = count(data, wanted, given, num_bits);
    std::vector<double> precisions;
    std::vector<int64_t> hits;
    for (int64_t q = 0; q < data.num_queries; ++q) {
      std::vector<char> is_relevant;
      for (int64_t i = 0; i < data.count; ++i) is_relevant.push_back(share_a_label(wanted, q, given, i));
      const auto [sum, found] = precision_sum(ranking[static_cast<size_t>(q)], is_relevant, k, expected);
      precisions.push_back(sum / static_cast<double>(std::max<int64_t>(1, found)));
      hits.push_back(found);
    }
    for_every_way(thread_counts, [&](RealThreads& real) {
      const Buffer<int64_t> total(data.num_queries * (num_bits + 1)), relevant(total.size());
      cpu::hamming_relevance_histogram(data.queries(), data.codes(), wanted.labels(), given.labels(), num_bits,
                                       total.data(), relevant.data(), real.threads);
      check_equal("total", total, counts.total);
      check_equal("relevant", relevant, counts.relevant);

      const Buffer<double> precision(data.num_queries);
      const Buffer<int64_t> num_relevant(data.num_queries);
      cpu::hamming_average_precision(data.queries(), data.codes(), wanted.labels(), given.labels(), k, expected,
                                     precision.data(), num_relevant.data(), real.threads);
      check_equal("num_relevant", num_relevant, hits);
      for (int64_t q = 0; q < data.num_queries; ++q) {
        CHECK(std::abs(precision[q] - precisions[static_cast<size_t>(q)]) <= 1e-12);
      }
      CHECK(real.most_tasks <= real.threads.count);
    });
  }
  context = outer;
}

}  // namespace adsq::test
