// exp and softplus on the vectors of vectors.h, accurate to about an ulp; in an unnamed namespace as they are.
#pragma once
#include "cpu/vectors.h"

namespace adsq::cpu {
namespace {

template <typename T>
struct Coefficients;

// Minimax polynomials: (exp(f) - 1 - f) / f^2 on |f| <= log(2) / 2, and log((1 + y) / (1 - y)) / y in y^2 on [0, 1/9].
template <>
struct Coefficients<float> {
  static constexpr float kExp[] = {0.50000000270153360638f, 0.1666657682628896953f, 0.041666374665092609069f,
                                   0.0083632051568391656428f, 0.0013941165993112147346f};
  static constexpr float kLog[] = {2.0000000079210381463f, 0.66666314682128474927f, 0.40024910279538121391f,
                                   0.27960602747171466941f, 0.2817833508673454477f};
  static constexpr float kLog2High = 0.693359375f,
                         kLog2Low = -2.12194440e-4f;  // the first has 9 bits: products are exact
};
template <>
struct Coefficients<double> {
  static constexpr double kExp[] = {0.50000000000000010264,   0.16666666666666674562,   0.041666666666623987468,
                                    0.0083333333333221706397, 0.0013888888917283467327, 0.0001984126988670253659,
                                    2.4801521187998411344e-5, 2.7557242210897146175e-6, 2.7620139640810779318e-7,
                                    2.5110097191374520695e-8};
  static constexpr double kLog[] = {2.0000000000000000025,   0.66666666666666134233, 0.40000000000190326437,
                                    0.2857142854492502758,   0.22222224111778241296, 0.18181739787590417126,
                                    0.15386635456315195694,  0.13300102491798210381, 0.12112249089821112226,
                                    0.083156839557900329348, 0.17060062920105509553};
  static constexpr double kLog2High = 6.93145751953125e-1, kLog2Low = 1.42860682030941723212e-6;
};

template <class V, size_t kCount>
ADSQ_INLINE typename V::Vector polynomial(typename V::Vector x, const typename V::Scalar (&coefficients)[kCount]) {
  typename V::Vector sum = V::set(coefficients[kCount - 1]);
  for (size_t i = kCount - 1; i-- > 0;) sum = sum * x + coefficients[i];
  return sum;
}

// exp(x) for x <= 0; results below the smallest normal number are 0.
template <class V>
ADSQ_INLINE typename V::Vector exp_of_negative(typename V::Vector x) {
  using Table = Coefficients<typename V::Scalar>;
  x = larger(V::set(V::kLowestExponent), x);
  const auto n = V::round(x * static_cast<typename V::Scalar>(1.44269504088896340736));
  auto f = x - n * Table::kLog2High;
  f = f - n * Table::kLog2Low;
  const auto power = (polynomial<V>(f, Table::kExp) * f + 1) * f + 1;
  return V::times_power_of_two(power, n);
}

// log(1 + exp(x)) and its derivative, the sigmoid. With e = exp(-|x|) and y = e / (2 + e),
// log(1 + e) = log((1 + y) / (1 - y)); one division serves both.
template <class V>
struct Softplus {
  using Vector = typename V::Vector;
  Vector value, slope;

  ADSQ_INLINE explicit Softplus(Vector x) {
    const Vector e = exp_of_negative<V>(V::minus_magnitude(x));
    const Vector e1 = e + 1, e2 = e + 2;
    const Vector inverse = 1 / (e1 * e2);
    const Vector sigmoid = inverse * e2;  // of |x|
    slope = x >= 0 ? sigmoid : sigmoid * e;
    const Vector y = inverse * e1 * e;
    value = y * polynomial<V>(y * y, Coefficients<typename V::Scalar>::kLog) + larger(Vector{}, x);
  }
};

}  // namespace
}  // namespace adsq::cpu
