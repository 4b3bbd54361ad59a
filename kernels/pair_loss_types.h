// The four types of logits: how a block of them becomes numbers to compute with, and back.
// 16-bit types are converted with integer arithmetic that a compiler can turn into vectors.
#pragma once

#include <cstdint>
#include <cstring>

#include "pair_loss.h"

namespace pairdistill {
namespace PAIR_LOSS_ISA {

// float32 and float64: computed where they lie.
template <class T>
struct Plain {
  using Real = T;
  static const T* load(const void* row, int64_t at, int64_t, T*) {
    return static_cast<const T*>(row) + at;
  }
  static T* destination(void* row, int64_t at, T*) { return static_cast<T*>(row) + at; }
  static void store(const T*, int64_t, void*, int64_t) {}
};
using Double = Plain<double>;
using Float = Plain<float>;

PAIR_LOSS_FN float float_of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
PAIR_LOSS_FN uint32_t bits_of_float(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

PAIR_LOSS_FN float from_bfloat(uint16_t h) { return float_of_bits(uint32_t(h) << 16); }

// Round to nearest, ties to even; NaN stays NaN.
PAIR_LOSS_FN uint16_t to_bfloat(float value) {
  const uint32_t bits = bits_of_float(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

// The bits moved to float32's places are too small by 2^112, subnormals included; infinity and
// NaN need their exponent set.
PAIR_LOSS_FN float from_half(uint16_t h) {
  const uint32_t magnitude = (uint32_t(h) & 0x7fffu) << 13;
  const uint32_t scaled = bits_of_float(float_of_bits(magnitude) * 0x1p112f);
  const uint32_t special = magnitude | 0x7f800000u;
  const uint32_t bits = (h & 0x7c00u) == 0x7c00u ? special : scaled;
  return float_of_bits(bits | (uint32_t(h & 0x8000u) << 16));
}

// Round to nearest, ties to even: subnormals by the rounding of an addition of 0.5, normal
// numbers by adding half of the last place, overflow to infinity; NaN stays NaN.
PAIR_LOSS_FN uint16_t to_half(float value) {
  const uint32_t bits = bits_of_float(value), sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t subnormal = bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t normal = (magnitude + 0xc8000fffu + ((magnitude >> 13) & 1u)) >> 13;
  uint32_t half = magnitude < 0x38800000u ? subnormal : normal;
  half = magnitude >= 0x477ff000u ? 0x7c00u : half;
  half = magnitude > 0x7f800000u ? 0x7e00u : half;
  return uint16_t(half | sign);
}

template <float (*FROM)(uint16_t), uint16_t (*TO)(float)>
struct Narrow {
  using Real = float;
  static const float* load(const void* row, int64_t at, int64_t n, float* buffer) {
    const uint16_t* z = static_cast<const uint16_t*>(row) + at;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) buffer[i] = FROM(z[i]);
    return buffer;
  }
  static float* destination(void*, int64_t, float* buffer) { return buffer; }
  static void store(const float* buffer, int64_t n, void* row, int64_t at) {
    uint16_t* out = static_cast<uint16_t*>(row) + at;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) out[i] = TO(buffer[i]);
  }
};
using Half = Narrow<from_half, to_half>;
using BFloat = Narrow<from_bfloat, to_bfloat>;

}  // namespace PAIR_LOSS_ISA
}  // namespace pairdistill
