// What kernels do with two 16-bit numbers at once, for kernels that run on the CPU.
#pragma once

#include <cmath>

#define EMULATED_PAIR(Two, widen, narrow, both)                                           \
  inline Two both(float x, float y) { return Two{narrow(x), narrow(y)}; }                 \
  inline Two __hadd2(Two a, Two b) {                                                      \
    return both(widen(a.x) + widen(b.x), widen(a.y) + widen(b.y));                        \
  }                                                                                       \
  inline Two __hsub2(Two a, Two b) {                                                      \
    return both(widen(a.x) - widen(b.x), widen(a.y) - widen(b.y));                        \
  }                                                                                       \
  inline Two __hmax2(Two a, Two b) {                                                      \
    return both(std::fmax(widen(a.x), widen(b.x)), std::fmax(widen(a.y), widen(b.y)));    \
  }                                                                                       \
  inline bool __hbeq2(Two a, Two b) {                                                     \
    return widen(a.x) == widen(b.x) && widen(a.y) == widen(b.y);                          \
  }
