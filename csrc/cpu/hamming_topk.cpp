#include "cpu/hamming_topk.h"

#include "cpu/hamming_results.h"

namespace adsq::cpu {
namespace {

int64_t count_allowed(const Codes& database) {
  if (database.mask == nullptr) return database.count;
  int64_t allowed = 0;
  for (int64_t i = 0; i < database.count; ++i) allowed += database.mask[i] != 0;
  return allowed;
}

}  // namespace

void hamming_topk(const Codes& queries, const Codes& database, int64_t k, const int64_t* ids, int32_t* distances,
                  int64_t* indices, const Threads& threads, bool is_new, const int32_t* bounds) {
  const ScanKernels& kernels = scan_kernels();
  const Output output{k, ids, distances, indices, is_new};
  const int64_t allowed = count_allowed(database), wanted = std::min(k, allowed);
  if (wanted == 0) {
    for (int64_t q = 0; q < queries.count; ++q) output.fill_up(q, 0);
    return;
  }
  if (queries.count == 0) return;
  const auto words = query_words(kernels, queries);
  const Search search{kernels, database, words.get(), queries.count, allowed, wanted, output, threads, bounds};
  if (wanted > allowed / 4 && allowed <= UINT32_MAX / 2) {
    rank_all(search);
  } else {
    select_nearest(search);
  }
}

}  // namespace adsq::cpu
