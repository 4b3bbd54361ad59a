// What one thread does with a run of both rows. The mathematics stands in pair_loss.h.
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

// The sums of a thread are relative to a base, which a score may exceed by so many units before the
// base is raised: a raise costs as much as a run, and would come with almost every run of a warp.
constexpr float kSlack = 8.0f;

// The state of a thread relative to the bases m (`a` in scores, `h` in units), its maxima, and the
// first columns of the steps that have them, as columns of the part.
template <class R>
struct Stream {
  PairState<R> state;
  R high1, high2;
  int top1, top2;
  R logit_scale, soft_scale, slack;                          // units a score; scores
  R logit_base1, logit_base2, soft_base1, soft_base2;  // m in units

  __device__ explicit Stream(const Choices<R>& c)
      : state(empty_state<R>()),
        high1(minus_infinity<R>()),
        high2(minus_infinity<R>()),
        top1(-1),
        top2(-1),
        logit_scale(c.logit_scale * Units<R>::of_nat),
        soft_scale(c.soft_scale * Units<R>::of_nat),
        slack(R(kSlack) / highest(logit_scale, soft_scale)) {
    set_bases();
  }

  // The base as a number: any will do as long as no score has been seen.
  static __device__ __forceinline__ R base(const Side<R>& side) {
    return side.m == minus_infinity<R>() ? R(0) : side.m;
  }
  __device__ __forceinline__ R apart() const { return base(state.first) - base(state.second); }

  __device__ void set_bases() {
    logit_base1 = base(state.first) * logit_scale;
    logit_base2 = base(state.second) * logit_scale;
    soft_base1 = base(state.first) * soft_scale;
    soft_base2 = base(state.second) * soft_scale;
  }

  // The sums relative to the base itself, in nats.
  __device__ void settle(Side<R>& side, R soft_scale_nats) const {
    const Base<R> logit(base(side), logit_scale), soft(base(side), soft_scale);
    side.h = fused(side.t, soft.over, side.h * Units<R>::nats) * soft.factor;
    side.s *= logit.factor;
    side.t *= soft.factor;
    side.a *= soft.factor * soft_scale_nats;
  }

  __device__ void move_to(R m1, R m2, const Choices<R>& c) {
    settle(state.first, c.soft_scale);
    settle(state.second, c.soft_scale);
    rebase(state, m1, m2, c);
  }

  __device__ void raise(R m1, R m2, const Choices<R>& c) {
    move_to(larger(state.first.m, m1), larger(state.second.m, m2), c);
    state.first.a /= c.soft_scale;
    state.second.a /= c.soft_scale;
    state.first.h *= Units<R>::of_nat;
    state.second.h *= Units<R>::of_nat;
    set_bases();
  }

  // Relative to the maxima and in nats, with the classes of the steps of its maxima (`exact_tops`).
  __device__ PairState<R> finished(int64_t class_of_column_0, const Choices<R>& c) {
    move_to(high1, high2, c);
    if (top1 >= 0) state.first.top = class_of_column_0 + top1;
    if (top2 >= 0) state.second.top = class_of_column_0 + top2;
    return state;
  }
};

template <int V, class R>
__device__ __forceinline__ R highest_of(const R (&x)[V]) {
  R high = x[0];
#pragma unroll
  for (int i = 1; i < V; ++i) high = highest(high, x[i]);
  return high;
}

// A step with the target or with columns that do not exist: they become -inf, which adds nothing.
template <int V, class T, class R>
__device__ __forceinline__ void set_aside(Stream<R>& s, const Part<T>& part, int column, R (&x1)[V],
                                          R (&x2)[V]) {
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const bool target = column + i == part.target;
    const bool exists = part.has(column + i);
    if (target) s.state.first.y = x1[i], s.state.second.y = x2[i];
    s.state.first.sum += exists && !target ? x1[i] : R(0);
    s.state.second.sum += exists && !target ? x2[i] : R(0);
    if (target) x1[i] = x2[i] = minus_infinity<R>();
  }
}

