// What one thread does with a run of both rows. The mathematics stands in pair_loss.h.
//
// Exponentials are powers of 2 (`ex2.approx`, relative error 2^-22), with log2(e) multiplied into
// the scales once a row. So within a thread's stream, and in the gradient's coefficients, softened
// logits are in units of ln 2 (`Units`); states are in nats wherever threads meet.
#pragma once

#include "pair_loss_rows.cuh"

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

// The state of a thread: `a` and `h` in units, the top columns as columns of the part.
template <class R>
struct Stream {
  PairState<R> state;
  int top1, top2;
  R logit_scale, soft_scale;  // units a score

  __device__ explicit Stream(const Choices<R>& c)
      : state(empty_state<R>()),
        top1(-1),
        top2(-1),
        logit_scale(c.logit_scale * Units<R>::of_nat),
        soft_scale(c.soft_scale * Units<R>::of_nat) {}

  __device__ void scale_units(R factor) {
    state.first.a *= factor;
    state.first.h *= factor;
    state.second.a *= factor;
    state.second.h *= factor;
  }
  // In nats, with the classes of its top columns.
  __device__ PairState<R> finished(int64_t class_of_column_0) {
    scale_units(Units<R>::nats);
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

template <int V, class R>
__device__ __forceinline__ int first_with(const R (&x)[V], R value, int column) {
  int found = 0;
#pragma unroll
  for (int i = V - 1; i >= 0; --i) found = x[i] == value ? i : found;
  return column + found;
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

// New maxima: seldom, once a thread has seen some of its row.
template <int V, class R>
__device__ __forceinline__ void raise_maxima(Stream<R>& s, const R (&x1)[V], const R (&x2)[V],
                                             R high1, R high2, int column, const Choices<R>& c) {
  if (high1 > s.state.first.m) s.top1 = first_with(x1, high1, column);
  if (high2 > s.state.second.m) s.top2 = first_with(x2, high2, column);
  s.scale_units(Units<R>::nats);
  rebase(s.state, larger(s.state.first.m, high1), larger(s.state.second.m, high2), c);
  s.scale_units(Units<R>::of_nat);
}

// The sums of V columns for one kind of similarity. A score of -inf has weight 0: bounded below,
// its entropy's term is 0 and not NaN.
template <int KIND, int V, class R>
__device__ __forceinline__ void add_columns(Stream<R>& s, const R (&x1)[V], const R (&x2)[V]) {
  const R low = minus_infinity<R>(), bound = R(-1e30);
  const R m1 = s.state.first.m == low ? R(0) : s.state.first.m;
  const R m2 = s.state.second.m == low ? R(0) : s.state.second.m;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const R by1 = x1[i] - m1, by2 = x2[i] - m2;
    s.state.first.s += UnitExp::of(by1 * s.logit_scale);
    s.state.second.s += UnitExp::of(by2 * s.logit_scale);
    const R xs1 = by1 * s.soft_scale, xs2 = by2 * s.soft_scale;
    const R soft1 = UnitExp::of(xs1), soft2 = UnitExp::of(xs2);
    s.state.first.t += soft1;
    s.state.second.t += soft2;
    s.state.first.h += soft1 * highest(xs1, bound);
    s.state.second.h += soft2 * highest(xs2, bound);
    if (KIND == kNone || KIND == kMmd) continue;
    R f1, f2;
    factors(KIND, x1[i], x2[i], m1, m2, s.soft_scale, f1, f2);
    s.state.first.a += guarded(soft1, f1);
    s.state.second.a += guarded(soft2, f2);
  }
}

// Adds a run to a thread's state.
template <class T>
__device__ __forceinline__ void add_run(Stream<Real<T>>& s, const Part<T>& part, int run,
                                        const Run<T>& first, const Run<T>& second,
                                        const Choices<Real<T>>& c) {
  using R = Real<T>;
  constexpr int V = kStep<T>;
#pragma unroll 1
  for (int step = 0; step < kSteps<T>; ++step) {
    const int column = run * kColumns<T> + step * V;
    R x1[V], x2[V];
    widen_step(first, step, x1);
    widen_step(second, step, x2);
    if (part.holds_target(column, V) || !part.whole(column, V)) {
      set_aside(s, part, column, x1, x2);
    } else if (c.smoothing > R(0)) {
#pragma unroll
      for (int i = 0; i < V; ++i) s.state.first.sum += x1[i], s.state.second.sum += x2[i];
    }
    const R high1 = highest_of(x1), high2 = highest_of(x2);
    if (high1 > s.state.first.m || high2 > s.state.second.m)
      raise_maxima(s, x1, x2, high1, high2, column, c);
    switch (c.kind) {
      case kKl: add_columns<kKl>(s, x1, x2); break;
      case kCe: add_columns<kCe>(s, x1, x2); break;
      default: add_columns<kNone>(s, x1, x2);
    }
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

template <int KIND, int V, class T, class R>
__device__ __forceinline__ void column_gradients(const Part<T>& part, const PairGradient<R>& g,
                                                 int column, R (&x1)[V], R (&x2)[V]) {
  const int at = part.target - column;
  R target1 = R(0), target2 = R(0);
#pragma unroll
  for (int i = 0; i < V; ++i)
    if (i == at) target1 = x1[i], target2 = x2[i];
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const R own1 = x1[i], own2 = x2[i];
    column_gradient<UnitExp>(KIND, g, own1, own2, x1[i], x2[i]);
  }
  if (!part.holds_target(column, V)) return;
  R d1, d2;
  target_gradient<UnitExp>(KIND, g, target1, target2, d1, d2);
#pragma unroll
  for (int i = 0; i < V; ++i)
    if (i == at) x1[i] = d1, x2[i] = d2;
}

// The gradients of a run in place of its scores.
template <class T>
__device__ __forceinline__ void run_gradient(int kind, const Part<T>& part,
                                             const PairGradient<Real<T>>& g, int run,
                                             Run<T>& first, Run<T>& second) {
#pragma unroll 1
  for (int step = 0; step < kSteps<T>; ++step) {
    const int column = run * kColumns<T> + step * kStep<T>;
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

}  // namespace
}  // namespace cuda
}  // namespace pairdistill
