// What one thread writes for its runs of both rows.
#pragma once

#include "pair_loss_runs.cuh"

namespace pairdistill {
namespace cuda {
namespace {

// The coefficients of a row's gradient in units.
template <class R>
__device__ __forceinline__ PairGradient<R> in_units(PairGradient<R> g, int kind) {
  g.logit_scale *= Units<R>::of_nat;
  g.soft_scale *= Units<R>::of_nat;
  if (kind == kMmd || kind == kNone) return g;
  g.first.mean *= Units<R>::of_nat;
  g.second.mean *= Units<R>::of_nat;
  g.first.own *= Units<R>::nats;
  g.second.own *= Units<R>::nats;
  return g;
}

// One side of a row's gradient where scores are finite: with hard = 2^(x logit_scale - logit_base)
// and soft likewise, and f in scores,
//   ce hard + soft (own f + constant) - other * (soft of the other side) - flat        kl, ce
//   ce hard + own p (p - q - constant) - flat, p = soft other                          mmd
template <class R>
struct SideCoefficients {
  R logit_base, soft_base, ce, own, constant, other, flat, m;
};

// With `power` = T not 0, ce is relative to soft to that power, which takes the place of hard: for
// 16-bit gradients, where a few 2^-22 of a term do not show, one exponential in four less. It is kept
// as a floating-point number: of comparisons of integers nvcc makes a table of jumps, whose look-up
// costs every run a dozen instructions.
template <class R>
struct Coefficients {
  SideCoefficients<R> first, second;
  R logit_scale, soft_scale, apart;
  R power;

  Coefficients() = default;
  // From coefficients in units.
  __device__ Coefficients(const PairGradient<R>& g, int kind)
      : logit_scale(g.logit_scale),
        soft_scale(g.soft_scale),
        apart(g.first.m - g.second.m),
        power(0) {
    const Base<R> soft1(g.first.m, soft_scale), soft2(g.second.m, soft_scale);
    set(first, g.first, soft1, g.first.inv_t * soft1.factor, g.second.inv_t * soft2.factor, kind);
    set(second, g.second, soft2, g.second.inv_t * soft2.factor, g.first.inv_t * soft1.factor,
        kind);
  }

  // kl of 16-bit scores: x1 - x2 takes the place of f, which lies `apart` from it. What that rounds is
  // small against the scores' own last place.
  __device__ void take_differences() {
    first.constant = fused(-first.own, apart, first.constant);
    second.constant = fused(second.own, apart, second.constant);
  }

  // Takes powers, where T is 2, 3 or 4 and both exponents start near each other.
  __device__ void take_powers() {
    for (int T = 2; T <= 4; ++T) {
      const R off = soft_scale * R(T) - logit_scale, allowed = logit_scale * R(2e-7);
      if (off <= allowed && off >= -allowed) power = R(T);
    }
    const R by1 = power * first.soft_base - first.logit_base;
    const R by2 = power * second.soft_base - second.logit_base;
    const R most = R(60);
    if (!(by1 < most && by1 > -most && by2 < most && by2 > -most)) power = R(0);
    if (power == R(0)) return;
    first.ce *= UnitExp::of(by1);
    second.ce *= UnitExp::of(by2);
  }

