// The mathematics of the pair loss: the state of a pair of rows, its merge, the values and the
// gradients. Included by the C++ and by the CUDA code.
// over 300 lines: there is no other place for the mathematics
//
// The rows x1, x2 of one pair are the scores of C classes; the logits are z = s x with one scale s
// (1 for a linear head; a cosine head gives cosines). With the label y and the temperature T:
//     CE sees z, and s psi(x_y) in place of z_y        psi: margin on the target, see `margined`
//     p = softmax(z1/T)   q = softmax(z2/T)            free of margins
//     f = log p - log q (kl)   f = -log q (ce), up to a constant of the row; the second side
//     likewise with the roles changed.
// Everything that is kept of a row and is comparable with a score (m, y, sum, ce_shift) is kept as
// a score, and differences are taken before they are scaled: s (x - m) is exact where s x - s m is
// rounded twice. Gradients are with respect to the scores.
//
// How it stays exact in float32 (each found by experiment against float64, docs/numerics.md):
// - the target column is left out of the stream and merged last: CE = log1p(rest * exp(-z_y)) and
//   dCE/dz_y = -rest/total do not cancel where z_y stands far above the others; a margin on the
//   target logit is exact for the same reason;
// - max(z/T) = max(z)/T, so that one maximum a side serves both temperatures;
// - kl's gradient is p (d - E_p[d]) with d = ((x1-x2) - (m1-m2)) s/T: log-normalisers cancel;
// - a product with weight 0 is 0 even where its factor is infinite (-inf scores), while NaN stays
//   NaN and poisons its row.
#pragma once

#include <cmath>
#include <cstdint>

#include "pair_loss_exp.h"

