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

// A run: 16 bytes of a row, loaded and stored as one. It is held as words: of 16-bit numbers a
// compiler would give each a register.
template <class T> constexpr int kColumns = int(kRunBytes / sizeof(T));
template <class T>
struct alignas(16) Run {
  uint32_t word[kRunBytes / sizeof(uint32_t)];
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

// A whole run at once. bfloat16 is the upper half of a float: one operation a number where it is
// taken from the run's words.
template <class T>
__device__ __forceinline__ void widen_run(const Run<T>& run, Real<T> (&out)[kColumns<T>]) {
#pragma unroll
  for (int i = 0; i < kColumns<T>; ++i) {
    T value;
    memcpy(&value, reinterpret_cast<const unsigned char*>(run.word) + i * sizeof value,
           sizeof value);
    out[i] = widen(value);
  }
}
__device__ __forceinline__ void widen_run(const Run<__nv_bfloat16>& run, float (&out)[8]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t bits[2] = {run.word[i] << 16, run.word[i] & 0xffff0000u};
    memcpy(&out[2 * i], bits, sizeof bits);
  }
}
template <class T>
__device__ __forceinline__ void narrow_run(const Real<T> (&in)[kColumns<T>], Run<T>& run) {
  T values[kColumns<T>];
#pragma unroll
  for (int i = 0; i < kColumns<T>; ++i) values[i] = narrow<T>(in[i]);
  memcpy(&run, values, sizeof run);
}
// Two numbers at a time become a word; a compiler would take words apart and together again.
__device__ __forceinline__ void narrow_run(const float (&in)[8], Run<__half>& run) {
  __half2 words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) words[i] = __floats2half2_rn(in[2 * i], in[2 * i + 1]);
  memcpy(&run, words, sizeof run);
}
__device__ __forceinline__ void narrow_run(const float (&in)[8], Run<__nv_bfloat16>& run) {
  __nv_bfloat162 words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) words[i] = __floats2bfloat162_rn(in[2 * i], in[2 * i + 1]);
  memcpy(&run, words, sizeof run);
}

template <class T>
__device__ __forceinline__ int misalignment(const T* address) {
  return int((reinterpret_cast<uintptr_t>(address) % kRunBytes) / sizeof(T));
}

// A number or an address that is to be kept as one: a compiler would take it apart again, or put together
// what is to stay apart.
template <class V>
__device__ __forceinline__ V by_itself(V value) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(V) == 8) {
    asm("" : "+l"(value));
  } else {
    asm("" : "+r"(value));
  }
#endif
  return value;
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
  int first_whole, whole_runs;  // the runs of which all columns exist
  int target, target_run;       // column and run of the target, -1 where it is in another part
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
    runs = run_of(high + kColumns<T> - 1);
    first_whole = low > 0 ? 1 : 0;
    whole_runs = run_of(high) > first_whole ? run_of(high) - first_whole : 0;
    const int64_t at = r.labels[row] - r.class_start - offset;
    target = r.labels[row] >= 0 && at >= low && at < high ? int(at) : -1;
    target_run = run_of(target);
    together = misalignment(row2) == over;
  }

  // As a shift, for -1 too: where registers are few, it is done again for every run.
  static __device__ int run_of(int column) {
    return column >> (kColumns<T> == 8 ? 3 : kColumns<T> == 4 ? 2 : 1);
  }
  __device__ bool has(int column) const { return column >= low && column < high; }
  // Whether all columns of a run exist, and whether the target is one of them.
  __device__ bool has_run(int run) const {
    return unsigned(run - first_whole) < unsigned(whole_runs);
  }
  __device__ bool holds_target(int run) const { return run == target_run; }
};

// A run of one row column by column, where it is not aligned or not whole; -inf stands for columns
// that do not exist.
template <class T>
__device__ __forceinline__ void load_by_columns(const Part<T>& part, const T* row, int column,
                                                Run<T>& run) {
  T* const to = reinterpret_cast<T*>(run.word);
#pragma unroll 1
  for (int i = 0; i < kColumns<T>; ++i, ++column)
    to[i] = part.has(column) ? row[column] : narrow<T>(minus_infinity<Real<T>>());
}

// Gradients are written once and not read here: they need not stay in the caches.
template <class T>
__device__ __forceinline__ void store_whole(T* row, int run, const Run<T>& values) {
  uint4 bits;
  memcpy(&bits, &values, sizeof bits);
  __stcs(reinterpret_cast<uint4*>(row) + run, bits);
}

// A run that is not whole, or in a row that is not aligned.
template <class T>
__device__ __forceinline__ void store_by_columns(const Part<T>& part, T* row, int run,
                                                 const Run<T>& values) {
  int column = run * kColumns<T>;
#pragma unroll 1
  for (int step = 0; step < kSteps<T>; ++step, column += kStep<T>) {
    const Columns<T> columns = columns_of(values, step);
#pragma unroll
    for (int i = 0; i < kStep<T>; ++i)
      if (part.has(column + i)) row[column + i] = columns.value[i];
  }
}

}  // namespace
}  // namespace cuda
}  // namespace pairdistill
