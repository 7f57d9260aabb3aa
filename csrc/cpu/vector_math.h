// exp and softplus on the vectors of an instruction set (vectors_<simd>.h), accurate to about an ulp.
#pragma once
#include <cstddef>

namespace adsq::cpu {

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
inline typename V::Vector polynomial(typename V::Vector x, const typename V::Scalar (&coefficients)[kCount]) {
  typename V::Vector sum = V::set(coefficients[kCount - 1]);
  for (size_t i = kCount - 1; i-- > 0;) sum = V::multiply_add(sum, x, V::set(coefficients[i]));
  return sum;
}

// exp(x) for x <= 0; results below the smallest normal number are 0.
template <class V>
inline typename V::Vector exp_of_negative(typename V::Vector x) {
  using Table = Coefficients<typename V::Scalar>;
  x = V::larger(V::set(V::kLowestExponent), x);
  const auto n = V::round(V::multiply(x, V::set(static_cast<typename V::Scalar>(1.44269504088896340736))));
  auto f = V::subtract_product(x, n, V::set(Table::kLog2High));
  f = V::subtract_product(f, n, V::set(Table::kLog2Low));
  const auto one = V::set(1);
  const auto power = V::multiply_add(V::multiply_add(polynomial<V>(f, Table::kExp), f, one), f, one);
  return V::times_power_of_two(power, n);
}

// log(1 + exp(x)) and its derivative, the sigmoid. With e = exp(-|x|) and y = e / (2 + e),
// log(1 + e) = log((1 + y) / (1 - y)); one division serves both.
template <class V>
struct Softplus {
  using Vector = typename V::Vector;
  Vector value, slope;

  explicit Softplus(Vector x) {
    const Vector e = exp_of_negative<V>(V::minus_magnitude(x));
    const Vector e1 = V::add(e, V::set(1)), e2 = V::add(e, V::set(2));
    const Vector inverse = V::divide(V::set(1), V::multiply(e1, e2));
    const Vector sigmoid = V::multiply(inverse, e2);  // of |x|
    slope = V::select(V::at_least_zero(x), sigmoid, V::multiply(sigmoid, e));
    const Vector y = V::multiply(V::multiply(inverse, e1), e);
    const Vector log = V::multiply(y, polynomial<V>(V::multiply(y, y), Coefficients<typename V::Scalar>::kLog));
    value = V::add(V::larger(V::zero(), x), log);
  }
};

}  // namespace adsq::cpu