// Takes note of the largest scores of a step that begins at `column`.
template <class R>
__device__ __forceinline__ void note_maxima(Stream<R>& s, R high1, R high2, int column,
                                            const Choices<R>& c) {
  if (high1 > s.state.first.m + s.slack || high2 > s.state.second.m + s.slack)
    s.raise(high1, high2, c);
  if (high1 > s.high1) s.high1 = high1, s.top1 = column;
  if (high2 > s.high2) s.high2 = high2, s.top2 = column;
}

// The sums of V columns for one kind of similarity. Unless all are finite, a score of -inf has weight
// 0 and must not meet its infinite factors.
template <int KIND, bool FINITE, int V, class R>
__device__ __forceinline__ void add_columns(Stream<R>& s, const R (&x1)[V], const R (&x2)[V]) {
  const R bound = R(-1e30), apart = s.apart();
  Side<R>&first = s.state.first, &second = s.state.second;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    first.s += UnitExp::of(fused(x1[i], s.logit_scale, -s.logit_base1));
    second.s += UnitExp::of(fused(x2[i], s.logit_scale, -s.logit_base2));
    const R xs1 = fused(x1[i], s.soft_scale, -s.soft_base1);
    const R xs2 = fused(x2[i], s.soft_scale, -s.soft_base2);
    const R soft1 = UnitExp::of(xs1), soft2 = UnitExp::of(xs2);
    first.t += soft1;
    second.t += soft2;
    first.h = fused(soft1, FINITE ? xs1 : highest(xs1, bound), first.h);
    second.h = fused(soft2, FINITE ? xs2 : highest(xs2, bound), second.h);
    if (KIND == kNone || KIND == kMmd) continue;
    const R difference = (x1[i] - x2[i]) - apart;
    const R f = KIND == kKl ? difference : Stream<R>::base(second) - x2[i];
    const R g = KIND == kKl ? -difference : Stream<R>::base(first) - x1[i];
    if (FINITE) {
      first.a = fused(soft1, f, first.a);
      second.a = fused(soft2, g, second.a);
    } else {
      first.a += guarded(soft1, f);
      second.a += guarded(soft2, g);
    }
  }
}

// Adds a run step by step, whatever it holds.
template <class T>
__device__ __forceinline__ void add_steps(Stream<Real<T>>& s, const Part<T>& part, int column,
                                          const Run<T>& first, const Run<T>& second,
                                          const Choices<Real<T>>& c) {
  using R = Real<T>;
  constexpr int V = kStep<T>;
#pragma unroll 1
  for (int step = 0; step < kSteps<T>; ++step, column += V) {
    R x1[V], x2[V];
    widen_step(first, step, x1);
    widen_step(second, step, x2);
    set_aside(s, part, column, x1, x2);
    note_maxima(s, highest_of(x1), highest_of(x2), column, c);
    switch (c.kind) {
      case kKl: add_columns<kKl, false>(s, x1, x2); break;
      case kCe: add_columns<kCe, false>(s, x1, x2); break;
      default: add_columns<kNone, false>(s, x1, x2);
    }
  }
}

template <int KIND, class T>
__device__ __forceinline__ void add_finite(Stream<Real<T>>& s, const Run<T>& first,
                                           const Run<T>& second) {
  Real<T> x1[kColumns<T>], x2[kColumns<T>];
  widen_run(first, x1);
  widen_run(second, x2);
  add_columns<KIND, true>(s, x1, x2);
}

