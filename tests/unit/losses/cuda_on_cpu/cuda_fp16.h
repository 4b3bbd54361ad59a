// __half, alone and two at a time, for kernels that run on the CPU.
#pragma once

#include "two_at_a_time.h"

struct __half {
  _Float16 value;
};
inline float __half2float(__half h) { return float(h.value); }
inline __half __float2half_rn(float f) { return __half{static_cast<_Float16>(f)}; }

struct __half2 {
  __half x, y;
};
EMULATED_PAIR(__half2, __half2float, __float2half_rn, __floats2half2_rn)
