// The mathematics of the pair loss: the state of a pair of logit rows, its merge, the values and
// the gradients. Included by the C++ and by the CUDA code; there is no other place for it, hence its
// length.
//
// For logits z1, z2 of one pair over C classes, label y, temperature T:
//     p = softmax(z1/T)   q = softmax(z2/T)   x = log p - log q (kl)   x = -log q (ce), up to a
//     constant of the row; the second side likewise with the roles changed.
//
// How it stays exact in float32 (each found by experiment against float64, docs/numerics.md):
// - the target column is left out of the stream and merged last: CE = log1p(rest * exp(-z_y)) and
//   dCE/dz_y = -rest/total do not cancel where z_y stands far above the others; a margin on the
//   target logit is exact for the same reason;
// - max(z/T) = max(z)/T, so that one maximum a side serves both temperatures;
// - kl's gradient is p (d - E_p[d]) with d = ((z1-z2) - (m1-m2))/T: log-normalisers cancel;
// - a product with weight 0 is 0 even where its factor is infinite (-inf logits), while NaN stays
//   NaN and poisons its row.
#pragma once

#include <cmath>
#include <cstdint>

#include "pair_loss_exp.h"

namespace pairdistill {

enum Kind : int { kNone = 0, kKl = 1, kCe = 2, kMmd = 3 };

// The constants of a call. `forward` and `reverse` weigh S(p, q) and S(q, p).
template <class R>
struct Choices {
  int kind;
  R inv_temperature;
  R forward;
  R reverse;
  R scale;      // T^2, or 1
  R smoothing;  // label smoothing e
};

// What a set of columns has been reduced to, for one side: m = max z, s = sum exp(z - m),
// t = sum exp((z - m)/T), a = sum exp((z - m)/T) x, sum = sum z, top = first column with z = m.
template <class R>
struct Side {
  R m, s, t, a, sum;
  int64_t top;
};

template <class R>
struct PairState {
  Side<R> first, second;
};

// What backward needs to know of one side of a row. Kept in a (B, 12) tensor.
template <class R>
struct SideStats {
  R ce_shift;      // max(max of the rest, target logit)
  R ce_inv_total;  // 1 / sum exp(z - ce_shift), target included
  R ce_rest;       // share of the classes that are not the target
  R m;             // max z
  R inv_t;         // 1 / sum exp((z - m)/T)
  R mean;          // E[x] under this side's softened answer; sum p (p - q) for mmd
};

template <class R>
struct RowStats {
  SideStats<R> first, second;
};

constexpr int kStatsOfRow = 12;

template <class R>
struct RowValues {
  R ce_first, ce_second, similarity;
  int64_t top_first, top_second;
};

// Coefficients of one side's gradient at one row.
template <class R>
struct SideGradient {
  R ce_shift, ce, flat;  // ce * exp(z - ce_shift) - flat
  R at_target;           // the cross-entropy's gradient at the target logit
  R m, inv_t, mean;      // p = exp((z - m)/T) * inv_t
  R own, cross;          // own * p (x - mean) + cross * (p - q)
};

template <class R>
struct PairGradient {
  SideGradient<R> first, second;
  R inv_temperature;
};

namespace PAIR_LOSS_ISA {

constexpr int64_t kNoColumn = INT64_MAX;

PAIR_LOSS_FN float exp_of(float x) { return ::expf(x); }
PAIR_LOSS_FN double exp_of(double x) {
#ifdef __CUDA_ARCH__
  return PolynomialExp::of(x);  // ::exp is a call there, around which registers are spilled
#else
  return ::exp(x);
#endif
}
PAIR_LOSS_FN float log_of(float x) { return ::logf(x); }
PAIR_LOSS_FN double log_of(double x) { return ::log(x); }
PAIR_LOSS_FN float log1p_of(float x) { return ::log1pf(x); }
PAIR_LOSS_FN double log1p_of(double x) { return ::log1p(x); }

template <class R>
PAIR_LOSS_FN R minus_infinity() {
  return -static_cast<R>(HUGE_VALF);
}

// NaN is passed over: it shows in the sums instead.
template <class R>
PAIR_LOSS_FN R larger(R a, R b) {
  return b > a ? b : a;
}

// from - to, where -inf stands for "no column yet".
template <class R>
PAIR_LOSS_FN R shift(R from, R to) {
  return from == minus_infinity<R>() && to == from ? R(0) : from - to;
}

// weight * factor, 0 where the weight is 0 whatever the factor is; NaN weights stay NaN.
template <class R>
PAIR_LOSS_FN R guarded(R weight, R factor) {
  return weight == R(0) ? R(0) : weight * factor;
}

// exp(x) from soft = exp(xs), xs = x/T as it was rounded, for T = POWER: one exp does for both
// temperatures. x - T xs is what the rounding lost (exact by one fused operation).
template <int POWER, class R>
PAIR_LOSS_FN R raised(R soft, R x, R xs) {
  const R square = soft * soft;
  if (POWER == 1) return soft;
  if (POWER == 2) return square;
  if (POWER == 4) return square * square;
  const R cube = square * soft;
  return cube + cube * (x - R(3) * xs);
}

// T where it is 1, 2, 3 or 4, else 0.
PAIR_LOSS_FN int power_of(double inv_temperature) {
  for (int power = 1; power <= 4; ++power)
    if (inv_temperature == 1.0 / power) return power;
  return 0;
}

template <class R>
PAIR_LOSS_FN PairState<R> empty_state() {
  const Side<R> side{minus_infinity<R>(), R(0), R(0), R(0), R(0), kNoColumn};
  return PairState<R>{side, side};
}

// x of the first side and of the second at one column, from both logits less their maxima.
// kl: x = -y = ((z1 - z2) - (m1 - m2))/T;  ce: x = -(z2 - m2)/T, y = -(z1 - m1)/T.
template <class R>
PAIR_LOSS_FN void factors(int kind, R z1, R z2, R m1, R m2, R inv_temperature, R& x, R& y) {
  if (kind == kKl) {
    x = ((z1 - z2) - (m1 - m2)) * inv_temperature;
    y = -x;
  } else {
    x = (m2 - z2) * inv_temperature;
    y = (m1 - z1) * inv_temperature;
  }
}

// The same state expressed relative to new maxima.
template <class R>
PAIR_LOSS_FN void rebase(PairState<R>& state, R m1, R m2, const Choices<R>& c) {
  const R by1 = shift(state.first.m, m1), by2 = shift(state.second.m, m2);
  if (by1 == R(0) && by2 == R(0)) return;
  const R d1 = by1 * c.inv_temperature, d2 = by2 * c.inv_temperature;
  const R soft1 = exp_of(d1), soft2 = exp_of(d2);
  const R x = c.kind == kKl ? d1 - d2 : -d2;
  const R y = c.kind == kKl ? d2 - d1 : -d1;
  if (c.kind == kKl || c.kind == kCe) {
    state.first.a = guarded(soft1, state.first.a + guarded(state.first.t, x));
    state.second.a = guarded(soft2, state.second.a + guarded(state.second.t, y));
  }
  state.first.s *= exp_of(by1);
  state.second.s *= exp_of(by2);
  state.first.t *= soft1;
  state.second.t *= soft2;
  state.first.m = m1;
  state.second.m = m2;
}

template <class R>
PAIR_LOSS_FN void add_side(Side<R>& into, const Side<R>& from) {
  into.s += from.s;
  into.t += from.t;
  into.a += from.a;
  into.sum += from.sum;
}

template <class R>
PAIR_LOSS_FN int64_t top_of(const Side<R>& a, const Side<R>& b) {
  if (a.m == b.m) return a.top < b.top ? a.top : b.top;
  return b.m > a.m ? b.top : a.top;
}

// Two sets of columns made one. Merging in a fixed order gives the same bits every time.
template <class R>
PAIR_LOSS_FN void merge(PairState<R>& into, PairState<R> from, const Choices<R>& c) {
  const R m1 = larger(into.first.m, from.first.m), m2 = larger(into.second.m, from.second.m);
  into.first.top = top_of(into.first, from.first);
  into.second.top = top_of(into.second, from.second);
  rebase(into, m1, m2, c);
  rebase(from, m1, m2, c);
  add_side(into.first, from.first);
  add_side(into.second, from.second);
}

// One column: exp(0) = 1 of it, nothing of it where it is -inf, NaN where it is not finite.
template <class R>
PAIR_LOSS_FN Side<R> column_side(R z, int64_t column) {
  const R one = z == minus_infinity<R>() ? R(0) : (z - z) + R(1);
  return Side<R>{z, R(0), one, R(0), z, column};
}

// Cross-entropy of one side from the rest (every column but the target) and the target logit.
template <class R>
PAIR_LOSS_FN R cross_entropy(const Side<R>& rest, R target, R classes, R smoothing,
                             SideStats<R>& stats) {
  const R top = larger(rest.m, target);
  const R at_rest = rest.s * exp_of(shift(rest.m, top));
  const R at_target = target == minus_infinity<R>() ? R(0) : exp_of(target - top);
  const R total = at_rest + at_target;
  stats.ce_shift = top;
  stats.ce_inv_total = R(1) / total;
  stats.ce_rest = at_rest / total;
  // target - target: an overflow of the target logit is NaN, not a loss of 0.
  R loss = target > rest.m ? log1p_of(at_rest) + (target - target)
                           : (top - target) + log_of(total);
  if (smoothing > R(0)) loss += smoothing * (target - (rest.sum + target) / classes);
  return loss;
}

template <class R>
PAIR_LOSS_FN void set_soft(const Side<R>& side, SideStats<R>& stats) {
  stats.m = side.m;
  stats.inv_t = side.t == R(0) ? R(0) : R(1) / side.t;
  stats.mean = side.a * stats.inv_t;
}

// S(p, q) from E_p[x]: the mean, plus the other side's log-normaliser, less its own for kl.
template <class R>
PAIR_LOSS_FN R one_way(int kind, R mean, R own_t, R other_t) {
  if (kind == kCe) return mean + log_of(other_t);
  const R value = mean + (log_of(other_t) - log_of(own_t));
  return value < R(0) ? R(0) : value;  // kl is never negative: what is below 0 is rounding
}

template <class R>
PAIR_LOSS_FN R similarity(const PairState<R>& state, const RowStats<R>& stats,
                          const Choices<R>& c) {
  if (c.kind != kKl && c.kind != kCe) return R(0);
  R value = R(0);
  if (c.forward != R(0))
    value += c.forward * one_way(c.kind, stats.first.mean, state.first.t, state.second.t);
  if (c.reverse != R(0))
    value += c.reverse * one_way(c.kind, stats.second.mean, state.second.t, state.first.t);
  return c.scale * value;
}

// Values and statistics of a row from the state of every column but the target.
// `target1`, `target2` are the logits of the cross-entropies: z_y, or z_y with a margin.
// For mmd the means and the similarity follow from a second sweep (`mmd_terms`).
template <class R>
PAIR_LOSS_FN RowValues<R> finish(PairState<R> state, R z1_y, R z2_y, R target1, R target2,
                                 int64_t label, int64_t classes, const Choices<R>& c,
                                 RowStats<R>& stats) {
  RowValues<R> out;
  const R count = static_cast<R>(classes);
  out.ce_first = cross_entropy(state.first, target1, count, c.smoothing, stats.first);
  out.ce_second = cross_entropy(state.second, target2, count, c.smoothing, stats.second);
  const bool poisoned1 = state.first.s != state.first.s || z1_y != z1_y;
  const bool poisoned2 = state.second.s != state.second.s || z2_y != z2_y;
  merge(state, PairState<R>{column_side(z1_y, label), column_side(z2_y, label)}, c);
  set_soft(state.first, stats.first);
  set_soft(state.second, stats.second);
  out.similarity = similarity(state, stats, c);
  out.top_first = poisoned1 ? -1 : state.first.top;
  out.top_second = poisoned2 ? -1 : state.second.top;
  return out;
}

// mmd's second sweep at one column: p (p - q) and q (q - p). One sweep of squares would cancel
// where p is close to q, which is where training goes.
template <class Exp, class R>
PAIR_LOSS_FN void mmd_terms(const RowStats<R>& stats, R z1, R z2, R inv_temperature, R& sum1,
                            R& sum2) {
  const R p = Exp::of((z1 - stats.first.m) * inv_temperature) * stats.first.inv_t;
  const R q = Exp::of((z2 - stats.second.m) * inv_temperature) * stats.second.inv_t;
  sum1 += p * (p - q);
  sum2 += q * (q - p);
}

template <class R>
PAIR_LOSS_FN SideGradient<R> side_gradient(const SideStats<R>& stats, R upstream, R own, R cross,
                                           R classes, R smoothing) {
  const R flat = smoothing / classes;
  return SideGradient<R>{stats.ce_shift,
                         upstream * stats.ce_inv_total,
                         upstream * flat,
                         upstream * (smoothing - flat - stats.ce_rest),
                         stats.m,
                         stats.inv_t,
                         stats.mean,
                         own,
                         cross};
}

// Coefficients of a row's gradient for the upstream gradients of its three values.
template <class R>
PAIR_LOSS_FN PairGradient<R> row_gradient(const RowStats<R>& stats, R up_first, R up_second,
                                          R up_similarity, bool keep_first, bool keep_second,
                                          int64_t classes, const Choices<R>& c) {
  const R soft = c.kind == kNone ? R(0) : up_similarity * c.scale * c.inv_temperature;
  const R soft1 = keep_first ? soft : R(0), soft2 = keep_second ? soft : R(0);
  const bool mmd = c.kind == kMmd;
  const R count = static_cast<R>(classes);
  return PairGradient<R>{
      side_gradient(stats.first, up_first, soft1 * (mmd ? R(2) : c.forward),
                    mmd ? R(0) : soft1 * c.reverse, count, c.smoothing),
      side_gradient(stats.second, up_second, soft2 * (mmd ? R(2) : c.reverse),
                    mmd ? R(0) : soft2 * c.forward, count, c.smoothing),
      c.inv_temperature};
}

// The similarity's gradient at one column with respect to both logits; exp((z - m)/T) of each side
// is given as `soft1` and `soft2`.
template <class R>
PAIR_LOSS_FN void similarity_gradient(int kind, const PairGradient<R>& g, R z1, R z2, R soft1,
                                      R soft2, R& d1, R& d2) {
  const R p = soft1 * g.first.inv_t, q = soft2 * g.second.inv_t;
  R x = p - q, y = q - p;
  d1 = g.first.cross * x;
  d2 = g.second.cross * y;
  if (kind != kMmd) factors(kind, z1, z2, g.first.m, g.second.m, g.inv_temperature, x, y);
  d1 += guarded(g.first.own * p, x - g.first.mean);
  d2 += guarded(g.second.own * q, y - g.second.mean);
}

// The same at the target's column; the cross-entropy's gradient there is `at_target`.
template <class Exp, class R>
PAIR_LOSS_FN void soft_gradient(int kind, const PairGradient<R>& g, R z1, R z2, R& d1, R& d2) {
  d1 = d2 = R(0);
  if (kind == kNone) return;
  similarity_gradient(kind, g, z1, z2, Exp::of((z1 - g.first.m) * g.inv_temperature),
                      Exp::of((z2 - g.second.m) * g.inv_temperature), d1, d2);
}

// The whole gradient at a column that is not the target.
template <class Exp, class R>
PAIR_LOSS_FN void column_gradient(int kind, const PairGradient<R>& g, R z1, R z2, R& d1, R& d2) {
  soft_gradient<Exp>(kind, g, z1, z2, d1, d2);
  d1 += g.first.ce * Exp::of(z1 - g.first.ce_shift) - g.first.flat;
  d2 += g.second.ce * Exp::of(z2 - g.second.ce_shift) - g.second.flat;
}

// The same with one exp a side, for T = POWER and coefficients from `shared_shift`.
template <class Exp, int POWER, class R>
PAIR_LOSS_FN void column_gradient_raised(int kind, const PairGradient<R>& g, R z1, R z2, R& d1,
                                         R& d2) {
  const R x1 = z1 - g.first.m, x2 = z2 - g.second.m;
  const R xs1 = x1 * g.inv_temperature, xs2 = x2 * g.inv_temperature;
  const R soft1 = Exp::of(xs1), soft2 = Exp::of(xs2);
  similarity_gradient(kind, g, z1, z2, soft1, soft2, d1, d2);
  d1 += g.first.ce * raised<POWER>(soft1, x1, xs1) - g.first.flat;
  d2 += g.second.ce * raised<POWER>(soft2, x2, xs2) - g.second.flat;
}

// Lets the cross-entropy's exp start from m as the similarity's does. They differ by a margin on
// the target logit; false where they are too far apart for the factor.
template <class R>
PAIR_LOSS_FN bool shared_shift(SideGradient<R>& g) {
  const R apart = g.m - g.ce_shift;
  if (!(apart < R(40) && apart > R(-40))) return false;
  g.ce *= exp_of(apart);
  g.ce_shift = g.m;
  return true;
}

}  // namespace PAIR_LOSS_ISA
}  // namespace pairdistill
