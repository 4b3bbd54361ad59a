// What one thread adds up of its runs of both rows.
#pragma once

#include "pair_loss_peaks.cuh"

namespace pairdistill {
namespace cuda {
namespace {

// The sums of a thread are relative to a base, which a score may exceed by so many units before the
// base is raised: a raise costs as much as a run, and would come with almost every run of a warp.
constexpr float kSlack = 8.0f;

// The state of a thread relative to the bases m (`a` in scores, `h` in units), its maxima, and the
// first columns of the steps that have them, as columns of the part.
template <class T>
struct Stream {
  using R = Real<T>;
  PairState<R> state;
  Peaks<T> high, limit;  // a base is raised where a score is above its limit
  int top1, top2;
  R logit_scale, soft_scale;                           // units a score
  R logit_base1, logit_base2, soft_base1, soft_base2;  // m in units
  R apart;                                             // of the bases, in scores
  int plain_runs;                                      // whole ones that need no sum of scores

  __device__ Stream(const Choices<R>& c, const Part<T>& part)
      : state(empty_state<R>()),
        high(minus_infinity<R>(), minus_infinity<R>()),
        limit(high),
        top1(-1),
        top2(-1),
        logit_scale(c.logit_scale * Units<R>::of_nat),
        soft_scale(c.soft_scale * Units<R>::of_nat),
        plain_runs(c.smoothing > 0 ? 0 : part.whole_runs) {
    set_bases();
  }

  // The base as a number: any will do as long as no score has been seen.
  static __device__ __forceinline__ R base(const Side<R>& side) {
    return side.m == minus_infinity<R>() ? R(0) : side.m;
  }

  __device__ void set_bases() {
    logit_base1 = base(state.first) * logit_scale;
    logit_base2 = base(state.second) * logit_scale;
    soft_base1 = base(state.first) * soft_scale;
    soft_base2 = base(state.second) * soft_scale;
    apart = base(state.first) - base(state.second);
    const R slack = R(kSlack) / highest(logit_scale, soft_scale);
    limit = Peaks<T>(state.first.m + slack, state.second.m + slack);
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
    move_to(high.first(), high.second(), c);
    if (top1 >= 0) state.first.top = class_of_column_0 + top1;
    if (top2 >= 0) state.second.top = class_of_column_0 + top2;
    return state;
  }
};

// A step with the target or with columns that do not exist: they become -inf, which adds nothing.
template <int V, class T, class R>
__device__ __forceinline__ void set_aside(Stream<T>& s, const Part<T>& part, int column, R (&x1)[V],
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

// Takes note of the largest scores of a step or run that begins at `column`.
template <class T>
__device__ __forceinline__ void note_maxima(Stream<T>& s, const Peaks<T>& peaks, int column,
                                            const Choices<Real<T>>& c) {
  if (peaks.above(s.limit)) s.raise(peaks.first(), peaks.second(), c);
  bool first, second;
  s.high.take(peaks, first, second);
  if (first) s.top1 = column;
  if (second) s.top2 = column;
}

// The sums of V columns for one kind of similarity. Unless all are finite, a score of -inf has weight
// 0 and must not meet its infinite factors.
template <int KIND, bool FINITE, int V, class T, class R>
__device__ __forceinline__ void add_columns(Stream<T>& s, const R (&x1)[V], const R (&x2)[V]) {
  const R bound = R(-1e30);
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
    const R difference = (x1[i] - x2[i]) - s.apart;
    const R f = KIND == kKl ? difference : Stream<T>::base(second) - x2[i];
    const R g = KIND == kKl ? -difference : Stream<T>::base(first) - x1[i];
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
__device__ __forceinline__ void add_steps(Stream<T>& s, const Part<T>& part, int column,
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
    note_maxima(s, Peaks<T>(highest_of(x1), highest_of(x2)), column, c);
    switch (c.kind) {
      case kKl: add_columns<kKl, false>(s, x1, x2); break;
      case kCe: add_columns<kCe, false>(s, x1, x2); break;
      default: add_columns<kNone, false>(s, x1, x2);
    }
  }
}

template <int KIND, class T>
__device__ __forceinline__ void add_finite(Stream<T>& s, const Run<T>& first,
                                           const Run<T>& second) {
  Real<T> x1[kColumns<T>], x2[kColumns<T>];
  widen_run(first, x1);
  widen_run(second, x2);
  add_columns<KIND, true>(s, x1, x2);
}

// Adds a run to a thread's state.
template <class T>
__device__ __forceinline__ void add_run(Stream<T>& s, const Part<T>& part, int run,
                                        const Run<T>& first, const Run<T>& second,
                                        const Choices<Real<T>>& c) {
  const int column = run * kColumns<T>;
  if (unsigned(run - part.first_whole) >= unsigned(s.plain_runs) || part.holds_target(run) ||
      !are_finite(first, second))
    return add_steps(s, part, column, first, second, c);
  note_maxima(s, Peaks<T>(first, second), column, c);
  switch (c.kind) {
    case kKl: return add_finite<kKl>(s, first, second);
    case kCe: return add_finite<kCe>(s, first, second);
    default: add_finite<kNone>(s, first, second);
  }
}

}  // namespace
}  // namespace cuda
}  // namespace pairdistill
