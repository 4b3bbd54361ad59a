// How the states and sums of threads, warps and blocks become one, in a fixed order.
#pragma once

#include "pair_loss_gradients.cuh"

namespace pairdistill {
namespace cuda {
namespace {

constexpr int kMostWarps = most_row_threads(4) / kWarp;  // of any block
static_assert(kMostThreads / kWarp <= kMostWarps && kMostWarps <= kWarp, "a warp merges a block");
constexpr unsigned kAllLanes = 0xffffffffu;

// What lane `lane ^ mask` holds, for any structure of 4-byte words.
template <class S>
__device__ __forceinline__ S of_lane(const S& mine, int mask) {
  static_assert(sizeof(S) % sizeof(uint32_t) == 0, "not in words");
  constexpr int kWords = sizeof(S) / sizeof(uint32_t);
  uint32_t words[kWords];
  memcpy(words, &mine, sizeof mine);
#pragma unroll
  for (int i = 0; i < kWords; ++i) words[i] = __shfl_xor_sync(kAllLanes, words[i], mask);
  S other;
  memcpy(&other, words, sizeof other);
  return other;
}

template <class R>
struct Peak {
  R m;
  int64_t top;
};

template <class R>
__device__ __forceinline__ Peak<R> peak_of_warp(Peak<R> peak) {
#pragma unroll 1
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    const Peak<R> other = of_lane(peak, mask);
    if (other.m > peak.m || (other.m == peak.m && other.top < peak.top)) peak = other;
  }
  return peak;
}

// The states of a warp merged, in every lane: first the maxima, then sums relative to them. Each
// step adds the same two numbers in both lanes, so that all lanes end with the same bits.
template <class R>
__device__ __forceinline__ void merge_warp(PairState<R>& state, const Choices<R>& c) {
  const Peak<R> peak1 = peak_of_warp(Peak<R>{state.first.m, state.first.top});
  const Peak<R> peak2 = peak_of_warp(Peak<R>{state.second.m, state.second.top});
  rebase(state, peak1.m, peak2.m, c);
#pragma unroll 1
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    const PairState<R> other = of_lane(state, mask);
    add_side(state.first, other.first);
    add_side(state.second, other.second);
  }
  state.first.top = peak1.top;
  state.second.top = peak2.top;
}

template <class R>
__device__ __forceinline__ R sum_of_warp(R value) {
#pragma unroll
  for (int mask = kWarp / 2; mask > 0; mask /= 2)
    value += __shfl_xor_sync(kAllLanes, value, mask);
  return value;
}

__device__ __forceinline__ int lane() { return threadIdx.x % kWarp; }
__device__ __forceinline__ int warp() { return threadIdx.x / kWarp; }
__device__ __forceinline__ int warps() { return blockDim.x / kWarp; }

// What the threads of a block tell each other.
template <class R>
struct Shared {
  PairState<R> of_warp[kMostWarps], of_block;
  PairGradient<R> gradient;
  Coefficients<R> coefficients;
  RowStats<R> stats;
  R sums_of_warp[kMostWarps][2], sums_of_block[2];
};
static_assert(sizeof(Shared<double>) <= size_t(kHeaderBytes), "kHeaderBytes is too small");

// This lane's column of the step that has the maximum, where `side.top` is the step's class; -1 where
// that is none of the part, or the target.
template <class T>
__device__ __forceinline__ int column_of_lane(const Side<Real<T>>& side, const Part<T>& part,
                                              int64_t class_of_column_0) {
  if (side.top == kNoColumn || lane() >= kColumns<T>) return -1;
  const int column = int(side.top - class_of_column_0) + lane();
  return part.has(column) && column != part.target ? column : -1;
}

// The first columns with the maxima. All lanes of a warp together; both reads at once, as nothing else
// is under way in a block that waits for them.
template <class T>
__device__ __forceinline__ void exact_tops(PairState<Real<T>>& state, const Part<T>& part,
                                           int64_t class_of_column_0) {
  const int column1 = column_of_lane(state.first, part, class_of_column_0);
  const int column2 = column_of_lane(state.second, part, class_of_column_0);
  T x1 = narrow<T>(Real<T>(0)), x2 = x1;
  if (column1 >= 0) x1 = part.first[column1];
  if (column2 >= 0) x2 = part.second[column2];
  int there1 = column1 >= 0 && widen(x1) == state.first.m ? lane() : kWarp;
  int there2 = column2 >= 0 && widen(x2) == state.second.m ? lane() : kWarp;
#pragma unroll
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    const int other1 = __shfl_xor_sync(kAllLanes, there1, mask);
    const int other2 = __shfl_xor_sync(kAllLanes, there2, mask);
    there1 = other1 < there1 ? other1 : there1;
    there2 = other2 < there2 ? other2 : there2;
  }
  if (state.first.top != kNoColumn) state.first.top += there1;
  if (state.second.top != kNoColumn) state.second.top += there2;
}

// The states of a block merged; the result is in the first warp, in every lane.
template <class T, class R>
__device__ __forceinline__ void merge_block(PairState<R>& state, Shared<R>& shared,
                                            const Choices<R>& c, const Part<T>& part,
                                            int64_t class_of_column_0) {
  merge_warp(state, c);
  if (lane() == 0) shared.of_warp[warp()] = state;
  __syncthreads();
  if (warp() != 0) return;
  state = lane() < warps() ? shared.of_warp[lane()] : empty_state<R>();
  merge_warp(state, c);
  exact_tops(state, part, class_of_column_0);
}

// Two sums over a block; the result is in the first warp, in every lane.
template <class R>
__device__ __forceinline__ void sum_block(R& sum1, R& sum2, Shared<R>& shared) {
  sum1 = sum_of_warp(sum1);
  sum2 = sum_of_warp(sum2);
  if (lane() == 0) shared.sums_of_warp[warp()][0] = sum1, shared.sums_of_warp[warp()][1] = sum2;
  __syncthreads();
  if (warp() != 0) return;
  sum1 = sum_of_warp(lane() < warps() ? shared.sums_of_warp[lane()][0] : R(0));
  sum2 = sum_of_warp(lane() < warps() ? shared.sums_of_warp[lane()][1] : R(0));
}

}  // namespace
}  // namespace cuda
}  // namespace pairdistill