namespace pairdistill {

enum Kind : int { kNone = 0, kKl = 1, kCe = 2, kMmd = 3 };

// An angle added to that of the target's cosine, in (-pi/2, pi/2), and what is taken off the cosine;
// `floor` is the least 1 - x^2 under the square root.
template <class R>
struct Margin {
  R cos_angle, sin_angle, cosine, floor;
};

// The margins of both sides of one pair. As a row of a tensor: cos, sin, cosine, each of the first
// side, then of the second.
template <class R>
struct PairMargin {
  Margin<R> first, second;
};

constexpr int kMarginsOfRow = 6;

// The constants of a call. `forward` and `reverse` weigh S(p, q) and S(q, p).
template <class R>
struct Choices {
  int kind;
  int stop_gradient;   // side that the similarity takes as a constant: 0 none, 1 first, 2 second
  R forward, reverse;
  R similarity_scale;  // T^2, or 1
  R smoothing;         // label smoothing e
  R logit_scale;       // s: logits are s times the scores
  R soft_scale;        // s/T
  Margin<R> margin;    // of every pair, unless pairs have their own
};

// What a set of columns has been reduced to, for one side: m = max x, s = sum exp(z - z_max),
// t = sum exp((z - z_max)/T), a = sum exp((z - z_max)/T) f, h = sum exp((z - z_max)/T) (z - z_max)/T,
// all without the target's column; sum = sum x without it; y = x at the target's column, or 0 where
// that is not among the columns; top = first column with the largest x.
template <class R>
struct Side {
  R m, s, t, a, y, sum, h;
  int64_t top;
};

template <class R>
struct PairState {
  Side<R> first, second;
};

// A state as a row of a tensor: m, s, t, a, y, sum, h, each of the first side, then of the second.
// The first 10 carry the loss and its gradients, sum matters for label smoothing, h for entropies.
constexpr int kStateOfRow = 14;

// What backward needs to know of one side of a row. Kept in a (B, 12) tensor.
template <class R>
struct SideStats {
  R ce_shift;      // max(max of the rest, psi(target)), a score
  R ce_inv_total;  // 1 / sum exp(s (x - ce_shift)), target included
  R ce_target;     // dCE/d(s x_y): the margin's slope and the smoothing included
  R m;             // max x
  R inv_t;         // 1 / sum exp((z - z_max)/T)
  R mean;          // E[f] under this side's softened answer; sum p (p - q) for mmd
};

template <class R>
struct RowStats {
  SideStats<R> first, second;
};

constexpr int kStatsOfRow = 12;

template <class R>
struct RowValues {
  R ce_first, ce_second, similarity;
  R entropy_first, entropy_second;  // of the softened answers, in nats
  R p_first, p_second;              // softened probability of the target
  int64_t top_first, top_second;    // arg-max, -1 in rows with NaN
};

constexpr int kValuesOfRow = 3, kExtrasOfRow = 4;

// Coefficients of one side's gradient at one row.
template <class R>
struct SideGradient {
  R ce_shift, ce, flat;  // ce * exp(s (x - ce_shift)) - flat
  R at_target;           // the cross-entropy's gradient at the target
  R m, inv_t, mean;      // p = exp((z - z_max)/T) * inv_t
  R own, cross;          // own * p (f - mean) + cross * (p - q)
};

template <class R>
struct PairGradient {
  SideGradient<R> first, second;
  R logit_scale, soft_scale;
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
PAIR_LOSS_FN float sqrt_of(float x) { return ::sqrtf(x); }
PAIR_LOSS_FN double sqrt_of(double x) { return ::sqrt(x); }

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
  return cube + guarded(cube, x - R(3) * xs);  // -inf less -inf where the class is excluded
}

// T where it is 1, 2, 3 or 4, else 0.
PAIR_LOSS_FN int power_of(double logit_scale, double soft_scale) {
  for (int power = 1; power <= 4; ++power)
    if (soft_scale == logit_scale / power) return power;
  return 0;
}

template <class To, class From>
PAIR_LOSS_FN Choices<To> converted(const Choices<From>& c) {
  return Choices<To>{c.kind,
                     c.stop_gradient,
                     To(c.forward),
                     To(c.reverse),
                     To(c.similarity_scale),
                     To(c.smoothing),
                     To(c.logit_scale),
                     To(c.soft_scale),
                     {To(c.margin.cos_angle), To(c.margin.sin_angle), To(c.margin.cosine),
                      To(c.margin.floor)}};
}

template <class To, class From>
PAIR_LOSS_FN SideStats<To> converted(const SideStats<From>& s) {
  return SideStats<To>{To(s.ce_shift), To(s.ce_inv_total), To(s.ce_target),
                       To(s.m),        To(s.inv_t),        To(s.mean)};
}

template <class To, class From>
PAIR_LOSS_FN SideGradient<To> converted(const SideGradient<From>& g) {
  return SideGradient<To>{To(g.ce_shift), To(g.ce),   To(g.flat), To(g.at_target), To(g.m),
                          To(g.inv_t),    To(g.mean), To(g.own),  To(g.cross)};
}

template <class To, class From>
PAIR_LOSS_FN PairGradient<To> converted(const PairGradient<From>& g) {
  return PairGradient<To>{converted<To>(g.first), converted<To>(g.second), To(g.logit_scale),
                          To(g.soft_scale)};
}

template <class R>
PAIR_LOSS_FN PairState<R> empty_state() {
  const Side<R> side{minus_infinity<R>(), R(0), R(0), R(0), R(0), R(0), R(0), kNoColumn};
  return PairState<R>{side, side};
}

template <class R, class Stored>
PAIR_LOSS_FN PairState<R> load_state(const Stored* row, const int64_t* tops) {
  PairState<R> out;
  Side<R>* const sides[2] = {&out.first, &out.second};
  for (int i = 0; i < 2; ++i)
    *sides[i] = Side<R>{R(row[i]),     R(row[2 + i]),  R(row[4 + i]),  R(row[6 + i]),
                        R(row[8 + i]), R(row[10 + i]), R(row[12 + i]), tops[i]};
  return out;
}

template <class R, class Stored>
PAIR_LOSS_FN void store_state(const PairState<R>& state, Stored* row, int64_t* tops) {
  const Side<R>* const sides[2] = {&state.first, &state.second};
  for (int i = 0; i < 2; ++i) {
    const R values[kStateOfRow / 2] = {sides[i]->m, sides[i]->s,   sides[i]->t, sides[i]->a,
                                       sides[i]->y, sides[i]->sum, sides[i]->h};
    for (int k = 0; k < kStateOfRow / 2; ++k) row[2 * k + i] = Stored(values[k]);
    tops[i] = sides[i]->top;
  }
}

// f of the first side and of the second at one column. kl: f = -g = ((x1 - x2) - (m1 - m2)) s/T;
// ce: f = -(x2 - m2) s/T, g = -(x1 - m1) s/T.
template <class R>
PAIR_LOSS_FN void factors(int kind, R x1, R x2, R m1, R m2, R soft_scale, R& f, R& g) {
  if (kind == kKl) {
    f = ((x1 - x2) - (m1 - m2)) * soft_scale;
    g = -f;
  } else {
    f = (m2 - x2) * soft_scale;
    g = (m1 - x1) * soft_scale;
  }
}

// One side relative to a new maximum; `moved` is what f changes by.
template <class R>
PAIR_LOSS_FN void rebase_side(Side<R>& side, R m, R by, R moved, const Choices<R>& c) {
  const R soft = by * c.soft_scale, factor = exp_of(soft);
  if (c.kind == kKl || c.kind == kCe)
    side.a = guarded(factor, side.a + guarded(side.t, moved));
  side.h = guarded(factor, side.h + guarded(side.t, soft));
  side.s *= exp_of(by * c.logit_scale);
  side.t *= factor;
  side.m = m;
}

// The same state expressed relative to new maxima.
template <class R>
PAIR_LOSS_FN void rebase(PairState<R>& state, R m1, R m2, const Choices<R>& c) {
  const R by1 = shift(state.first.m, m1), by2 = shift(state.second.m, m2);
  if (by1 == R(0) && by2 == R(0)) return;
  const R d1 = by1 * c.soft_scale, d2 = by2 * c.soft_scale;
  rebase_side(state.first, m1, by1, c.kind == kKl ? d1 - d2 : -d2, c);
  rebase_side(state.second, m2, by2, c.kind == kKl ? d2 - d1 : -d1, c);
}

template <class R>
PAIR_LOSS_FN void add_side(Side<R>& into, const Side<R>& from) {
  into.s += from.s;
  into.t += from.t;
  into.a += from.a;
  into.y += from.y;
  into.sum += from.sum;
  into.h += from.h;
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

// The target's column as a state: exp(0) = 1 of it, nothing of it where it is -inf, NaN where it
// is not finite.
template <class R>
PAIR_LOSS_FN Side<R> target_side(R x, int64_t column) {
  const R one = x == minus_infinity<R>() ? R(0) : (x - x) + R(1);
  return Side<R>{x, R(0), one, R(0), R(0), R(0), R(0), column};
}

// The margins of a pair: those in its row of a table, or those of the call where there is none.
template <class R, class Stored>
PAIR_LOSS_FN PairMargin<R> margin_of(const Stored* row, const Choices<R>& c) {
  PairMargin<R> out{c.margin, c.margin};
  if (!row) return out;
  Margin<R>* const sides[2] = {&out.first, &out.second};
  for (int i = 0; i < 2; ++i)
    *sides[i] = Margin<R>{R(row[i]), R(row[2 + i]), R(row[4 + i]), c.margin.floor};
  return out;
}

// psi(x), and its slope, of a target's cosine x = cos(theta): cos(theta + angle) - cosine; never
// falling with x, so
//   angle > 0: x - (1 - cos angle) - cosine beyond theta = pi - angle;
//   angle < 0: 1 - cosine below theta = -angle, where theta + angle is held at 0.
// Branches meet where they change. ArcFace: Deng et al. 2019, eq. (3); CosFace: Wang et al. 2018,
// eq. (4); AdaFace: Kim et al. 2022, section 3.3. The slope has no bound at |x| = 1, hence the floor
// under the square root.
template <class R>
PAIR_LOSS_FN R margined(const Margin<R>& margin, R x, R& slope) {
  slope = R(1);
  if (margin.sin_angle == R(0)) return x - margin.cosine;
  if (margin.sin_angle > R(0) && !(x >= -margin.cos_angle))
    return x - (R(1) - margin.cos_angle) - margin.cosine;
  if (margin.sin_angle < R(0) && x >= margin.cos_angle) {
    slope = R(0);
    return R(1) - margin.cosine;
  }
  const R square = (R(1) - x) * (R(1) + x);
  const bool held = !(square >= margin.floor);
  const R sine = sqrt_of(held ? margin.floor : square);
  slope = held ? margin.cos_angle : margin.cos_angle + margin.sin_angle * x / sine;
  return x * margin.cos_angle - sine * margin.sin_angle - margin.cosine;
}

// Cross-entropy of one side from the rest (every column but the target) and the target's score.
template <class R>
PAIR_LOSS_FN R cross_entropy(const Side<R>& rest, R classes, const Choices<R>& c,
                             const Margin<R>& margin, SideStats<R>& stats) {
  R slope;
  const R target = margined(margin, rest.y, slope), top = larger(rest.m, target);
  const R at_rest = rest.s * exp_of(c.logit_scale * shift(rest.m, top));
  const R at_target =
      target == minus_infinity<R>() ? R(0) : exp_of(c.logit_scale * (target - top));
  const R total = at_rest + at_target;
  stats.ce_shift = top;
  stats.ce_inv_total = R(1) / total;
  stats.ce_target = slope * (c.smoothing - c.smoothing / classes - at_rest / total);
  // target - target: an overflow of the target logit is NaN, not a loss of 0.
  R loss = target > rest.m ? log1p_of(at_rest) + (target - target)
                           : c.logit_scale * (top - target) + log_of(total);
  if (c.smoothing > R(0))
    loss += c.smoothing * c.logit_scale * (target - (rest.sum + target) / classes);
  return loss;
}

template <class R>
PAIR_LOSS_FN void set_soft(const Side<R>& side, SideStats<R>& stats) {
  stats.m = side.m;
  stats.inv_t = side.t == R(0) ? R(0) : R(1) / side.t;
  stats.mean = side.a * stats.inv_t;
}

// S(p, q) from E_p[f]: the mean, plus the other side's log-normaliser, less its own for kl.
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
  return c.similarity_scale * value;
}

// -sum p log p = log t - E_p[(z - z_max)/T].
template <class R>
PAIR_LOSS_FN R entropy(const Side<R>& side, const SideStats<R>& stats) {
  const R value = log_of(side.t) - side.h * stats.inv_t;
  return value < R(0) ? R(0) : value;
}

template <class R>
PAIR_LOSS_FN R target_share(const SideStats<R>& stats, R x, const Choices<R>& c) {
  return x == minus_infinity<R>() ? R(0) : exp_of((x - stats.m) * c.soft_scale) * stats.inv_t;
}

// Values and statistics of a row from the state of all its columns. For mmd the means and the
// similarity follow from a second sweep (`mmd_terms`, `finish_mmd`).
template <class R>
PAIR_LOSS_FN RowValues<R> finish(PairState<R> state, int64_t label, int64_t classes,
                                 const Choices<R>& c, const PairMargin<R>& margin,
                                 RowStats<R>& stats) {
  RowValues<R> out;
  const R count = static_cast<R>(classes), x1 = state.first.y, x2 = state.second.y;
  out.ce_first = cross_entropy(state.first, count, c, margin.first, stats.first);
  out.ce_second = cross_entropy(state.second, count, c, margin.second, stats.second);
  const bool poisoned1 = state.first.s != state.first.s || x1 != x1;
  const bool poisoned2 = state.second.s != state.second.s || x2 != x2;
  merge(state, PairState<R>{target_side(x1, label), target_side(x2, label)}, c);
  set_soft(state.first, stats.first);
  set_soft(state.second, stats.second);
  out.similarity = similarity(state, stats, c);
  out.entropy_first = entropy(state.first, stats.first);
  out.entropy_second = entropy(state.second, stats.second);
  out.p_first = target_share(stats.first, x1, c);
  out.p_second = target_share(stats.second, x2, c);
  out.top_first = poisoned1 ? -1 : state.first.top;
  out.top_second = poisoned2 ? -1 : state.second.top;
  return out;
}

// What an ignored pair answers.
template <class R>
PAIR_LOSS_FN RowValues<R> ignored_values() {
  return RowValues<R>{R(0), R(0), R(0), R(0), R(0), R(0), R(0), -1, -1};
}

// mmd's second sweep at one column: p (p - q) and q (q - p). One sweep of squares would cancel
// where p is close to q, which is where training goes.
template <class Exp, class R>
PAIR_LOSS_FN void mmd_terms(const RowStats<R>& stats, R x1, R x2, R soft_scale, R& sum1, R& sum2) {
  const R p = Exp::of((x1 - stats.first.m) * soft_scale) * stats.first.inv_t;
  const R q = Exp::of((x2 - stats.second.m) * soft_scale) * stats.second.inv_t;
  sum1 += p * (p - q);
  sum2 += q * (q - p);
}

// Sets the means from the sums of `mmd_terms` over all columns; the similarity.
template <class R>
PAIR_LOSS_FN R finish_mmd(RowStats<R>& stats, R sum1, R sum2, const Choices<R>& c) {
  stats.first.mean = sum1;
  stats.second.mean = sum2;
  return c.similarity_scale * (sum1 + sum2);
}

// `upstream` is per score (the logit scale included).
template <class R>
PAIR_LOSS_FN SideGradient<R> side_gradient(const SideStats<R>& stats, R upstream, R own, R cross,
                                           R flat) {
  return SideGradient<R>{stats.ce_shift,
                         upstream * stats.ce_inv_total,
                         upstream * flat,
                         upstream * stats.ce_target,
                         stats.m,
                         stats.inv_t,
                         stats.mean,
                         own,
                         cross};
}

// Coefficients of a row's gradient for the upstream gradients of its three values.
template <class R>
PAIR_LOSS_FN PairGradient<R> row_gradient(const RowStats<R>& stats, R up_first, R up_second,
                                          R up_similarity, int64_t classes, const Choices<R>& c) {
  const R soft = c.kind == kNone ? R(0) : up_similarity * c.similarity_scale * c.soft_scale;
  const R soft1 = c.stop_gradient == 1 ? R(0) : soft, soft2 = c.stop_gradient == 2 ? R(0) : soft;
  const bool mmd = c.kind == kMmd;
  const R flat = c.smoothing / static_cast<R>(classes);
  return PairGradient<R>{
      side_gradient(stats.first, up_first * c.logit_scale, soft1 * (mmd ? R(2) : c.forward),
                    mmd ? R(0) : soft1 * c.reverse, flat),
      side_gradient(stats.second, up_second * c.logit_scale, soft2 * (mmd ? R(2) : c.reverse),
                    mmd ? R(0) : soft2 * c.forward, flat),
      c.logit_scale, c.soft_scale};
}

// The similarity's gradient at one column with respect to both scores; exp((z - z_max)/T) of each
// side is given as `soft1` and `soft2`.
template <class R>
PAIR_LOSS_FN void similarity_gradient(int kind, const PairGradient<R>& g, R x1, R x2, R soft1,
                                      R soft2, R& d1, R& d2) {
  const R p = soft1 * g.first.inv_t, q = soft2 * g.second.inv_t;
  R f1 = p - q, f2 = q - p;
  d1 = g.first.cross * f1;
  d2 = g.second.cross * f2;
  if (kind != kMmd) factors(kind, x1, x2, g.first.m, g.second.m, g.soft_scale, f1, f2);
  d1 += guarded(g.first.own * p, f1 - g.first.mean);
  d2 += guarded(g.second.own * q, f2 - g.second.mean);
}

// The same at the target's column; the cross-entropy's gradient there is `at_target`.
template <class Exp, class R>
PAIR_LOSS_FN void soft_gradient(int kind, const PairGradient<R>& g, R x1, R x2, R& d1, R& d2) {
  d1 = d2 = R(0);
  if (kind == kNone) return;
  similarity_gradient(kind, g, x1, x2, Exp::of((x1 - g.first.m) * g.soft_scale),
                      Exp::of((x2 - g.second.m) * g.soft_scale), d1, d2);
}

// The whole gradient at the target's column.
template <class Exp, class R>
PAIR_LOSS_FN void target_gradient(int kind, const PairGradient<R>& g, R x1, R x2, R& d1, R& d2) {
  soft_gradient<Exp>(kind, g, x1, x2, d1, d2);
  d1 += g.first.at_target;
  d2 += g.second.at_target;
}

// The whole gradient at a column that is not the target.
template <class Exp, class R>
PAIR_LOSS_FN void column_gradient(int kind, const PairGradient<R>& g, R x1, R x2, R& d1, R& d2) {
  soft_gradient<Exp>(kind, g, x1, x2, d1, d2);
  d1 += g.first.ce * Exp::of((x1 - g.first.ce_shift) * g.logit_scale) - g.first.flat;
  d2 += g.second.ce * Exp::of((x2 - g.second.ce_shift) * g.logit_scale) - g.second.flat;
}

// The same with one exp a side, for T = POWER and coefficients from `shared_shift`.
template <class Exp, int POWER, class R>
PAIR_LOSS_FN void column_gradient_raised(int kind, const PairGradient<R>& g, R x1, R x2, R& d1,
                                         R& d2) {
  const R by1 = x1 - g.first.m, by2 = x2 - g.second.m;
  const R xs1 = by1 * g.soft_scale, xs2 = by2 * g.soft_scale;
  const R soft1 = Exp::of(xs1), soft2 = Exp::of(xs2);
  similarity_gradient(kind, g, x1, x2, soft1, soft2, d1, d2);
  d1 += g.first.ce * raised<POWER>(soft1, by1 * g.logit_scale, xs1) - g.first.flat;
  d2 += g.second.ce * raised<POWER>(soft2, by2 * g.logit_scale, xs2) - g.second.flat;
}

// Lets the cross-entropy's exp start from m as the similarity's does. They differ by a margin on
// the target logit; false where they are too far apart for the factor.
template <class R>
PAIR_LOSS_FN bool shared_shift(SideGradient<R>& g, R logit_scale) {
  const R apart = (g.m - g.ce_shift) * logit_scale;
  if (!(apart < R(40) && apart > R(-40))) return false;
  g.ce *= exp_of(apart);
  g.ce_shift = g.m;
  return true;
}

}  // namespace PAIR_LOSS_ISA
}  // namespace pairdistill
