// The CUDA kernels: what one thread does. `pair_loss.cu` launches them and says in which order.
#pragma once

#include <cassert>

#include "pair_loss_rows.cuh"

namespace pairdistill {
namespace cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp;
constexpr unsigned kAllLanes = 0xffffffffu;

struct DeviceExp {
  static __device__ __forceinline__ float of(float x) { return exp_of(x); }
  static __device__ __forceinline__ double of(double x) { return exp_of(x); }
};

// Adds V columns to a thread's state; the target's is left out.
template <int V, class R>
__device__ __forceinline__ void accumulate(PairState<R>& state, const R (&z1)[V], const R (&z2)[V],
                                           int64_t column, int64_t label, const Choices<R>& c) {
  R m1 = state.first.m, m2 = state.second.m;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    if (column + i == label) continue;
    if (z1[i] > m1) m1 = z1[i], state.first.top = column + i;
    if (z2[i] > m2) m2 = z2[i], state.second.top = column + i;
  }
  rebase(state, m1, m2, c);
  const R low = minus_infinity<R>();
  const R base1 = m1 == low ? R(0) : m1, base2 = m2 == low ? R(0) : m2;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    if (column + i == label) continue;
    const R x1 = z1[i] - base1, x2 = z2[i] - base2;
    state.first.s += DeviceExp::of(x1);
    state.second.s += DeviceExp::of(x2);
    state.first.sum += z1[i];
    state.second.sum += z2[i];
    if (c.kind == kNone) continue;
    const R soft1 = DeviceExp::of(x1 * c.inv_temperature);
    const R soft2 = DeviceExp::of(x2 * c.inv_temperature);
    state.first.t += soft1;
    state.second.t += soft2;
    if (c.kind == kMmd) continue;
    R x, y;
    factors(c.kind, z1[i], z2[i], base1, base2, c.inv_temperature, x, y);
    state.first.a += guarded(soft1, x);
    state.second.a += guarded(soft2, y);
  }
}

template <class R>
__device__ __forceinline__ Side<R> from_lane_below(const Side<R>& side, int offset) {
  return Side<R>{__shfl_down_sync(kAllLanes, side.m, offset),
                 __shfl_down_sync(kAllLanes, side.s, offset),
                 __shfl_down_sync(kAllLanes, side.t, offset),
                 __shfl_down_sync(kAllLanes, side.a, offset),
                 __shfl_down_sync(kAllLanes, side.sum, offset),
                 int64_t(__shfl_down_sync(kAllLanes, (long long)side.top, offset))};
}

// The states of a warp merged into its first lane, as a tree of fixed shape.
template <class R>
__device__ __forceinline__ void merge_warp(PairState<R>& state, const Choices<R>& c) {
#pragma unroll 1
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const PairState<R> other{from_lane_below(state.first, offset),
                             from_lane_below(state.second, offset)};
    merge(state, other, c);
  }
}

// The states of a block merged into its first thread.
template <class R>
__device__ __forceinline__ void merge_block(PairState<R>& state, const Choices<R>& c) {
  __shared__ PairState<R> of_warp[kWarps];
  merge_warp(state, c);
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = state;
  __syncthreads();
  if (threadIdx.x >= kWarp) return;
  state = threadIdx.x < kWarps ? of_warp[threadIdx.x] : empty_state<R>();
  merge_warp(state, c);
}

// Launch 1 of forward: the state of each part.
template <class T>
__global__ void __launch_bounds__(kThreads)
    reduce_parts(Rows<T> rows, Choices<Real<T>> c, PairState<Real<T>>* parts) {
  using R = Real<T>;
  const Part<T> part(rows);
  if (part.label < 0) return;
  const bool common = misalignment(part.first) == misalignment(part.second);
  PairState<R> state = empty_state<R>();
  for_columns(part.first, part.from, part.to, common, [&](int64_t column, auto width) {
    constexpr int V = decltype(width)::value;
    R z1[V], z2[V];
    load<V>(part.first + column, z1);
    load<V>(part.second + column, z2);
    accumulate<V>(state, z1, z2, column, part.label, c);
  });
  merge_block(state, c);
  if (threadIdx.x == 0) parts[part.row * rows.splits + part.split] = state;
}

template <class R>
struct Values {
  R* ce_first;
  R* ce_second;
  R* similarity;
  int64_t* top_first;
  int64_t* top_second;
  RowStats<R>* stats;

  __device__ void write(int64_t row, const RowValues<R>& values, const RowStats<R>& row_stats) {
    ce_first[row] = values.ce_first;
    ce_second[row] = values.ce_second;
    similarity[row] = values.similarity;
    top_first[row] = values.top_first;
    top_second[row] = values.top_second;
    stats[row] = row_stats;
  }
};

// Launch 2 of forward: one thread a pair merges its parts in order and finishes the row.
template <class T>
__global__ void __launch_bounds__(kThreads)
    finish_rows(Rows<T> rows, Choices<Real<T>> c, const PairState<Real<T>>* parts,
                Values<Real<T>> out) {
  using R = Real<T>;
  const int64_t row = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= rows.pairs) return;
  const int64_t label = rows.labels[row];
  assert(label >= -1 && label < rows.classes && "pair_loss: a label is out of range");
  RowStats<R> stats{};
  if (label < 0) {
    out.write(row, RowValues<R>{R(0), R(0), R(0), -1, -1}, stats);
    return;
  }
  PairState<R> state = parts[row * rows.splits];
