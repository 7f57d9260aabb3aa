#include "cpu/codes.h"

#include <cstring>

namespace adsq::cpu {
namespace {

template <typename T>
inline uint8_t pack_byte(const T* codes, int count) {
  unsigned byte = 0;
  for (int j = 0; j < count; ++j) byte |= static_cast<unsigned>(is_positive(codes[j])) << j;
  return static_cast<uint8_t>(byte);
}

template <typename T>
void pack_rows(const T* codes, uint8_t* packed, int64_t first, int64_t last, int64_t num_bits) {
  const int64_t whole = num_bits / 8;
  const int rest = static_cast<int>(num_bits % 8);
  const int64_t width = whole + (rest > 0);
  for (int64_t row = first; row < last; ++row) {
    const T* source = codes + row * num_bits;
    uint8_t* target = packed + row * width;
    // A constant count lets the compiler unroll the common case.
    for (int64_t b = 0; b < whole; ++b) target[b] = pack_byte(source + 8 * b, 8);
    if (rest > 0) target[whole] = pack_byte(source + 8 * whole, rest);
  }
}

// The eight codes of every byte: copying them is several times faster than taking a byte apart.
template <typename T>
struct ByteCodes {
  T codes[256][8];
  ByteCodes() {
    for (int byte = 0; byte < 256; ++byte) {
      for (int j = 0; j < 8; ++j) codes[byte][j] = Unit<T>::of((byte >> j) & 1);
    }
  }
};

template <typename T>
void unpack_rows(const uint8_t* packed, T* codes, int64_t first, int64_t last, int64_t num_bits) {
  static const ByteCodes<T> table;
  const int64_t whole = num_bits / 8, rest = num_bits % 8;
  const int64_t width = whole + (rest > 0);
  for (int64_t row = first; row < last; ++row) {
    const uint8_t* source = packed + row * width;
    T* target = codes + row * num_bits;
    for (int64_t b = 0; b < whole; ++b) std::memcpy(target + 8 * b, table.codes[source[b]], sizeof(T) * 8);
    if (rest > 0) std::memcpy(target + 8 * whole, table.codes[source[whole]], sizeof(T) * rest);
  }
}

}  // namespace

void pack_codes(Element element, const void* codes, uint8_t* packed, int64_t first, int64_t last, int64_t num_bits) {
  dispatch_element(
      element, [&](auto type) { pack_rows(static_cast<const decltype(type)*>(codes), packed, first, last, num_bits); });
}

void unpack_codes(Element element, const uint8_t* packed, void* codes, int64_t first, int64_t last, int64_t num_bits) {
  dispatch_element(element,
                   [&](auto type) { unpack_rows(packed, static_cast<decltype(type)*>(codes), first, last, num_bits); });
}

}  // namespace adsq::cpu
