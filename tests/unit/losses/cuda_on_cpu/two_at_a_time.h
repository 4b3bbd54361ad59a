// What kernels do with two 16-bit numbers at once, for kernels that run on the CPU.
#pragma once

#include <cmath>

// As on a GPU, 0 is larger than -0.
inline float emulated_max(float a, float b) {
  return a == 0.0f && b == 0.0f ? a + b : std::fmax(a, b);
}

#define EMULATED_PAIR(Two, widen, narrow, both)                                           \
  inline Two both(float x, float y) { return Two{narrow(x), narrow(y)}; }                 \
  inline Two __hadd2(Two a, Two b) {                                                      \
    return both(widen(a.x) + widen(b.x), widen(a.y) + widen(b.y));                        \
  }                                                                                       \
  inline Two __hsub2(Two a, Two b) {                                                      \
    return both(widen(a.x) - widen(b.x), widen(a.y) - widen(b.y));                        \
  }                                                                                       \
  inline Two __hmax2(Two a, Two b) {                                                      \
    return both(emulated_max(widen(a.x), widen(b.x)), emulated_max(widen(a.y), widen(b.y))); \
  }                                                                                       \
  inline bool __hbeq2(Two a, Two b) {                                                     \
    return widen(a.x) == widen(b.x) && widen(a.y) == widen(b.y);                          \
  }
