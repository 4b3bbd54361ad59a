// __nv_bfloat16, alone and two at a time, for kernels that run on the CPU.
#pragma once

#include <cstdint>
#include <cstring>

#include "two_at_a_time.h"

struct __nv_bfloat16 {
  uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 h) {
  const uint32_t bits = uint32_t(h.bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return __nv_bfloat16{0x7fc0};
  return __nv_bfloat16{uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}
inline __nv_bfloat16 __float2bfloat16_rd(float value) {
  const __nv_bfloat16 near = __float2bfloat16_rn(value);
  if (!(__bfloat162float(near) > value)) return near;
  return __nv_bfloat16{uint16_t(near.bits & 0x8000u ? near.bits + 1 : near.bits - 1)};
}

struct __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
EMULATED_PAIR(__nv_bfloat162, __bfloat162float, __float2bfloat16_rn, __floats2bfloat162_rn)
