// __half, alone and two at a time, for kernels that run on the CPU.
#pragma once

#include <cstdint>
#include <cstring>

#include "two_at_a_time.h"

struct __half {
  _Float16 value;
};
inline float __half2float(__half h) { return float(h.value); }
inline __half __float2half_rn(float f) { return __half{static_cast<_Float16>(f)}; }
inline __half __float2half_rd(float f) {
  const __half near = __float2half_rn(f);
  if (!(__half2float(near) > f)) return near;
  uint16_t bits;
  std::memcpy(&bits, &near, sizeof bits);
  bits = uint16_t(bits & 0x8000u ? bits + 1 : bits - 1);
  __half below;
  std::memcpy(&below, &bits, sizeof below);
  return below;
}

struct __half2 {
  __half x, y;
};
EMULATED_PAIR(__half2, __half2float, __float2half_rn, __floats2half2_rn)
