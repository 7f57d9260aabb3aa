// What the native tests share: checks, memory of an exact size, threads, and every way to run a kernel.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cpu/hamming_pass.h"
#include "element.h"

namespace adsq::test {

// What is being compared: printed where a check or a sanitizer ends the program.
extern std::string& context;
extern int64_t num_checks;
// Otherwise the tasks of RealThreads run one after the other, the last one first.
extern bool threads_are_real;

[[noreturn]] void fail(const char* file, int line, const std::string& what);

#define CHECK(condition) \
  (++adsq::test::num_checks, (condition) ? void() : adsq::test::fail(__FILE__, __LINE__, #condition))
#define CHECK_EQUAL(actual, expected)                                                       \
  do {                                                                                      \
    const auto is = (actual);                                                               \
    const auto should = (expected);                                                         \
    ++adsq::test::num_checks;                                                               \
    if (is == should) break;                                                                \
    const std::string values = std::to_string(is) + ", expected " + std::to_string(should); \
    adsq::test::fail(__FILE__, __LINE__, #actual " is " + values);                          \
  } while (false)

// Memory of exactly `bytes`, so that AddressSanitizer sees one byte too many, and `offset` bytes behind an aligned
// address. It does not see what masked loads of AVX-512 read: hence kPageEnd, with a page behind that cannot be read.
constexpr int64_t kPageEnd = -1;
std::shared_ptr<uint8_t> allocate(size_t bytes, int64_t offset);

// Numbers in such memory, at first garbage. Null where it is empty, as the data of an empty tensor is.
template <typename T>
class Buffer {
 public:
  explicit Buffer(int64_t count = 0, int64_t offset = 0) : count_(count) {
    if (count == 0) return;
    const size_t bytes = sizeof(T) * static_cast<size_t>(count);
    memory_ = allocate(bytes, offset);
    std::memset(memory_.get(), 0xA5, bytes);
  }
  T* data() const { return reinterpret_cast<T*>(memory_.get()); }
  T& operator[](int64_t i) const { return data()[i]; }
  int64_t size() const { return count_; }

 private:
  int64_t count_;
  std::shared_ptr<uint8_t> memory_;
};

// Ends the program where numbers differ, bit for bit.
template <typename T>
void check_equal(const char* name, const Buffer<T>& actual, const std::vector<T>& expected) {
  CHECK_EQUAL(actual.size(), static_cast<int64_t>(expected.size()));
  num_checks += actual.size();
  if (actual.size() == 0 || std::memcmp(actual.data(), expected.data(), sizeof(T) * expected.size()) == 0) return;
  context += std::string(", ") + name;
  for (int64_t i = 0; i < actual.size(); ++i) {
    if (actual[i] == expected[static_cast<size_t>(i)]) continue;
    context += ", at " + std::to_string(i);
    CHECK_EQUAL(actual[i], expected[static_cast<size_t>(i)]);
  }
}

// Reproducible on any machine, which the distributions of the standard library are not.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int64_t below(int64_t count) { return static_cast<int64_t>(engine_() % static_cast<uint64_t>(count)); }
  bool chance(int64_t one_in) { return below(one_in) == 0; }
  uint8_t byte() { return static_cast<uint8_t>(below(256)); }
  template <typename T>
  T pick(const std::vector<T>& from) {
    return from[static_cast<size_t>(below(static_cast<int64_t>(from.size())))];
  }

 private:
  std::mt19937_64 engine_;
};

// The value that a half type's bits stand for.
template <typename Half>
inline double half_value(Half x, int mantissa_bits) {
  const int exponent_bits = 15 - mantissa_bits, bias = (1 << (exponent_bits - 1)) - 1;
  const int mantissa = x.bits & ((1 << mantissa_bits) - 1), exponent = (x.bits & 0x7FFF) >> mantissa_bits;
  const double sign = x.bits >> 15 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) return mantissa == 0 ? sign * INFINITY : NAN;
  const double fraction = std::ldexp(mantissa, -mantissa_bits) + (exponent > 0);
  return sign * std::ldexp(fraction, std::max(exponent, 1) - bias);
}

template <typename T>
double value(T x) {
  return static_cast<double>(x);
}
inline double value(Float16 x) { return half_value(x, 10); }
inline double value(BFloat16 x) { return half_value(x, 7); }

// Up to `count` real threads at each run; how often they were started, and for how many tasks at most.
struct RealThreads {
  explicit RealThreads(int64_t count);
  int64_t runs = 0, most_tasks = 0;
  cpu::Threads threads;
};

// The variants that this machine has, by their names in ADSQ_SIMD.
std::vector<std::string> variants();

// Calls run(count of threads) for each number of threads and each of those variants.
void for_every_way(const std::vector<int64_t>& thread_counts, const std::function<void(RealThreads&)>& run);

}  // namespace adsq::test
