// SPDX-License-Identifier: Apache-2.0
// Functions of one variable over the F32 of a vec_<isa>.h. Coefficients
// are our own Chebyshev fits; the stated errors add to the rounding of the last operations.
#pragma once

#include <stddef.h>

#include "kernels/simd/vec.h"

namespace nestling::kernels {
namespace {

// exp(x): 0 below -87 (exactly), no larger than exp(88) above. Relative error about 1 ulp.
// x = n ln 2 + r, |r| <= ln 2 / 2; exp(r) = 1 + r + r^2 p(r), p of degree 4: error 8e-9.
inline F32 Exp(F32 x) {
  const F32 lowest = Set(-87.0f);
  const F32 clamped = Max(lowest, Min(Set(88.0f), x));
  const F32 n = RoundToEven(clamped * Set(1.44269504f));
  F32 r = NegMulAdd(n, Set(0x1.62e4p-1f), clamped);  // few bits: the product is exact
  r = NegMulAdd(n, Set(1.42860682e-6f), r);
  F32 p = MulAdd(Set(1.39262508e-3f), r, Set(8.36323288e-3f));
  p = MulAdd(p, r, Set(4.16665542e-2f));
  p = MulAdd(p, r, Set(1.66665767e-1f));
  p = MulAdd(p, r, Set(0.5f));
  const F32 power = ScaleByPow2(MulAdd(p * r, r, r) + Set(1.0f), n);
  return SelectLess(x, lowest, Set(0.0f), power);
}

// tanh(x), absolute error below 1e-7, relative error of a few ulp also near 0.
inline F32 Tanh(F32 x) {
  const F32 magnitude = Min(Set(10.0f), Abs(x));  // tanh(10) rounds to 1
  // |x| < 0.625: x + x^3 p(x^2), p of degree 4: relative error 2e-8.
  const F32 square = magnitude * magnitude;
  F32 p = MulAdd(Set(-6.09671417e-3f), square, Set(2.09971790e-2f));
  p = MulAdd(p, square, Set(-5.38509096e-2f));
  p = MulAdd(p, square, Set(1.33327697e-1f));
  p = MulAdd(p, square, Set(-3.33333289e-1f));
  const F32 small = MulAdd(p * square, magnitude, magnitude);
  // Else 1 - 2 / (exp(2|x|) + 1): the quotient is below 0.45, so that its rounding is small.
  const F32 one = Set(1.0f);
  const F32 large = one - Set(2.0f) / (Exp(magnitude + magnitude) + one);
  return CopySign(SelectLess(magnitude, Set(0.625f), small, large), x);
}

// GELU in its tanh form, as x / (1 + exp(-2u)) with u = sqrt(2/pi) (x + 0.044715 x^3): the same
// function without the cancellation of 1 + tanh(u) for negative x. 0 gives 0.
inline F32 GeluTanh(F32 x) {
  const F32 cubic = MulAdd(Set(-0.0713548163f), x * x, Set(-1.59576912f));  // -2u / x
  return x / (Set(1.0f) + Exp(x * cubic));
}

}  // namespace
}  // namespace nestling::kernels
