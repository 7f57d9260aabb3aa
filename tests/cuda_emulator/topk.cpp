// topk QUERIES CODES WIDTH K CAPACITY SMS OFFSET MASKED MATRICES < queries, database, mask if MASKED > distances,
// indices, then one byte a query: 1 where it is still to be ranked. OFFSET bytes lie between an aligned address and
// each side's first code.
#include "cuda_emulator.h"  // first: it stands in for what nvcc defines

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "cuda/hamming_select.cuh"

namespace {

// Of its exact size, so that an access out of bounds is caught, and full of garbage.
template <typename T>
std::unique_ptr<T[]> garbage(int64_t count) {
  std::unique_ptr<T[]> memory(new T[count]);
  std::memset(memory.get(), 0xA5, sizeof(T) * count);
  return memory;
}

template <typename T>
void read(T* to, int64_t count) {
  if (std::fread(to, sizeof(T), count, stdin) != static_cast<size_t>(count)) std::abort();
}

template <typename T>
void write(const T* from, int64_t count) {
  std::fwrite(from, sizeof(T), count, stdout);
}

}  // namespace

int main(int, char** argv) {
  using namespace adsq::cuda;
  int64_t numbers[9];
  for (int i = 0; i < 9; ++i) numbers[i] = std::atoll(argv[1 + i]);
  const auto [queries, codes, width, k, capacity, sms, offset, masked, matrices] = numbers;
  const auto some = garbage<uint8_t>(offset + queries * width), all = garbage<uint8_t>(offset + codes * width);
  const auto mask = garbage<uint8_t>(codes);
  read(some.get() + offset, queries * width);
  read(all.get() + offset, codes * width);
  if (masked) read(mask.get(), codes);
  const auto distances = garbage<int32_t>(queries * k);
  const auto indices = garbage<int64_t>(queries * k);
  const auto thresholds = garbage<int>(queries), list = garbage<int>(queries);
  const auto counts = garbage<unsigned>(queries), histogram = garbage<unsigned>(queries * (8 * width + 1));
  const auto candidates = garbage<unsigned long long>(queries * capacity);
  const auto list_size = garbage<unsigned>(1);
  const Filter filter{codes_at(some.get() + offset, queries, width),
                      codes_at(all.get() + offset, codes, width, masked ? mask.get() : nullptr),
                      static_cast<int>(k),
                      static_cast<int>(capacity),
                      thresholds.get(),
                      counts.get(),
                      histogram.get(),
                      candidates.get(),
                      list.get(),
                      list_size.get()};
  launch_filter(filter, matrices != 0, static_cast<int>(sms), nullptr);
  launch_select(filter, {distances.get(), indices.get(), nullptr}, nullptr);
  const std::unique_ptr<uint8_t[]> unsettled(new uint8_t[queries]());
  for (unsigned i = 0; i < list_size[0]; ++i) ++unsettled[list[i]];
  write(distances.get(), queries * k);
  write(indices.get(), queries * k);
  write(unsettled.get(), queries);
}
