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

// The same constants in the type of the arithmetic.
template <class R>
Choices<R> narrowed(const Choices<double>& c) {
  return Choices<R>{c.kind,       R(c.inv_temperature), R(c.forward),
                    R(c.reverse), R(c.scale),           R(c.smoothing)};
}

Side<double> widened(const Side<float>& s) {
  return Side<double>{s.m, s.s, s.t, s.a, s.sum, s.top};
}
Side<double> widened(const Side<double>& s) { return s; }

template <class R>
R maximum(const R* z, int64_t n) {
  R m = minus_infinity<R>();
#pragma omp simd reduction(max : m)
  for (int64_t i = 0; i < n; ++i) m = larger(m, z[i]);
  return m;
}

template <class R>
int64_t first_equal(const R* z, int64_t n, R value) {
  for (int64_t i = 0; i < n; ++i)
    if (z[i] == value) return i;
  return kNoColumn;
}

// One block relative to its own maxima; where they are -inf, relative to 0, so that no column
// makes a NaN that was not there.
template <int KIND, int POWER, class R>
PairState<R> block_sums(const R* z1, const R* z2, int64_t n, const Choices<R>& c) {
  PairState<R> out = empty_state<R>();
  out.first.m = maximum(z1, n);
  out.second.m = maximum(z2, n);
  const R m1 = out.first.m == minus_infinity<R>() ? R(0) : out.first.m;
  const R m2 = out.second.m == minus_infinity<R>() ? R(0) : out.second.m;
  const R inv_t = c.inv_temperature;
  R s1 = 0, s2 = 0, t1 = 0, t2 = 0, a1 = 0, a2 = 0, sum1 = 0, sum2 = 0;
#pragma omp simd reduction(+ : s1, s2, t1, t2, a1, a2, sum1, sum2)
  for (int64_t i = 0; i < n; ++i) {
    const R x1 = z1[i] - m1, x2 = z2[i] - m2;
    const R xs1 = x1 * inv_t, xs2 = x2 * inv_t;
    const R soft1 = KIND == kNone ? R(0) : PolynomialExp::of(xs1);
    const R soft2 = KIND == kNone ? R(0) : PolynomialExp::of(xs2);
    s1 += POWER ? raised<POWER>(soft1, x1, xs1) : PolynomialExp::of(x1);
    s2 += POWER ? raised<POWER>(soft2, x2, xs2) : PolynomialExp::of(x2);
    sum1 += z1[i];
    sum2 += z2[i];
    if (KIND != kNone) {
      t1 += soft1;
      t2 += soft2;
      if (KIND != kMmd) {
        R x, y;
        factors(KIND, z1[i], z2[i], m1, m2, inv_t, x, y);
        a1 += guarded(soft1, x);
        a2 += guarded(soft2, y);
      }
    }
  }
  out.first = Side<R>{out.first.m, s1, t1, a1, sum1, kNoColumn};
  out.second = Side<R>{out.second.m, s2, t2, a2, sum2, kNoColumn};
  return out;
}

template <int KIND, class R>
PairState<R> block_state(int power, const R* z1, const R* z2, int64_t n, const Choices<R>& c) {
  switch (power) {
    case 1: return block_sums<KIND, 1>(z1, z2, n, c);
    case 2: return block_sums<KIND, 2>(z1, z2, n, c);
    case 3: return block_sums<KIND, 3>(z1, z2, n, c);
    case 4: return block_sums<KIND, 4>(z1, z2, n, c);
    default: return block_sums<KIND, 0>(z1, z2, n, c);
  }
}

template <class R>
PairState<R> block_state_of(int power, const R* z1, const R* z2, int64_t n,
                            const Choices<R>& c) {
  switch (c.kind) {
    case kKl: return block_state<kKl>(power, z1, z2, n, c);
    case kCe: return block_state<kCe>(power, z1, z2, n, c);
    case kMmd: return block_state<kMmd>(power, z1, z2, n, c);
    default: return block_sums<kNone, 0>(z1, z2, n, c);
  }
}

