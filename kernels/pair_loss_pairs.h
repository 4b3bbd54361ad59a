// The scores of a call as pointers: what the CPU and the CUDA code know of their inputs.
#pragma once

#include <cstdint>

#include "pair_loss_cpu.h"

namespace pairdistill {

enum Reduction : int64_t { kRows = 0, kMean = 1, kSum = 2 };

// Scores that have been checked: all classes, or a chunk of them.
struct Pairs {
  const void* first;
  const void* second;
  int64_t stride_first, stride_second;  // elements from row to row
  int64_t pairs, columns;
  int64_t class_start;  // the class of column 0
  const int64_t* labels;
  LogitType type;

  bool wide() const { return type == kFloat64; }
  int64_t score_bytes() const { return type == kFloat64 ? 8 : type == kFloat32 ? 4 : 2; }
};

}  // namespace pairdistill
