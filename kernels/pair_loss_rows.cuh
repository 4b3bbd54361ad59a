// How CUDA threads walk over the rows of a pair: which columns are whose, loads, stores and types.
#pragma once

#include <cstring>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "pair_loss.h"
#include "pair_loss_plan.h"

namespace pairdistill {
namespace cuda {
namespace {

// The type to compute with.
template <class T> struct RealOf { using type = float; };
template <> struct RealOf<double> { using type = double; };
template <class T> using Real = typename RealOf<T>::type;

__device__ __forceinline__ double widen(double z) { return z; }
__device__ __forceinline__ float widen(float z) { return z; }
__device__ __forceinline__ float widen(__half z) { return __half2float(z); }
__device__ __forceinline__ float widen(__nv_bfloat16 z) { return __bfloat162float(z); }

template <class T> __device__ __forceinline__ T narrow(Real<T> z) { return T(z); }
template <> __device__ __forceinline__ __half narrow<__half>(float z) { return __float2half_rn(z); }
template <> __device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float z) {
  return __float2bfloat16_rn(z);
}

// A run: 16 bytes of a row, loaded and stored as one.
template <class T> constexpr int kColumns = int(kRunBytes / sizeof(T));
template <class T>
struct alignas(16) Run {
  T value[kColumns<T>];
};

// Columns that are worked on at once: half a run of 16-bit numbers, so that registers suffice.
template <class T> constexpr int kStep = kColumns<T> < 4 ? kColumns<T> : 4;
template <class T> constexpr int kSteps = kColumns<T> / kStep<T>;

// The columns of a step, taken out of a run and put into it.
template <class T>
struct Columns {
  T value[kStep<T>];
};
template <class T>
__device__ __forceinline__ Columns<T> columns_of(const Run<T>& run, int step) {
  Columns<T> both[kSteps<T>];
  memcpy(both, &run, sizeof run);
  if (kSteps<T> == 1) return both[0];
  uint2 half[2];
  memcpy(half, &run, sizeof half);
  const uint2 bits{step ? half[1].x : half[0].x, step ? half[1].y : half[0].y};
  memcpy(both, &bits, sizeof bits);
  return both[0];
}
template <class T>
__device__ __forceinline__ void put_columns(const Columns<T>& columns, int step, Run<T>& run) {
  if (kSteps<T> == 1) {
    memcpy(&run, &columns, sizeof columns);
    return;
  }
  uint2 half[2], bits;
  memcpy(half, &run, sizeof half);
  memcpy(&bits, &columns, sizeof columns < sizeof bits ? sizeof columns : sizeof bits);
  half[0] = uint2{step ? half[0].x : bits.x, step ? half[0].y : bits.y};
  half[1] = uint2{step ? bits.x : half[1].x, step ? bits.y : half[1].y};
  memcpy(&run, half, sizeof half);
}

template <class T>
__device__ __forceinline__ void widen_step(const Run<T>& run, int step, Real<T> (&out)[kStep<T>]) {
  const Columns<T> columns = columns_of(run, step);
#pragma unroll
  for (int i = 0; i < kStep<T>; ++i) out[i] = widen(columns.value[i]);
}
template <class T>
__device__ __forceinline__ void narrow_step(const Real<T> (&in)[kStep<T>], int step, Run<T>& run) {
  Columns<T> columns;
#pragma unroll
  for (int i = 0; i < kStep<T>; ++i) columns.value[i] = narrow<T>(in[i]);
  put_columns(columns, step, run);
}

template <class T>
__device__ __forceinline__ int misalignment(const T* address) {
  return int((reinterpret_cast<uintptr_t>(address) % kRunBytes) / sizeof(T));
}

// What every launch needs to know of the scores.
template <class T>
struct Rows {
  const T* first;
  const T* second;
  int64_t stride_first, stride_second, pairs, columns, class_start;
  const int64_t* labels;
};

// The part of a pair that a block works on. Columns are numbered from the boundary of 16 bytes of
// the first row at which the part begins: run r has the columns from r * kColumns on. Of them
// [low, high) exist.
template <class T>
struct Part {
  int64_t row, offset;  // offset: column 0 of the part as a column of the row
  const T* first;
  const T* second;
  int low, high, runs;
  int target;     // column of the target, -1 where it is in another part
  bool together;  // both rows reach a boundary of 16 bytes at the same column

