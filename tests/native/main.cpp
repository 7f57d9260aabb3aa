// Tests of the CPU kernels for run.py: compiled with sanitizers, without Python or torch.
#include <sanitizer/common_interface_defs.h>

#include <chrono>
#include <cstdio>

#include "cpu/simd.h"
#include "search.h"

namespace {

using namespace adsq::test;

// Runs a group of tests and says what it did.
template <class Group>
void run(const char* name, Group group) {
  const int64_t checks_before = num_checks, sets_before = num_data_sets;
  const auto start = std::chrono::steady_clock::now();
  group();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::printf("%-20s %5lld data sets, %10lld checks, %5.1f s\n", name,
              static_cast<long long>(num_data_sets - sets_before), static_cast<long long>(num_checks - checks_before),
              seconds.count());
  std::fflush(stdout);
}

void compare(Kind kind, int64_t width, int64_t count, int64_t num_queries, const std::vector<int64_t>& threads,
             Random& random) {
  const auto offset = random.pick<int64_t>({0, 1, 8, kPageEnd, kPageEnd, kPageEnd});
  const DataSet data = make_data(kind, width, count, num_queries, offset, random);
  const Ranking ranking = rank(data);
  compare_search(data, ranking, threads, random);
  compare_evaluation(data, ranking, threads, random);
}

Kind any_kind(Random& random) { return static_cast<Kind>(random.below(kNumKinds)); }

// Every width with every number of codes, and two numbers of queries each.
void small_data() {
  Random random(1);
  for (int64_t width = 1; width <= 512; ++width) {
    if (width > 33 && width != 40 && width != 64 && width != 65 && width != 512) continue;
    for (const int64_t count : {0, 1, 7, 63, 64, 65, 511, 512, 513, 2049}) {
      const int64_t queries = random.pick<int64_t>({0, 1, 2, 5, 11});
      compare(any_kind(random), width, count, queries, {1, 3}, random);
      compare(any_kind(random), width, count, random.pick<int64_t>({12, 13, 23, 24, 25}), {1, 3}, random);
    }
  }
}

// Every kind where queries, and where both codes and queries are split over threads.
void split_data(int step) {
  Random random(2);
  const int64_t widths[] = {2, 6, 8, 16, 64};
  for (int kind = 0; kind < kNumKinds; kind += step) {
    compare(static_cast<Kind>(kind), widths[kind % 5], 2049, 65, {3}, random);
    compare(static_cast<Kind>(kind), widths[(kind + 2) % 5], 8200 + random.below(1000), 65, {8}, random);
  }
}

// Every kind where the first threshold comes from a sample.
void sampled_data() {
  Random random(3);
  const int64_t widths[] = {1, 4, 5, 8, 16, 32, 33};
  for (int kind = 0; kind < kNumKinds; ++kind) {
    compare(static_cast<Kind>(kind), widths[kind % 7], 40000, 1 + random.below(2), {1, 3}, random);
    compare(static_cast<Kind>(kind), widths[(kind + 3) % 7], 40000, random.pick<int64_t>({12, 24}), {1, 3}, random);
  }
}

// More queries, codes or results than are held at a time.
void large_data() {
  Random random(4);
  compare(Kind::kRandom, 1, 600, 2100, {1, 3}, random);
  compare(Kind::kFew, 4, 140000, 5, {3}, random);
  compare(Kind::kRandom, 8, 40000, 65, {8}, random);
}

}  // namespace

int main() {
  __sanitizer_set_death_callback([] { std::fprintf(stderr, "while testing %s\n", context.c_str()); });
  for (const std::string& variant : variants()) std::printf("%s ", variant.c_str());
  std::printf("\n");
#if defined(__SANITIZE_THREAD__)
  constexpr bool races_only = true;
#else
  constexpr bool races_only = false;
#endif
#if defined(ADSQ_EMULATED)
  threads_are_real = false;  // qemu keeps 280 kB of each thread that has ended
#endif
  if (!races_only) {
    run("packing", test_pack_codes);
    run("sign quantization", test_sign_quantization);
    run("pairs", test_pairwise);
    run("names of variants", test_variant_names);
    run("small", small_data);
    run("sampled thresholds", sampled_data);
    run("in several rounds", large_data);
  }
  threads_are_real = true;
  run("pairs over threads", test_pairwise_threads);
  run("misleading samples", test_misleading_sample);
  run("a search that fails", test_range_that_fails);
  run("split over threads", [] { return split_data(races_only ? 3 : 1); });
  return 0;
}
