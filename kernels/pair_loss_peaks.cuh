// What is told of the scores of runs before they are widened: whether all are finite, and the largest.
#pragma once

#include <type_traits>

#include "pair_loss_units.cuh"

namespace pairdistill {
namespace cuda {
namespace {

// The words of a run of 16-bit numbers, which are taken two at a time.
template <class T> struct TwoOf;
template <> struct TwoOf<__half> { using type = __half2; };
template <> struct TwoOf<__nv_bfloat16> { using type = __nv_bfloat162; };
template <class T> using Two = typename TwoOf<T>::type;

template <class T>
struct PairsOfRun {
  Two<T> word[4];
  __device__ explicit PairsOfRun(const Run<T>& run) { memcpy(word, &run, sizeof word); }

  __device__ __forceinline__ bool finite_with(const PairsOfRun& other) const {
    Two<T> apart[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) apart[i] = __hsub2(word[i], other.word[i]);
    const Two<T> sum = __hadd2(__hadd2(apart[0], apart[1]), __hadd2(apart[2], apart[3]));
    const Two<T> none = __hsub2(sum, sum);
    return __hbeq2(none, none);
  }
};

// Whether the scores of two runs are finite; false too where the sum of their differences is not.
template <class T>
__device__ __forceinline__ bool are_finite(const Run<T>& first, const Run<T>& second) {
  T x1[kColumns<T>], x2[kColumns<T>];
  memcpy(x1, &first, sizeof first);
  memcpy(x2, &second, sizeof second);
  T sum = x1[0] - x2[0];
#pragma unroll
  for (int i = 1; i < kColumns<T>; ++i) sum += x1[i] - x2[i];
  return sum - sum == T(0);
}
__device__ __forceinline__ bool are_finite(const Run<__half>& first, const Run<__half>& second) {
  return PairsOfRun<__half>(first).finite_with(PairsOfRun<__half>(second));
}
__device__ __forceinline__ bool are_finite(const Run<__nv_bfloat16>& first,
                                           const Run<__nv_bfloat16>& second) {
  return PairsOfRun<__nv_bfloat16>(first).finite_with(PairsOfRun<__nv_bfloat16>(second));
}

template <int V, class R>
__device__ __forceinline__ R highest_of(const R (&x)[V]) {
  R high = x[0];
#pragma unroll
  for (int i = 1; i < V; ++i) high = highest(high, x[i]);
  return high;
}

// The largest scores of both sides.
template <class T>
struct Peaks {
  T one, two;

  __device__ Peaks(T first, T second) : one(first), two(second) {}
  __device__ __forceinline__ Peaks(const Run<T>& first, const Run<T>& second) {
    T x1[kColumns<T>], x2[kColumns<T>];
    memcpy(x1, &first, sizeof first);
    memcpy(x2, &second, sizeof second);
    one = highest_of(x1), two = highest_of(x2);
  }
  __device__ T first() const { return one; }
  __device__ T second() const { return two; }

  // Whether one of them is above its limit.
  __device__ __forceinline__ bool above(const Peaks& limit) const {
    return one > limit.one || two > limit.two;
  }
  // Becomes the larger ones, and says which of them these are.
  __device__ __forceinline__ void take(const Peaks& other, bool& first, bool& second) {
    first = other.one > one, second = other.two > two;
    if (first) one = other.one;
    if (second) two = other.two;
  }
};

__device__ __forceinline__ uint32_t word_of(__half2 two) {
  uint32_t word;
  memcpy(&word, &two, sizeof word);
  return word;
}
__device__ __forceinline__ uint32_t word_of(__nv_bfloat162 two) {
  uint32_t word;
  memcpy(&word, &two, sizeof word);
  return word;
}

// The larger ones of the numbers in two words, and the same numbers without a negative zero. As words
// throughout: a compiler would take numbers apart and put them together again.
template <class T>
__device__ __forceinline__ uint32_t larger_words(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint32_t out;
  if constexpr (std::is_same<T, __half>::value) {
    asm("max.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  } else {
    asm("max.bf16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  }
  return out;
#else
  Two<T> one, other;
  memcpy(&one, &a, sizeof a);
  memcpy(&other, &b, sizeof b);
  return word_of(__hmax2(one, other));
#endif
}
template <class T>
__device__ __forceinline__ uint32_t without_negative_zeros(uint32_t a) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint32_t out;
  if constexpr (std::is_same<T, __half>::value) {
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(0x3c003c00u), "r"(0u));
  } else {
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(0x3f803f80u), "r"(0u));
  }
  return out;
#else
  Two<T> numbers, none{};
  memcpy(&numbers, &a, sizeof a);
  return word_of(__hadd2(numbers, none));
#endif
}

// Of 16-bit scores as one word. No zero is negative: equal numbers have equal bits.
template <class T>
struct PackedPeaks {
  uint32_t bits;  // the first side below

  __device__ PackedPeaks(float first, float second)
      : bits(word_of(Two<T>{rounded_down(first), rounded_down(second)})) {}
  __device__ __forceinline__ PackedPeaks(const Run<T>& first, const Run<T>& second) {
    const uint32_t one = highest(first), two = highest(second);
    bits = without_negative_zeros<T>(
        larger_words<T>(__byte_perm(one, two, 0x5410), __byte_perm(one, two, 0x7632)));
  }
  __device__ float first() const { return number(bits & 0xffffu); }
  __device__ float second() const { return number(bits >> 16); }

  __device__ __forceinline__ bool above(const PackedPeaks& limit) const {
    return larger_words<T>(bits, limit.bits) != limit.bits;
  }
  __device__ __forceinline__ void take(const PackedPeaks& other, bool& first, bool& second) {
    const uint32_t now = larger_words<T>(bits, other.bits), changed = now ^ bits;
    first = (changed & by_itself(0xffffu)) != 0;
    second = (changed & by_itself(0xffff0000u)) != 0;
    bits = now;
  }

 private:
  static __device__ __forceinline__ uint32_t highest(const Run<T>& run) {
    return larger_words<T>(larger_words<T>(run.word[0], run.word[1]),
                           larger_words<T>(run.word[2], run.word[3]));
  }
  static __device__ float number(uint32_t half) {
    const uint16_t bits = uint16_t(half);
    T out;
    memcpy(&out, &bits, sizeof out);
    return widen(out);
  }
  // Exact for what has been a score.
  static __device__ T rounded_down(float x) {
    if constexpr (std::is_same<T, __half>::value) {
      return __float2half_rd(x + 0.0f);
    } else {
      return __float2bfloat16_rd(x + 0.0f);
    }
  }
};
template <>
struct Peaks<__half> : PackedPeaks<__half> {
  using PackedPeaks<__half>::PackedPeaks;
};
template <>
struct Peaks<__nv_bfloat16> : PackedPeaks<__nv_bfloat16> {
  using PackedPeaks<__nv_bfloat16>::PackedPeaks;
};

}  // namespace
}  // namespace cuda
}  // namespace pairdistill
