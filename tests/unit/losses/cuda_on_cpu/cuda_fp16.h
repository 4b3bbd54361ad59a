// __half for kernels that run on the CPU.
#pragma once

struct __half {
  _Float16 value;
};
inline float __half2float(__half h) { return float(h.value); }
inline __half __float2half_rn(float f) { return __half{static_cast<_Float16>(f)}; }