  __device__ Part(const Rows<T>& r, int64_t row, int64_t index, int64_t runs_of_part)
      : row(row) {
    const T* const row1 = r.first + row * r.stride_first;
    const T* const row2 = r.second + row * r.stride_second;
    const int over = misalignment(row1);
    offset = index * runs_of_part * kColumns<T> - over;
    first = row1 + offset;
    second = row2 + offset;
    low = index == 0 ? over : 0;
    const int64_t left = r.columns - offset, whole = runs_of_part * kColumns<T>;
    high = int(left < 0 ? 0 : left < whole ? left : whole);
    runs = (high + kColumns<T> - 1) / kColumns<T>;
    const int64_t at = r.labels[row] - r.class_start - offset;
    target = r.labels[row] >= 0 && at >= low && at < high ? int(at) : -1;
    together = misalignment(row2) == over;
  }

  __device__ bool has(int column) const { return column >= low && column < high; }
  __device__ bool whole(int column, int count) const {
    return column >= low && column + count <= high;
  }
  __device__ bool holds_target(int column, int count) const {
    return unsigned(target - column) < unsigned(count);
  }
};

// 16 bytes that are read for the last time (`LAST`) need not stay in the caches.
template <bool LAST, class T>
__device__ __forceinline__ Run<T> load_whole(const T* address) {
  const uint4* const from = reinterpret_cast<const uint4*>(address);
  const uint4 bits = LAST ? __ldcs(from) : *from;
  Run<T> run;
  memcpy(&run, &bits, sizeof run);
  return run;
}

// A run of one row: at once, or column by column where it is not aligned or not whole; -inf stands
// for columns that do not exist.
template <bool LAST, class T>
__device__ __forceinline__ Run<T> load_run(const Part<T>& part, const T* row, int column,
                                           bool aligned) {
  if (aligned && part.whole(column, kColumns<T>)) return load_whole<LAST>(row + column);
  Run<T> run{};
#pragma unroll 1
  for (int step = 0; step < kSteps<T>; ++step, column += kStep<T>) {
    Columns<T> columns;
#pragma unroll
    for (int i = 0; i < kStep<T>; ++i)
      columns.value[i] =
          part.has(column + i) ? row[column + i] : narrow<T>(minus_infinity<Real<T>>());
    put_columns(columns, step, run);
  }
  return run;
}

template <bool LAST, class T>
__device__ __forceinline__ void load_runs(const Part<T>& part, int run, Run<T>& first,
                                          Run<T>& second) {
  first = load_run<LAST>(part, part.first, run * kColumns<T>, true);
  second = load_run<LAST>(part, part.second, run * kColumns<T>, part.together);
}

// Gradients are written once and not read here: they need not stay in the caches.
template <class T>
__device__ __forceinline__ void store_run(const Part<T>& part, T* row, int column,
                                          const Run<T>& run) {
  if (part.whole(column, kColumns<T>) && misalignment(row) == 0) {
    uint4 bits;
    memcpy(&bits, &run, sizeof bits);
    __stcs(reinterpret_cast<uint4*>(row + column), bits);
    return;
  }
#pragma unroll 1
  for (int step = 0; step < kSteps<T>; ++step, column += kStep<T>) {
    const Columns<T> columns = columns_of(run, step);
#pragma unroll
    for (int i = 0; i < kStep<T>; ++i)
      if (part.has(column + i)) row[column + i] = columns.value[i];
  }
}

// Calls body(run, first, second) for the runs of this thread in ascending order. `load` fetches
// the next run before the body works on this one.
template <class T, class Load, class Body>
__device__ __forceinline__ void for_runs(const Part<T>& part, const Load& load, const Body& body) {
  Run<T> next1{}, next2{};
  if (int(threadIdx.x) < part.runs) load(int(threadIdx.x), next1, next2);
#pragma unroll 1
  for (int run = threadIdx.x; run < part.runs; run += blockDim.x) {
    const Run<T> first = next1, second = next2;
    const int next = run + blockDim.x;
    if (next < part.runs) load(next, next1, next2);
    body(run, first, second);
  }
}

}  // namespace
}  // namespace cuda
}  // namespace pairdistill
