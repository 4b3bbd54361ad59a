// __half, alone and two at a time, for kernels that run on the CPU.
#pragma once

#include <cmath>

struct __half {
  _Float16 value;
};
inline float __half2float(__half h) { return float(h.value); }
inline __half __float2half_rn(float f) { return __half{static_cast<_Float16>(f)}; }

struct __half2 {
  __half x, y;
};
inline __half2 __floats2half2_rn(float x, float y) {
  return __half2{__float2half_rn(x), __float2half_rn(y)};
}
inline __half2 __hadd2(__half2 a, __half2 b) {
  return __floats2half2_rn(__half2float(a.x) + __half2float(b.x), __half2float(a.y) + __half2float(b.y));
}
inline __half2 __hsub2(__half2 a, __half2 b) {
  return __floats2half2_rn(__half2float(a.x) - __half2float(b.x), __half2float(a.y) - __half2float(b.y));
}
inline __half2 __hmax2(__half2 a, __half2 b) {
  return __floats2half2_rn(std::fmax(__half2float(a.x), __half2float(b.x)), std::fmax(__half2float(a.y), __half2float(b.y)));
}
inline bool __hbeq2(__half2 a, __half2 b) {
  return __half2float(a.x) == __half2float(b.x) && __half2float(a.y) == __half2float(b.y);
}
