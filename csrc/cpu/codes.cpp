#include "cpu/codes.h"

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

template <typename T>
void unpack_rows(const uint8_t* packed, T* codes, int64_t first, int64_t last, int64_t num_bits) {
  const int64_t width = (num_bits + 7) / 8;
  for (int64_t row = first; row < last; ++row) {
    const uint8_t* source = packed + row * width;
    T* target = codes + row * num_bits;
    for (int64_t j = 0; j < num_bits; ++j) target[j] = Unit<T>::of((source[j >> 3] >> (j & 7)) & 1);
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
