// Exponentials of one thread's scores, which its sums and its gradients start from. The mathematics
// stands in pair_loss.h.
//
// Exponentials are powers of 2 (`ex2.approx`, relative error 2^-22), with log2(e) multiplied into
// the scales once a row. So within a thread's stream, and in the gradient's coefficients, softened
// logits are in units of ln 2 (`Units`); states are in nats wherever threads meet.
//
// Both sweeps have a short way for runs whose scores are all there, finite and not the target's: a
// few instructions a score, as otherwise they and not the memory set the pace. Exponents are one
// fused operation there, x scale - base with the base rounded once; what that rounding took goes back
// into the sums (`settle`) and the coefficients. Everything else goes a step at a time.
#pragma once

#include "pair_loss_ring.cuh"

namespace pairdistill {
namespace cuda {
namespace {

__device__ __forceinline__ float power_of_2(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return ::exp2f(x);
#endif
}

// How many units a nat has, and the exponential of a number in units. float64 keeps nats.
template <class R> struct Units;
template <> struct Units<float> {
  static constexpr float of_nat = 1.4426950408889634f, nats = 0.6931471805599453f;
};
template <> struct Units<double> {
  static constexpr double of_nat = 1.0, nats = 1.0;
};
struct UnitExp {
  static __device__ __forceinline__ float of(float x) { return power_of_2(x); }
  static __device__ __forceinline__ double of(double x) { return PolynomialExp::of(x); }
};

__device__ __forceinline__ float highest(float a, float b) { return fmaxf(a, b); }
__device__ __forceinline__ double highest(double a, double b) { return fmax(a, b); }

__device__ __forceinline__ float fused(float a, float b, float c) { return ::fmaf(a, b, c); }
__device__ __forceinline__ double fused(double a, double b, double c) { return ::fma(a, b, c); }

// score * scale, rounded; how many nats that lies above it, and the factor that an exponential
// relative to `value` lacks.
template <class R>
struct Base {
  R value, over, factor;

  __device__ Base(R score, R scale)
      : value(score * scale),
        over(-fused(score, scale, -value) * Units<R>::nats),
        factor(R(1) + over) {}
};

}  // namespace
}  // namespace cuda
}  // namespace pairdistill
