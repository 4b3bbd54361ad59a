// How CUDA threads walk over the rows of a pair: which columns are whose, loads, stores and types.
#pragma once

#include <type_traits>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "pair_loss.h"

namespace pairdistill {
namespace cuda {
namespace {

constexpr int kThreads = 256;

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

// What every launch needs to know of the inputs.
template <class T>
struct Rows {
  const T* first;
  const T* second;
  int64_t stride_first, stride_second, pairs, classes;
  const int64_t* labels;
  const Real<T>* target_first;
  const Real<T>* target_second;
  int splits;
  int64_t columns;  // columns of a block
};

// The part of a pair that a block works on.
template <class T>
struct Part {
  int64_t row, split, from, to, label;
  const T* first;
  const T* second;

  __device__ explicit Part(const Rows<T>& r)
      : row(blockIdx.x / r.splits), split(blockIdx.x % r.splits) {
    from = split * r.columns;
    to = from + r.columns < r.classes ? from + r.columns : r.classes;
    label = r.labels[row];
    first = r.first + row * r.stride_first;
    second = r.second + row * r.stride_second;
  }
};

// V numbers that are loaded and stored as one.
template <class T, int V>
struct alignas(sizeof(T) * V) Pack {
  T value[V];
};

template <class T>
__device__ __forceinline__ int misalignment(const T* address) {
  return int((reinterpret_cast<uintptr_t>(address) % 16) / sizeof(T));
}

// Calls body(column, width) for runs of columns of [from, to) that this thread owns, in ascending
// order: runs of 16 bytes where `common` says that all rows reach a 16-byte boundary at the same
// column, single columns at the ends and everywhere else.
template <class T, class Body>
__device__ __forceinline__ void for_columns(const T* row, int64_t from, int64_t to, bool common,
                                            const Body& body) {
  constexpr int V = 16 / sizeof(T);
  using One = std::integral_constant<int, 1>;
  using Many = std::integral_constant<int, V>;
  const int over = misalignment(row + from);
  int64_t start = common ? from + (over ? V - over : 0) : to;
  start = start < to ? start : to;
  const int64_t stop = start + (to - start) / V * V;
  for (int64_t c = from + threadIdx.x; c < start; c += kThreads) body(c, One());
  for (int64_t c = start + int64_t(threadIdx.x) * V; c < stop; c += int64_t(kThreads) * V)
    body(c, Many());
  for (int64_t c = stop + threadIdx.x; c < to; c += kThreads) body(c, One());
}

template <int V, class T>
__device__ __forceinline__ void load(const T* address, Real<T> (&out)[V]) {
  const Pack<T, V> pack = *reinterpret_cast<const Pack<T, V>*>(address);
#pragma unroll
  for (int i = 0; i < V; ++i) out[i] = widen(pack.value[i]);
}

template <int V, class T>
__device__ __forceinline__ void store(T* address, const Real<T> (&in)[V]) {
  Pack<T, V> pack;
#pragma unroll
  for (int i = 0; i < V; ++i) pack.value[i] = narrow<T>(in[i]);
  *reinterpret_cast<Pack<T, V>*>(address) = pack;
}

}  // namespace
}  // namespace cuda
}  // namespace pairdistill