#pragma unroll 1
  for (int split = 1; split < rows.splits; ++split)
    merge(state, parts[row * rows.splits + split], c);
  const R z1 = widen(rows.first[row * rows.stride_first + label]);
  const R z2 = widen(rows.second[row * rows.stride_second + label]);
  const R target1 = rows.target_first ? rows.target_first[row] : z1;
  const R target2 = rows.target_second ? rows.target_second[row] : z2;
  const RowValues<R> values =
      finish(state, z1, z2, target1, target2, label, rows.classes, c, stats);
  out.write(row, values, stats);
}

template <class R>
__device__ __forceinline__ R sum_block(R value, R* of_warp) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    value += __shfl_down_sync(kAllLanes, value, offset);
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = value;
  __syncthreads();
  R total = R(0);
  for (int warp = 0; warp < kWarps; ++warp) total += of_warp[warp];
  return total;
}

// Launch 3 of forward, mmd only: sum p (p - q) and sum q (q - p) of each part.
template <class T>
__global__ void __launch_bounds__(kThreads)
    mmd_parts(Rows<T> rows, Real<T> inv_temperature, const RowStats<Real<T>>* stats,
              Real<T>* parts) {
  using R = Real<T>;
  __shared__ R of_warp1[kWarps], of_warp2[kWarps];
  const Part<T> part(rows);
  if (part.label < 0) return;
  const RowStats<R> row_stats = stats[part.row];
  const bool common = misalignment(part.first) == misalignment(part.second);
  R sum1 = R(0), sum2 = R(0);
  for_columns(part.first, part.from, part.to, common, [&](int64_t column, auto width) {
    constexpr int V = decltype(width)::value;
    R z1[V], z2[V];
    load<V>(part.first + column, z1);
    load<V>(part.second + column, z2);
#pragma unroll
    for (int i = 0; i < V; ++i)
      mmd_terms<DeviceExp>(row_stats, z1[i], z2[i], inv_temperature, sum1, sum2);
  });
  sum1 = sum_block(sum1, of_warp1);
  sum2 = sum_block(sum2, of_warp2);
  if (threadIdx.x != 0) return;
  parts[2 * (part.row * rows.splits + part.split)] = sum1;
  parts[2 * (part.row * rows.splits + part.split) + 1] = sum2;
}

// Launch 4 of forward, mmd only: the parts of a pair added in order.
template <class R>
__global__ void __launch_bounds__(kThreads)
    mmd_rows(const int64_t* labels, int64_t pairs, int splits, R scale, const R* parts,
             Values<R> out) {
  const int64_t row = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= pairs || labels[row] < 0) return;
  R sum1 = R(0), sum2 = R(0);
  for (int split = 0; split < splits; ++split) {
    sum1 += parts[2 * (row * splits + split)];
    sum2 += parts[2 * (row * splits + split) + 1];
  }
  out.stats[row].first.mean = sum1;
  out.stats[row].second.mean = sum2;
  out.similarity[row] = scale * (sum1 + sum2);
}

template <class T>
struct Gradients {
  const Real<T>* up_first;
  const Real<T>* up_second;
  const Real<T>* up_similarity;
  const RowStats<Real<T>>* stats;
  T* first;
  T* second;
  Real<T>* target_first;
  Real<T>* target_second;
  bool keep_first, keep_second;
};

// Backward: the gradients of each part, from the statistics of its row.
template <class T>
__global__ void __launch_bounds__(kThreads)
    gradient_parts(Rows<T> rows, Choices<Real<T>> c, Gradients<T> grads) {
  using R = Real<T>;
  const Part<T> part(rows);
  T* out1 = grads.first + part.row * rows.classes;
  T* out2 = grads.second + part.row * rows.classes;
  const bool ignored = part.label < 0, margin = rows.target_first != nullptr;
  const int64_t row = part.row;
  PairGradient<R> g{};
  if (!ignored)
    g = row_gradient(grads.stats[row], grads.up_first[row], grads.up_second[row],
                     grads.up_similarity[row], grads.keep_first, grads.keep_second, rows.classes,
                     c);
  if (margin && part.split == 0 && threadIdx.x == 0) {
    grads.target_first[row] = g.first.at_target;
    grads.target_second[row] = g.second.at_target;
  }
  const int over = misalignment(part.first);
  const bool common = over == misalignment(part.second) && over == misalignment(out1) &&
                      over == misalignment(out2);
  for_columns(part.first, part.from, part.to, common, [&](int64_t column, auto width) {
    constexpr int V = decltype(width)::value;
    R z1[V], z2[V], d1[V], d2[V];
    load<V>(part.first + column, z1);
    load<V>(part.second + column, z2);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      if (ignored) {
        d1[i] = d2[i] = R(0);
      } else if (column + i == part.label) {
        soft_gradient<DeviceExp>(c.kind, g, z1[i], z2[i], d1[i], d2[i]);
        d1[i] += margin ? R(0) : g.first.at_target;
        d2[i] += margin ? R(0) : g.second.at_target;
      } else {
        column_gradient<DeviceExp>(c.kind, g, z1[i], z2[i], d1[i], d2[i]);
      }
    }
    store<V>(out1 + column, d1);
    store<V>(out2 + column, d2);
  });
}

}  // namespace
}  // namespace cuda
}  // namespace pairdistill