 private:
  __device__ void set(SideCoefficients<R>& out, const SideGradient<R>& g, const Base<R>& soft,
                      R inv_t, R other_inv_t, int kind) {
    const Base<R> logit(g.ce_shift, logit_scale);
    const bool mmd = kind == kMmd;
    out.logit_base = logit.value;
    out.soft_base = soft.value;
    out.ce = g.ce * logit.factor;
    out.own = mmd ? g.own : g.own * inv_t * soft_scale;
    out.constant = mmd ? g.mean : inv_t * (g.cross - g.own * g.mean);
    out.other = mmd ? inv_t : g.cross * other_inv_t;
    out.flat = g.flat;
    out.m = g.m;
  }
};

// soft to the power of POWER - 1.
template <int POWER, class R>
__device__ __forceinline__ R lower_power(R soft) {
  return POWER == 2 ? soft : POWER == 3 ? soft * soft : soft * soft * soft;
}

// The gradients of finite scores in their place.
template <int KIND, int POWER, class T>
__device__ __forceinline__ void finite_gradients(const Coefficients<Real<T>>& k, Run<T>& run1,
                                                 Run<T>& run2) {
  using R = Real<T>;
  const SideCoefficients<R>&first = k.first, &second = k.second;
  R x1[kColumns<T>], x2[kColumns<T>];
  widen_run(run1, x1);
  widen_run(run2, x2);
#pragma unroll
  for (int i = 0; i < kColumns<T>; ++i) {
    R hard1, hard2;
    if (POWER == 0) {
      hard1 = UnitExp::of(fused(x1[i], k.logit_scale, -first.logit_base));
      hard2 = UnitExp::of(fused(x2[i], k.logit_scale, -second.logit_base));
    }
    R d1 = -first.flat, d2 = -second.flat;
    if (KIND != kNone) {
      const R soft1 = UnitExp::of(fused(x1[i], k.soft_scale, -first.soft_base));
      const R soft2 = UnitExp::of(fused(x2[i], k.soft_scale, -second.soft_base));
      if (KIND == kMmd) {
        const R p = soft1 * first.other, q = soft2 * second.other;
        d1 = fused(first.own * p, (p - q) - first.constant, d1);
        d2 = fused(second.own * q, (q - p) - second.constant, d2);
      } else {
        const R apart = x1[i] - x2[i], difference = sizeof(T) == 2 ? apart : apart - k.apart;
        const R f1 = KIND == kKl ? difference : second.m - x2[i];
        const R f2 = KIND == kKl ? -difference : first.m - x1[i];
        R of_soft1 = fused(first.own, f1, first.constant);
        R of_soft2 = fused(second.own, f2, second.constant);
        if (POWER != 0) {
          of_soft1 = fused(lower_power<POWER>(soft1), first.ce, of_soft1);
          of_soft2 = fused(lower_power<POWER>(soft2), second.ce, of_soft2);
        }
        d1 = fused(soft2, -first.other, d1);
        d2 = fused(soft1, -second.other, d2);
        d1 = fused(soft1, of_soft1, d1);
        d2 = fused(soft2, of_soft2, d2);
      }
    }
    x1[i] = POWER == 0 ? fused(hard1, first.ce, d1) : d1;
    x2[i] = POWER == 0 ? fused(hard2, second.ce, d2) : d2;
  }
  narrow_run(x1, run1);
  narrow_run(x2, run2);
}

template <int KIND, int V, class T, class R>
__device__ __forceinline__ void column_gradients(const Part<T>& part, const PairGradient<R>& g,
                                                 int column, R (&x1)[V], R (&x2)[V]) {
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const R own1 = x1[i], own2 = x2[i];
    if (column + i == part.target) {
      target_gradient<UnitExp>(KIND, g, own1, own2, x1[i], x2[i]);
    } else {
      column_gradient<UnitExp>(KIND, g, own1, own2, x1[i], x2[i]);
    }
  }
}

// The gradients of a run in place of its scores, step by step, whatever it holds.
template <class T>
__device__ __forceinline__ void step_gradients(int kind, const Part<T>& part,
                                               const PairGradient<Real<T>>& g, int column,
                                               Run<T>& first, Run<T>& second) {
#pragma unroll 1
  for (int step = 0; step < kSteps<T>; ++step, column += kStep<T>) {
    Real<T> x1[kStep<T>], x2[kStep<T>];
    widen_step(first, step, x1);
    widen_step(second, step, x2);
    switch (kind) {
      case kKl: column_gradients<kKl>(part, g, column, x1, x2); break;
      case kCe: column_gradients<kCe>(part, g, column, x1, x2); break;
      case kMmd: column_gradients<kMmd>(part, g, column, x1, x2); break;
      default: column_gradients<kNone>(part, g, column, x1, x2);
    }
    narrow_step(x1, step, first);
    narrow_step(x2, step, second);
  }
}

template <int KIND, class T>
__device__ __forceinline__ void finite_by_power(const Coefficients<Real<T>>& k, Run<T>& first,
                                                Run<T>& second) {
  if (sizeof(T) == 2) {
    if (k.power == 3) return finite_gradients<KIND, 3>(k, first, second);
    if (k.power == 2) return finite_gradients<KIND, 2>(k, first, second);
    if (k.power == 4) return finite_gradients<KIND, 4>(k, first, second);
  }
  finite_gradients<KIND, 0>(k, first, second);
}

// The gradients of a run in place of its scores; `g` and `k` say the same.
template <class T>
__device__ __forceinline__ void run_gradient(int kind, const Part<T>& part,
                                             const PairGradient<Real<T>>& g,
                                             const Coefficients<Real<T>>& k, int run,
                                             Run<T>& first, Run<T>& second) {
  if (part.holds_target(run) || !are_finite(first, second))
    return step_gradients(kind, part, g, run * kColumns<T>, first, second);
  if (kind == kKl) return finite_by_power<kKl>(k, first, second);
  switch (by_itself(kind)) {  // not one table of jumps with kl
    case kCe: return finite_by_power<kCe>(k, first, second);
    case kMmd: return finite_gradients<kMmd, 0>(k, first, second);
    default: finite_gradients<kNone, 0>(k, first, second);
  }
}

}  // namespace
}  // namespace cuda
}  // namespace pairdistill