// Adds a run to a thread's state.
template <class T>
__device__ __forceinline__ void add_run(Stream<Real<T>>& s, const Part<T>& part, int run,
                                        const Run<T>& first, const Run<T>& second,
                                        const Choices<Real<T>>& c) {
  const int column = run * kColumns<T>;
  if (c.smoothing > 0 || part.holds_target(run) || !part.has_run(run) ||
      !are_finite(first, second))
    return add_steps(s, part, column, first, second, c);
  note_maxima(s, highest_of(first), highest_of(second), column, c);
  switch (c.kind) {
    case kKl: return add_finite<kKl>(s, first, second);
    case kCe: return add_finite<kCe>(s, first, second);
    default: add_finite<kNone>(s, first, second);
  }
}

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

template <class R>
struct Coefficients {
  SideCoefficients<R> first, second;
  R logit_scale, soft_scale, apart;

  Coefficients() = default;
  // From coefficients in units.
  __device__ Coefficients(const PairGradient<R>& g, int kind)
      : logit_scale(g.logit_scale), soft_scale(g.soft_scale), apart(g.first.m - g.second.m) {
    const Base<R> soft1(g.first.m, soft_scale), soft2(g.second.m, soft_scale);
    set(first, g.first, soft1, g.first.inv_t * soft1.factor, g.second.inv_t * soft2.factor, kind);
    set(second, g.second, soft2, g.second.inv_t * soft2.factor, g.first.inv_t * soft1.factor,
        kind);
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

// The gradients of finite scores in their place.
template <int KIND, class T>
__device__ __forceinline__ void finite_gradients(const Coefficients<Real<T>>& k, Run<T>& run1,
                                                 Run<T>& run2) {
  using R = Real<T>;
  const SideCoefficients<R>&first = k.first, &second = k.second;
  R x1[kColumns<T>], x2[kColumns<T>];
  widen_run(run1, x1);
  widen_run(run2, x2);
#pragma unroll
  for (int i = 0; i < kColumns<T>; ++i) {
    const R hard1 = UnitExp::of(fused(x1[i], k.logit_scale, -first.logit_base));
    const R hard2 = UnitExp::of(fused(x2[i], k.logit_scale, -second.logit_base));
    R d1 = -first.flat, d2 = -second.flat;
    if (KIND != kNone) {
      const R soft1 = UnitExp::of(fused(x1[i], k.soft_scale, -first.soft_base));
      const R soft2 = UnitExp::of(fused(x2[i], k.soft_scale, -second.soft_base));
      if (KIND == kMmd) {
        const R p = soft1 * first.other, q = soft2 * second.other;
        d1 = fused(first.own * p, (p - q) - first.constant, d1);
        d2 = fused(second.own * q, (q - p) - second.constant, d2);
      } else {
        const R difference = (x1[i] - x2[i]) - k.apart;
        const R f1 = KIND == kKl ? difference : second.m - x2[i];
        const R f2 = KIND == kKl ? -difference : first.m - x1[i];
        d1 = fused(soft1, fused(first.own, f1, first.constant), d1);
        d2 = fused(soft2, fused(second.own, f2, second.constant), d2);
        d1 = fused(soft2, -first.other, d1);
        d2 = fused(soft1, -second.other, d2);
      }
    }
    x1[i] = fused(hard1, first.ce, d1);
    x2[i] = fused(hard2, second.ce, d2);
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

// The gradients of a run in place of its scores; `g` and `k` say the same.
template <class T>
__device__ __forceinline__ void run_gradient(int kind, const Part<T>& part,
                                             const PairGradient<Real<T>>& g,
                                             const Coefficients<Real<T>>& k, int run,
                                             Run<T>& first, Run<T>& second) {
  if (part.holds_target(run) || !are_finite(first, second))
    return step_gradients(kind, part, g, run * kColumns<T>, first, second);
  if (kind == kKl) return finite_gradients<kKl>(k, first, second);  // no table of jumps
  if (kind == kCe) return finite_gradients<kCe>(k, first, second);
  if (kind == kMmd) return finite_gradients<kMmd>(k, first, second);
  finite_gradients<kNone>(k, first, second);
}

}  // namespace
}  // namespace cuda
}  // namespace pairdistill
