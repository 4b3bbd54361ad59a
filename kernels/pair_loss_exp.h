// exp(x) for x <= 0 as arithmetic that a compiler can turn into vectors.
//
// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2, exp(r) = 1 + r + r^2 P(r). P for float
// was fitted on 2000 Chebyshev nodes by reweighted least squares of the relative error, which
// is at most 3.1e-9 before rounding (`python -m distill.losses.error_tables exp` fits it again and
// measures it); for double it is the Taylor series, whose remainder r^14/14! is below 5e-18.
// Below the smallest normal number the result is 0. NaN stays NaN.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define PAIR_LOSS_FN __host__ __device__ __forceinline__
#else
#define PAIR_LOSS_FN inline __attribute__((always_inline))
#endif

// Each way of compiling these headers has a namespace, so that the linker never takes a function
// built with AVX-512 for a processor without it.
#ifndef PAIR_LOSS_ISA
#define PAIR_LOSS_ISA generic
#endif

namespace pairdistill {
namespace PAIR_LOSS_ISA {

struct PolynomialExp {
  static PAIR_LOSS_FN float of(float x) {
    constexpr float lowest = -87.33654f, rounder = 12582912.0f;  // 1.5 * 2^23
    const float bounded = lowest > x ? lowest : x;
    const float shifted = bounded * 1.44269504088896341f + rounder;
    const float n = shifted - rounder;
    float r = bounded - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    float p = 1.3814611593261361e-3f;
    p = p * r + 8.368710055947304e-3f;
    p = p * r + 4.166838899254799e-2f;
    p = p * r + 0.1666652113199234f;
    p = p * r + 0.4999999403953552f;
    p = p * (r * r) + r + 1.0f;
    uint32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127u) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return x < lowest ? 0.0f : p * power;
  }

  static PAIR_LOSS_FN double of(double x) {
    constexpr double lowest = -708.396418532264106, rounder = 6755399441055744.0;  // 1.5 * 2^52
    const double bounded = lowest > x ? lowest : x;
    const double shifted = bounded * 1.44269504088896340736 + rounder;
    const double n = shifted - rounder;
    double r = bounded - n * 6.93147180369123816490e-01;
    r = r - n * 1.90821492927058770002e-10;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * (r * r) + r + 1.0;
    uint64_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 1023u) << 52;
    double power;
    std::memcpy(&power, &bits, sizeof power);
    return x < lowest ? 0.0 : p * power;
  }
};

}  // namespace PAIR_LOSS_ISA
}  // namespace pairdistill
