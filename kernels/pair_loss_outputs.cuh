// What kernels read of margins and upstream gradients and write of the rows' results.
#pragma once

#include <cassert>

#include "pair_loss_merge.cuh"

namespace pairdistill {
namespace cuda {
namespace {

// Results of the rows; null pointers are not written.
template <class R>
struct Results {
  R* values;
  R* extras;
  int64_t* tops;
  R* stats;

  __device__ void put(int64_t row, const RowValues<R>& v) const {
    R* const value = values + kValuesOfRow * row;
    R* const extra = extras + kExtrasOfRow * row;
    value[0] = v.ce_first, value[1] = v.ce_second, value[2] = v.similarity;
    extra[0] = v.entropy_first, extra[1] = v.entropy_second;
    extra[2] = v.p_first, extra[3] = v.p_second;
    tops[2 * row] = v.top_first, tops[2 * row + 1] = v.top_second;
  }
  __device__ void put_similarity(int64_t row, R similarity) const {
    values[kValuesOfRow * row + 2] = similarity;
  }
  __device__ void put_stats(int64_t row, const RowStats<R>& s) const {
    if (stats) reinterpret_cast<RowStats<R>*>(stats)[row] = s;
  }
  __device__ void put_ignored(int64_t row) const {
    put(row, ignored_values<R>());
    put_stats(row, RowStats<R>{});
  }
};

// A row of a table of margins; null where there is no table.
template <class R>
__device__ __forceinline__ const R* row_margins(const R* margins, int64_t row) {
  return margins ? margins + kMarginsOfRow * row : nullptr;
}

// Those of one row, read early: while states are merged, nothing else is under way.
template <class R>
struct RowUpstream {
  R first, second, similarity;

  __device__ PairGradient<R> gradient(const RowStats<R>& stats, int64_t classes,
                                      const Choices<R>& c) const {
    return row_gradient(stats, first, second, similarity, classes, c);
  }
};

// The upstream gradients of a row's values: given one by one, or weights of a total.
template <class R>
struct Upstream {
  const R* values;   // (B, 3), or null: the total's
  const R* weights;  // (B,), or null: 1
  const R* factor;   // of every weight: 1 / their sum for the mean; or null: 1
  R ce, similarity;

  __device__ R share(int64_t row) const {
    const R weight = weights ? weights[row] : R(1);
    return factor ? weight * *factor : weight;
  }
  __device__ RowUpstream<R> of_row(int64_t row) const {
    if (values) return RowUpstream<R>{values[3 * row], values[3 * row + 1], values[3 * row + 2]};
    const R part = share(row);
    return RowUpstream<R>{part * ce, part * ce, part * similarity};
  }
};

// Where gradients go; null: nowhere.
template <class T>
struct Destination {
  T* first;
  T* second;
  int64_t stride_first, stride_second;

  __device__ T* row_first(const Part<T>& part) const {
    return first + part.row * stride_first + part.offset;
  }
  __device__ T* row_second(const Part<T>& part) const {
    return second + part.row * stride_second + part.offset;
  }
};

// The rows of a part's gradients, and whether they can be written 16 bytes at once.
template <class T>
struct GradientPart {
  const Part<T>& part;
  T* const first;
  T* const second;
  const bool aligned;

  __device__ GradientPart(const Part<T>& part, const Destination<T>& out)
      : part(part),
        first(by_itself(out.row_first(part))),
        second(by_itself(out.row_second(part))),
        aligned(misalignment(first) == 0 && misalignment(second) == 0) {}

  __device__ __forceinline__ void store(int run, const Run<T>& run1, const Run<T>& run2) const {
    if (aligned && part.has_run(run)) {
      store_whole(first, run, run1);
      store_whole(second, run, run2);
    } else {
      store_by_columns(part, first, run, run1);
      store_by_columns(part, second, run, run2);
    }
  }
};

// No gradient reaches an ignored pair, whatever its scores are.
template <class T>
__device__ __forceinline__ void clear_part(const Part<T>& part, const Destination<T>& out) {
  const GradientPart<T> to(part, out);
  for (int run = threadIdx.x; run < part.runs; run += blockDim.x) to.store(run, Run<T>{}, Run<T>{});
}

// Writes the gradients of a part, whose runs sweep(body) goes over. What they are made of is in
// `shared`.
template <class T, class Sweep>
__device__ __forceinline__ void write_gradients(const Part<T>& part, const Destination<T>& out,
                                                int kind, const Shared<Real<T>>& shared,
                                                const Sweep& sweep) {
  const GradientPart<T> to(part, out);
  const Coefficients<Real<T>> coefficients = shared.coefficients;
  sweep([&](int run, Run<T> first, Run<T> second) {
    run_gradient(kind, part, shared.gradient, coefficients, run, first, second);
    to.store(run, first, second);
  });
}

// What `write_gradients` reads; by one thread.
template <class T, class R>
__device__ __forceinline__ void share_gradient(Shared<R>& shared, const PairGradient<R>& gradient,
                                               int kind) {
  shared.gradient = in_units(gradient, kind);
  Coefficients<R> coefficients(shared.gradient, kind);
  if (sizeof(T) == 2 && (kind == kKl || kind == kCe)) coefficients.take_powers();
  if (sizeof(T) == 2 && kind == kKl) coefficients.take_differences();
  shared.coefficients = coefficients;
}

// mmd's second sweep over a part.
template <class T, class Sweep>
__device__ __forceinline__ void add_mmd_terms(const RowStats<Real<T>>& stats, Real<T> soft_scale,
                                              const Sweep& sweep, Real<T>& sum1, Real<T>& sum2) {
  const Real<T> units = soft_scale * Units<Real<T>>::of_nat;
  sweep([&](int, const Run<T>& first, const Run<T>& second) {
    Real<T> x1[kColumns<T>], x2[kColumns<T>];
    widen_run(first, x1);
    widen_run(second, x2);
#pragma unroll
    for (int i = 0; i < kColumns<T>; ++i)
      mmd_terms<UnitExp>(stats, x1[i], x2[i], units, sum1, sum2);
  });
}

// A label out of range stops the device with a message; nobody waits for it.
__device__ __forceinline__ void check_label(int64_t label, int64_t classes) {
  assert(label >= -1 && label < classes && "pair_loss: a label is out of range");
}

}  // namespace
}  // namespace cuda
}  // namespace pairdistill