template <class Type>
PairState<double> reduce_typed(ConstColumns z, int64_t column, const Choices<double>& c) {
  using R = typename Type::Real;
  const Choices<R> narrow = narrowed<R>(c);
  const int power = power_of(c.inv_temperature);
  PairState<double> total = empty_state<double>();
  R buffer1[kBlock], buffer2[kBlock];
  for (int64_t at = 0; at < z.count; at += kBlock) {
    const int64_t n = z.count - at < kBlock ? z.count - at : kBlock;
    const R* z1 = Type::load(z.first, at, n, buffer1);
    const R* z2 = Type::load(z.second, at, n, buffer2);
    const PairState<R> block = block_state_of(power, z1, z2, n, narrow);
    PairState<double> wide{widened(block.first), widened(block.second)};
    if (wide.first.m > total.first.m)
      wide.first.top = column + at + first_equal(z1, n, block.first.m);
    if (wide.second.m > total.second.m)
      wide.second.top = column + at + first_equal(z2, n, block.second.m);
    if (at == 0) {
      total = wide;
    } else {
      merge(total, wide, c);
    }
  }
  return total;
}

template <class R>
SideStats<R> narrowed(const SideStats<double>& s) {
  return SideStats<R>{R(s.ce_shift), R(s.ce_inv_total), R(s.ce_rest),
                      R(s.m),        R(s.inv_t),        R(s.mean)};
}

template <class Type>
void mmd_typed(ConstColumns z, const RowStats<double>& stats, double inv_temperature, double* sum1,
               double* sum2) {
  using R = typename Type::Real;
  const RowStats<R> narrow{narrowed<R>(stats.first), narrowed<R>(stats.second)};
  const R inv_t = R(inv_temperature);
  R buffer1[kBlock], buffer2[kBlock];
  for (int64_t at = 0; at < z.count; at += kBlock) {
    const int64_t n = z.count - at < kBlock ? z.count - at : kBlock;
    const R* z1 = Type::load(z.first, at, n, buffer1);
    const R* z2 = Type::load(z.second, at, n, buffer2);
    R part1 = 0, part2 = 0;
#pragma omp simd reduction(+ : part1, part2)
    for (int64_t i = 0; i < n; ++i)
      mmd_terms<PolynomialExp>(narrow, z1[i], z2[i], inv_t, part1, part2);
    *sum1 += part1;
    *sum2 += part2;
  }
}

template <class R>
SideGradient<R> narrowed(const SideGradient<double>& g) {
  return SideGradient<R>{R(g.ce_shift), R(g.ce),   R(g.flat), R(g.at_target), R(g.m),
                         R(g.inv_t),    R(g.mean), R(g.own),  R(g.cross)};
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
  const PairGradient<R> g{narrowed<R>(wide.first), narrowed<R>(wide.second),
                          R(wide.inv_temperature)};
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
  const bool possible = shared_shift(shared.first) && shared_shift(shared.second);
  switch (possible ? power_of(g.inv_temperature) : 0) {
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

PairState<double> reduce(LogitType type, ConstColumns z, int64_t column,
                         const Choices<double>& c) {
  switch (type) {
    case kFloat64: return reduce_typed<Double>(z, column, c);
    case kFloat16: return reduce_typed<Half>(z, column, c);
    case kBFloat16: return reduce_typed<BFloat>(z, column, c);
    default: return reduce_typed<Float>(z, column, c);
  }
}

void mmd(LogitType type, ConstColumns z, const RowStats<double>& stats, double inv_temperature,
         double* sum1, double* sum2) {
  switch (type) {
    case kFloat64: return mmd_typed<Double>(z, stats, inv_temperature, sum1, sum2);
    case kFloat16: return mmd_typed<Half>(z, stats, inv_temperature, sum1, sum2);
    case kBFloat16: return mmd_typed<BFloat>(z, stats, inv_temperature, sum1, sum2);
    default: return mmd_typed<Float>(z, stats, inv_temperature, sum1, sum2);
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
