// Element types of the code matrices, and the sign rule, for CPU and CUDA alike.
// No torch headers here: .cu files include this and must stay quick to compile.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define ADSQ_HOST_DEVICE __host__ __device__
#else
#define ADSQ_HOST_DEVICE
#endif

namespace adsq {

enum class Element { kUInt8, kInt8, kInt16, kInt32, kInt64, kFloat16, kBFloat16, kFloat32, kFloat64 };

// Half types as their bits: the kernels only ask for the sign and write +-1, so no arithmetic is needed.
struct Float16 {
  uint16_t bits;
  static constexpr uint16_t kInfinity = 0x7C00, kOne = 0x3C00;
};
struct BFloat16 {
  uint16_t bits;
  static constexpr uint16_t kInfinity = 0x7F80, kOne = 0x3F80;
};

// The sign rule: +1 where x >= 0 (so 0 and -0.0 too), else -1; NaN gives -1.
template <typename T>
ADSQ_HOST_DEVICE inline bool is_positive(T x) {
  return x >= T(0);
}
template <>
ADSQ_HOST_DEVICE inline bool is_positive(uint8_t) {
  return true;
}
template <typename Half>
ADSQ_HOST_DEVICE inline bool half_is_positive(Half x) {
  const uint16_t magnitude = x.bits & 0x7FFF;
  return magnitude == 0 || (x.bits == magnitude && magnitude <= Half::kInfinity);
}
template <>
ADSQ_HOST_DEVICE inline bool is_positive(Float16 x) {
  return half_is_positive(x);
}
template <>
ADSQ_HOST_DEVICE inline bool is_positive(BFloat16 x) {
  return half_is_positive(x);
}

// Whether a label row names a class: x > 0.
template <typename T>
ADSQ_HOST_DEVICE inline bool is_above_zero(T x) {
  return x > T(0);
}
template <>
ADSQ_HOST_DEVICE inline bool is_above_zero(Float16 x) {
  return is_positive(x) && (x.bits & 0x7FFF) != 0;
}
template <>
ADSQ_HOST_DEVICE inline bool is_above_zero(BFloat16 x) {
  return is_positive(x) && (x.bits & 0x7FFF) != 0;
}

template <typename T>
inline bool is_zero(T x) {
  return x == T(0);
}
template <>
inline bool is_zero(Float16 x) {
  return (x.bits & 0x7FFF) == 0;
}
template <>
inline bool is_zero(BFloat16 x) {
  return (x.bits & 0x7FFF) == 0;
}
template <typename T>
inline bool is_unit(T x) {
  return x == T(1);
}
template <>
inline bool is_unit(Float16 x) {
  return x.bits == Float16::kOne;
}
template <>
inline bool is_unit(BFloat16 x) {
  return x.bits == BFloat16::kOne;
}

// +1 or -1 of the element type.
template <typename T>
struct Unit {
  ADSQ_HOST_DEVICE static T of(bool positive) { return positive ? T(1) : T(-1); }
};
template <>
struct Unit<Float16> {
  ADSQ_HOST_DEVICE static Float16 of(bool positive) {
    return {static_cast<uint16_t>(positive ? Float16::kOne : Float16::kOne | 0x8000)};
  }
};
template <>
struct Unit<BFloat16> {
  ADSQ_HOST_DEVICE static BFloat16 of(bool positive) {
    return {static_cast<uint16_t>(positive ? BFloat16::kOne : BFloat16::kOne | 0x8000)};
  }
};

// The value of a half, for kernels that compute with it.
inline float float_of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
inline float to_float(BFloat16 x) { return float_of_bits(static_cast<uint32_t>(x.bits) << 16); }
inline float to_float(Float16 x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16, magnitude = x.bits & 0x7FFF;
  if (magnitude >= Float16::kInfinity) return float_of_bits(sign | 0x7F800000 | (magnitude << 13));
  // As if the exponent were float's, then times 2^112: exact, subnormal halves too.
  const float value = float_of_bits(magnitude << 13) * float_of_bits(239u << 23);
  return sign != 0 ? -value : value;
}

template <typename T>
inline double to_number(T x) {
  return static_cast<double>(x);
}
template <>
inline double to_number(Float16 x) {
  return to_float(x);
}
template <>
inline double to_number(BFloat16 x) {
  return to_float(x);
}

// Calls function with a value of the C++ type that `element` stands for.
template <typename Function>
inline void dispatch_element(Element element, Function&& function) {
  switch (element) {
    case Element::kUInt8: return function(uint8_t{});
    case Element::kInt8: return function(int8_t{});
    case Element::kInt16: return function(int16_t{});
    case Element::kInt32: return function(int32_t{});
    case Element::kInt64: return function(int64_t{});
    case Element::kFloat16: return function(Float16{});
    case Element::kBFloat16: return function(BFloat16{});
    case Element::kFloat32: return function(float{});
    case Element::kFloat64: return function(double{});
  }
}

// Bytes of an element.
inline int64_t size_of(Element element) {
  int64_t size = 0;
  dispatch_element(element, [&](auto type) { size = static_cast<int64_t>(sizeof(type)); });
  return size;
}

}  // namespace adsq
