// intrinsics SUBJECT NUMBERS...: what tests/test_cuda_emulator.py asks of the emulator itself.
#include "cuda_emulator.h"  // first: it stands in for what nvcc defines

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "intrinsics.cuh"

namespace {

template <typename T>
std::vector<T> read(size_t count) {
  std::vector<T> values(count);
  if (std::fread(values.data(), sizeof(T), count, stdin) != count) std::abort();
  return values;
}

template <typename T>
void write(const std::vector<T>& values) {
  std::fwrite(values.data(), sizeof(T), values.size(), stdout);
}

void warp_functions(unsigned mask, int width) {
  const auto values = read<unsigned>(32);
  std::vector<unsigned long long> results(kResults * 32);
  EMULATE((emulator::Launch{1, 32}), intrinsics_kernel(values.data(), mask, width, results.data()));
  write(results);
}

void atomics(const emulator::Launch& launch) {
  const dim3 g = launch.grid, b = launch.block;
  const auto values = read<unsigned>(size_t{g.x} * g.y * g.z * b.x * b.y * b.z);
  std::vector<unsigned> counters = {0, ~0u, 0, 0, ~0u, 0, 0}, old(values.size());
  EMULATE(launch, atomics_kernel(values.data(), counters.data(), old.data()));
  write(counters);
  write(old);
}

void load(bool by_ldg, int offset, size_t shared) {
  const std::vector<uint4> bytes(2, make_uint4(1, 2, 3, 4));  // aligned to 16 bytes
  emulator::Launch launch{1, 1, shared};
  uint4 out;
  const auto* start = reinterpret_cast<const uint8_t*>(bytes.data());
  if (by_ldg) {
    EMULATE(launch, load_kernel<true>(start, offset, &out));
  } else {
    EMULATE(launch, load_kernel<false>(start, offset, &out));
  }
  std::printf("%u %u %u %u\n", out.x, out.y, out.z, out.w);
}

}  // namespace

int main(int count, char** argv) {
  const std::string subject = argv[1];
  std::vector<unsigned> n;
  for (int i = 2; i < count; ++i) n.push_back(static_cast<unsigned>(std::strtoul(argv[i], nullptr, 0)));
  int out[2] = {};
  if (subject == "warp") warp_functions(n.at(0), static_cast<int>(n.at(1)));
  if (subject == "atomics") atomics({{n.at(0), n.at(1), n.at(2)}, {n.at(3), n.at(4), n.at(5)}});
  if (subject == "load") load(n.at(0) != 0, static_cast<int>(n.at(1)), n.at(2));
  if (subject == "launch") {  // of a kernel that does nothing; sizes of shared memory, launch bounds
    EMULATE((emulator::Launch{{n.at(0), n.at(1), n.at(2)}, {n.at(3), n.at(4), n.at(5)}, n.at(6), n.at(7), n.at(8)}));
  }
  if (subject == "static_48k") EMULATE((emulator::Launch{2, 1, n.at(0), n.at(1)}), shared_kernel<48 << 10>(out));
  if (subject == "static_49k") EMULATE((emulator::Launch{2, 1, n.at(0), n.at(1)}), shared_kernel<49 << 10>(out));
  if (subject == "handshake") {
    unsigned flag = 0;
    if (n.at(0) == 0) {
      EMULATE((emulator::Launch{1, 96}), handshake_kernel<false>(&flag, &out[1], &out[0]));
    } else {
      EMULATE((emulator::Launch{1, 96}), handshake_kernel<true>(&flag, &out[1], &out[0]));
    }
  }
  if (subject == "static_48k" || subject == "handshake") std::printf("%d %d\n", out[0], out[1]);
}
