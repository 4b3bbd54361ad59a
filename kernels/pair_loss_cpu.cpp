// The vector loops of the CPU path. Compiled once for each instruction set, with PAIR_LOSS_ISA
// naming it; the compiler turns the loops marked `simd` into its vectors. No inline
// function of the standard library is used here: the linker might share it across instruction sets.
#include "pair_loss_cpu.h"
#include "pair_loss_types.h"

namespace pairdistill {
namespace PAIR_LOSS_ISA {
namespace {

// Columns reduced at a time: both sides stay in the first-level cache between the sweep for the
// maximum and the sweep for the sums, so that memory is read once.
constexpr int64_t kBlock = 1024;

template <class R>
R maximum(const R* z, int64_t n) {
  R m = minus_infinity<R>();
#pragma omp simd reduction(max : m)
  for (int64_t i = 0; i < n; ++i) m = larger(m, z[i]);
  return m;
}

// The first place of a value; runs that do not hold it are passed over as vectors.
template <class R>
int64_t first_equal(const R* z, int64_t n, R value) {
  constexpr int64_t kRun = 64;
  int64_t i = 0;
  for (; i + kRun <= n; i += kRun) {
    int found = 0;
#pragma omp simd reduction(| : found)
    for (int64_t j = 0; j < kRun; ++j) found |= z[i + j] == value;
    if (found) break;
  }
  for (; i < n; ++i)
    if (z[i] == value) return i;
  return kNoColumn;
}

// Adds one block to the sums of a row whose maxima, the block's included, are m1 and m2; where they
// are -inf, it is taken relative to 0, so that no column makes a NaN that was not there.
template <int KIND, int POWER, class R>
void add_block(const R* x1, const R* x2, int64_t n, const Choices<R>& c, R m1, R m2,
               PairState<double>& total) {
  m1 = m1 == minus_infinity<R>() ? R(0) : m1;
  m2 = m2 == minus_infinity<R>() ? R(0) : m2;
  const R scale = c.logit_scale, soft_scale = c.soft_scale;
  R s1 = 0, s2 = 0, t1 = 0, t2 = 0, a1 = 0, a2 = 0, h1 = 0, h2 = 0, sum1 = 0, sum2 = 0;
#pragma omp simd reduction(+ : s1, s2, t1, t2, a1, a2, h1, h2, sum1, sum2)
  for (int64_t i = 0; i < n; ++i) {
    const R by1 = x1[i] - m1, by2 = x2[i] - m2;
    const R xs1 = by1 * soft_scale, xs2 = by2 * soft_scale;
    const R soft1 = PolynomialExp::of(xs1), soft2 = PolynomialExp::of(xs2);
    const R z1 = by1 * scale, z2 = by2 * scale;
    s1 += POWER ? raised<POWER>(soft1, z1, xs1) : PolynomialExp::of(z1);
    s2 += POWER ? raised<POWER>(soft2, z2, xs2) : PolynomialExp::of(z2);
    t1 += soft1;
    t2 += soft2;
    h1 += guarded(soft1, xs1);
    h2 += guarded(soft2, xs2);
    sum1 += x1[i];
    sum2 += x2[i];
    if (KIND == kKl || KIND == kCe) {
      R f1, f2;
      factors(KIND, x1[i], x2[i], m1, m2, soft_scale, f1, f2);
      a1 += guarded(soft1, f1);
      a2 += guarded(soft2, f2);
    }
  }
  add_side(total.first, Side<double>{0.0, s1, t1, a1, 0.0, sum1, h1, kNoColumn});
  add_side(total.second, Side<double>{0.0, s2, t2, a2, 0.0, sum2, h2, kNoColumn});
}

// Moves the maxima of a row up to those of a block; the top classes with them.
template <class R>
void take_maxima(const R* x1, const R* x2, int64_t n, int64_t column, const Choices<double>& c,
                 PairState<double>& total) {
  const R m1 = maximum(x1, n), m2 = maximum(x2, n);
  const bool higher1 = m1 > total.first.m, higher2 = m2 > total.second.m;
  if (!higher1 && !higher2) return;
  if (higher1) total.first.top = column + first_equal(x1, n, m1);
  if (higher2) total.second.top = column + first_equal(x2, n, m2);
  rebase(total, larger<double>(total.first.m, m1), larger<double>(total.second.m, m2), c);
}

template <int KIND, int POWER, class Type>
void reduce_typed(ConstColumns x, int64_t column, const Choices<double>& c,
                  PairState<double>& total) {
  using R = typename Type::Real;
  const Choices<R> narrow = converted<R>(c);
  R buffer1[kBlock], buffer2[kBlock];
  for (int64_t at = 0; at < x.count; at += kBlock) {
    const int64_t n = x.count - at < kBlock ? x.count - at : kBlock;
    const R* x1 = Type::load(x.first, at, n, buffer1);
    const R* x2 = Type::load(x.second, at, n, buffer2);
    take_maxima(x1, x2, n, column + at, c, total);
    add_block<KIND, POWER>(x1, x2, n, narrow, R(total.first.m), R(total.second.m), total);
  }
}

template <int KIND, class Type>
void reduce_of_power(ConstColumns x, int64_t column, const Choices<double>& c,
                     PairState<double>& total) {
  switch (power_of(c.logit_scale, c.soft_scale)) {
    case 1: return reduce_typed<KIND, 1, Type>(x, column, c, total);
    case 2: return reduce_typed<KIND, 2, Type>(x, column, c, total);
    case 3: return reduce_typed<KIND, 3, Type>(x, column, c, total);
    case 4: return reduce_typed<KIND, 4, Type>(x, column, c, total);
    default: return reduce_typed<KIND, 0, Type>(x, column, c, total);
  }
}

// none and mmd sum the same: nothing but what the softened answers' maxima and totals need.
template <class Type>
void reduce_of_kind(ConstColumns x, int64_t column, const Choices<double>& c,
                    PairState<double>& total) {
  switch (c.kind) {
    case kKl: return reduce_of_power<kKl, Type>(x, column, c, total);
    case kCe: return reduce_of_power<kCe, Type>(x, column, c, total);
    default: return reduce_of_power<kNone, Type>(x, column, c, total);
  }
}

template <class Type>
void mmd_typed(ConstColumns x, const RowStats<double>& stats, double soft_scale, double* sum1,
               double* sum2) {
  using R = typename Type::Real;
  const RowStats<R> narrow{converted<R>(stats.first), converted<R>(stats.second)};
  const R scale = R(soft_scale);
  R buffer1[kBlock], buffer2[kBlock];
  for (int64_t at = 0; at < x.count; at += kBlock) {
    const int64_t n = x.count - at < kBlock ? x.count - at : kBlock;
    const R* x1 = Type::load(x.first, at, n, buffer1);
    const R* x2 = Type::load(x.second, at, n, buffer2);
    R part1 = 0, part2 = 0;
#pragma omp simd reduction(+ : part1, part2)
    for (int64_t i = 0; i < n; ++i)
      mmd_terms<PolynomialExp>(narrow, x1[i], x2[i], scale, part1, part2);
    *sum1 += part1;
    *sum2 += part2;
  }
}

template <int KIND, int POWER, class R>
void block_gradient(const R* z1, const R* z2, int64_t n, const PairGradient<R>& g, R* d1, R* d2) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    R a, b;
    if (POWER) {
      column_gradient_raised<PolynomialExp, POWER>(KIND, g, z1[i], z2[i], a, b);
    } else {
      column_gradient<PolynomialExp>(KIND, g, z1[i], z2[i], a, b);
    }
    d1[i] = a;
    d2[i] = b;
  }
}

template <int KIND, int POWER, class Type>
void gradient_typed(ConstColumns z, Columns out, const PairGradient<double>& wide) {
  using R = typename Type::Real;
  const PairGradient<R> g = converted<R>(wide);
  R in1[kBlock], in2[kBlock], out1[kBlock], out2[kBlock];
  for (int64_t at = 0; at < z.count; at += kBlock) {
    const int64_t n = z.count - at < kBlock ? z.count - at : kBlock;
    const R* z1 = Type::load(z.first, at, n, in1);
    const R* z2 = Type::load(z.second, at, n, in2);
    R* d1 = Type::destination(out.first, at, out1);
    R* d2 = Type::destination(out.second, at, out2);
    block_gradient<KIND, POWER>(z1, z2, n, g, d1, d2);
    Type::store(d1, n, out.first, at);
    Type::store(d2, n, out.second, at);
  }
}

template <int KIND, class Type>
void gradient_of_power(ConstColumns z, Columns out, const PairGradient<double>& g) {
  PairGradient<double> shared = g;
  const bool possible = shared_shift(shared.first, g.logit_scale) &&
                        shared_shift(shared.second, g.logit_scale);
  switch (possible ? power_of(g.logit_scale, g.soft_scale) : 0) {
    case 1: return gradient_typed<KIND, 1, Type>(z, out, shared);
    case 2: return gradient_typed<KIND, 2, Type>(z, out, shared);
    case 3: return gradient_typed<KIND, 3, Type>(z, out, shared);
    case 4: return gradient_typed<KIND, 4, Type>(z, out, shared);
    default: return gradient_typed<KIND, 0, Type>(z, out, g);
  }
}

template <class Type>
void gradient_of_kind(int kind, ConstColumns z, Columns out, const PairGradient<double>& g) {
  switch (kind) {
    case kKl: return gradient_of_power<kKl, Type>(z, out, g);
    case kCe: return gradient_of_power<kCe, Type>(z, out, g);
    case kMmd: return gradient_of_power<kMmd, Type>(z, out, g);
    default: return gradient_typed<kNone, 0, Type>(z, out, g);
  }
}

void reduce(LogitType type, ConstColumns x, int64_t column, const Choices<double>& c,
            PairState<double>& total) {
  switch (type) {
    case kFloat64: return reduce_of_kind<Double>(x, column, c, total);
    case kFloat16: return reduce_of_kind<Half>(x, column, c, total);
    case kBFloat16: return reduce_of_kind<BFloat>(x, column, c, total);
    default: return reduce_of_kind<Float>(x, column, c, total);
  }
}

void mmd(LogitType type, ConstColumns x, const RowStats<double>& stats, double soft_scale,
         double* sum1, double* sum2) {
  switch (type) {
    case kFloat64: return mmd_typed<Double>(x, stats, soft_scale, sum1, sum2);
    case kFloat16: return mmd_typed<Half>(x, stats, soft_scale, sum1, sum2);
    case kBFloat16: return mmd_typed<BFloat>(x, stats, soft_scale, sum1, sum2);
    default: return mmd_typed<Float>(x, stats, soft_scale, sum1, sum2);
  }
}

void gradient(LogitType type, int kind, ConstColumns z, Columns out,
              const PairGradient<double>& g) {
  switch (type) {
    case kFloat64: return gradient_of_kind<Double>(kind, z, out, g);
    case kFloat16: return gradient_of_kind<Half>(kind, z, out, g);
    case kBFloat16: return gradient_of_kind<BFloat>(kind, z, out, g);
    default: return gradient_of_kind<Float>(kind, z, out, g);
  }
}

#define PAIR_LOSS_STRING2(x) #x
#define PAIR_LOSS_STRING(x) PAIR_LOSS_STRING2(x)

}  // namespace

extern const CpuTable table;
const CpuTable table{PAIR_LOSS_STRING(PAIR_LOSS_ISA), reduce, mmd, gradient};

}  // namespace PAIR_LOSS_ISA
}  // namespace pairdistill
