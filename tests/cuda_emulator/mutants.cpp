// mutants NAME THREADS: runs a variant of the selection kernel and compares with a definition; 1: a wrong result.
#include "cuda_emulator.h"  // first: it stands in for what nvcc defines

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "mutants.cuh"

namespace {

constexpr int kRows = 3, kCount = 333;
constexpr unsigned kWanted = 40;

template <Mutant M>
bool right(unsigned threads) {
  const std::unique_ptr<uint8_t[]> distances(new uint8_t[kRows * kCount]);
  const std::unique_ptr<int[]> selected(new int[kRows * kCount]), sizes(new int[kRows]);
  for (int i = 0; i < kRows * kCount; ++i) distances[i] = static_cast<uint8_t>(i * 2654435761u >> 26);
  std::fill_n(selected.get(), kRows * kCount, -1);
  unsigned done = 0;
  int total = -1, expected_total = 0;
  emulator::Launch launch{kRows, threads};
  launch.launch_bounds = kMaxThreads;
  launch.patience = 1 << 16;
  EMULATE(launch, select_kernel<M>(distances.get(), kCount, kWanted, selected.get(), sizes.get(), &done, &total));
  for (int row = 0; row < kRows; ++row) {
    const uint8_t* values = distances.get() + row * kCount;
    int* const found = selected.get() + row * kCount;
    std::vector<uint8_t> sorted(values, values + kCount);
    std::sort(sorted.begin(), sorted.end());
    std::vector<int> expected;
    for (int i = 0; i < kCount; ++i) {
      if (values[i] <= sorted[kWanted - 1]) expected.push_back(i);
    }
    const int size = static_cast<int>(expected.size());
    expected_total += size;
    if (sizes[row] != size) return false;
    std::sort(found, found + size);
    if (!std::equal(expected.begin(), expected.end(), found)) return false;
    if (std::any_of(found + size, found + kCount, [](int index) { return index != -1; })) return false;
  }
  return total == expected_total;
}

const struct {
  const char* name;
  bool (*right)(unsigned threads);
} kMutants[] = {
    {"none", right<Mutant::kNone>},
    {"dropped_barrier", right<Mutant::kDroppedBarrier>},
    {"plain_add", right<Mutant::kPlainAdd>},
    {"unzeroed_histogram", right<Mutant::kUnzeroedHistogram>},
    {"barrier_in_branch", right<Mutant::kBarrierInBranch>},
    {"ballot_after_exit", right<Mutant::kBallotAfterExit>},
    {"out_of_bounds_read", right<Mutant::kOutOfBoundsRead>},
    {"shared_out_of_bounds", right<Mutant::kSharedOutOfBounds>},
    {"dropped_syncwarp", right<Mutant::kDroppedSyncwarp>},
    {"store_before_shared", right<Mutant::kStoreBeforeShared>},
    {"different_masks", right<Mutant::kDifferentMasks>},
    {"shuffle_outside_mask", right<Mutant::kShuffleOutsideMask>},
    {"dropped_fence", right<Mutant::kDroppedFence>},
    {"plain_ticket", right<Mutant::kPlainTicket>},
    {"deadlock", right<Mutant::kDeadlock>},
    {"spin", right<Mutant::kSpin>},
};

}  // namespace

int main(int count, char** argv) {
  for (const auto& mutant : kMutants) {
    if (count == 3 && std::strcmp(argv[1], mutant.name) == 0) return mutant.right(std::atoi(argv[2])) ? 0 : 1;
  }
  std::fprintf(stderr, "no such mutant\n");
  return 2;
}
