// Packing and unpacking, for every element type; and the names of variants.
#include "cpu/codes.h"

#include <cstdlib>
#include <limits>
#include <stdexcept>

#include "cpu/simd.h"
#include "search.h"

namespace adsq::test {
namespace {

template <typename T>
T random_code(Random& random) {
  T code;
  uint8_t bytes[sizeof(T)];
  for (uint8_t& byte : bytes) byte = random.byte();  // for floating point also infinities and numbers that are none
  std::memcpy(&code, bytes, sizeof(T));
  if constexpr (std::is_arithmetic_v<T>) {
    using Limits = std::numeric_limits<T>;
    const std::vector<T> special{T(0),
                                 static_cast<T>(-0.0),
                                 T(1),
                                 static_cast<T>(-1),
                                 Limits::lowest(),
                                 Limits::max(),
                                 Limits::denorm_min(),
                                 static_cast<T>(-Limits::denorm_min()),
                                 Limits::infinity(),
                                 static_cast<T>(-Limits::infinity()),
                                 Limits::quiet_NaN()};
    if (random.chance(2)) code = random.pick(special);
  }
  return code;
}

// Rows first..last-1 only: the others keep their garbage.
template <typename T>
void compare_rows(Element element, const Buffer<T>& codes, int64_t rows, int64_t bits, int64_t first, int64_t last) {
  context = "element " + std::to_string(static_cast<int>(element)) + ", " + std::to_string(bits) + " bits, rows " +
            std::to_string(first) + " to " + std::to_string(last) + " of " + std::to_string(rows);
  const int64_t width = (bits + 7) / 8;
  const Buffer<uint8_t> packed(rows * width, 1);
  const Buffer<T> unpacked(rows * bits);
  cpu::pack_codes(element, codes.data(), packed.data(), first, last, bits);
  cpu::unpack_codes(element, packed.data(), unpacked.data(), first, last, bits);
  for (int64_t row = 0; row < rows; ++row) {
    const bool written = first <= row && row < last;
    for (int64_t bit = 0; bit < 8 * width; ++bit) {
      const bool positive = bit < bits && value(codes[row * bits + bit]) >= 0;
      const bool garbage = 0xA5 >> (bit % 8) & 1;
      CHECK_EQUAL(packed[row * width + bit / 8] >> (bit % 8) & 1, written ? positive : garbage);
      if (bit >= bits) continue;
      const T& code = unpacked[row * bits + bit];
      const double one = std::is_same_v<T, uint8_t> ? 255 : -1;  // -1 where T cannot hold it
      if (written) CHECK_EQUAL(value(code), positive ? 1 : one);
      if (!written) CHECK(std::memcmp(&code, std::vector<uint8_t>(sizeof(T), 0xA5).data(), sizeof(T)) == 0);
    }
  }
}

}  // namespace

void test_pack_codes() {
  Random random(7);
  for (int e = 0; e < 9; ++e) {
    const auto element = static_cast<Element>(e);
    dispatch_element(element, [&](auto type) {
      using T = decltype(type);
      for (const int64_t bits : {1, 7, 8, 9, 63, 64, 65, 130, 4096}) {
        for (const int64_t rows : {0, 1, 5}) {
          const Buffer<T> codes(rows * bits);
          for (int64_t i = 0; i < codes.size(); ++i) codes[i] = random_code<T>(random);
          compare_rows(element, codes, rows, bits, 0, rows);
          if (rows > 2) compare_rows(element, codes, rows, bits, 1, rows - 1);
        }
      }
      if constexpr (sizeof(T) == 2) {
        const Buffer<T> every(1 << 16);
        for (int64_t i = 0; i < every.size(); ++i) {
          const auto bits = static_cast<uint16_t>(i);
          std::memcpy(&every[i], &bits, sizeof(bits));
        }
        compare_rows(element, every, 1 << 12, 16, 0, 1 << 12);
      }
    });
  }
}

void test_variant_names() {
  context = "ADSQ_SIMD";
  setenv("ADSQ_SIMD", "", 1);
  const cpu::Simd best = cpu::active_simd();
  const char* names[] = {"generic", "avx2", "avx512bw", "avx512", "sse2"};
  for (int i = 0; i < 5; ++i) {
    setenv("ADSQ_SIMD", names[i], 1);
    bool refused = false;
    try {
      CHECK(cpu::active_simd() == static_cast<cpu::Simd>(i));
    } catch (const std::invalid_argument&) {
      refused = true;
    }
    const bool supported = i < 4 && cpu::is_supported(static_cast<cpu::Simd>(i));
    CHECK(refused != supported);
    CHECK(!supported || static_cast<int>(best) >= i);
  }
}

}  // namespace adsq::test
