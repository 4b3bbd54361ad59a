// The CUDA launches as plain functions, without torch: pair_loss_cuda.cpp calls them with pointers
// of tensors. None waits for the device.
//
// Numbers behind `void*` are float32, float64 for float64 scores.
#pragma once

#include <functional>

#include "pair_loss_pairs.h"
#include "pair_loss_plan.h"

namespace pairdistill {
namespace cuda {

// Where and with what a call runs. `memory(bytes)` lasts until the call's launches have run.
struct Device {
  int index;
  void* stream;
  std::function<void*(int64_t)> memory;
};

struct StateRows {
  void* values;   // (.., B, 14)
  int64_t* tops;  // (.., B, 2)
};

struct RowResults {
  void* values;   // (B, 3)
  void* extras;   // (B, 4)
  int64_t* tops;  // (B, 2)
  void* stats;    // (B, 12), or null: nobody needs them
};

// Upstream gradients: `values` (B, 3), or those of a weighted total where it is null.
struct UpstreamRows {
  const void* values;
  const void* weights;  // (B,), or null: 1
  double ce, similarity;
  bool mean;
};

// Gradients as rows of (B, C); null: none are written.
struct GradientRows {
  void* first;
  void* second;
  int64_t stride_first, stride_second;
};

DeviceShape shape_of(int device);

// The row's values and statistics, and its gradient where it is asked for, in one call. `margins` is
// (B, 6) or null, `total` is written where it is given.
void whole_rows(const Device&, const Pairs&, const Choices<double>&, const void* margins,
                const RowResults&, const UpstreamRows&, const GradientRows&, void* total);

// The gradient from statistics; `classes` of the whole row.
void gradient(const Device&, const Pairs&, int64_t classes, const Choices<double>&,
              const void* stats, const UpstreamRows&, const GradientRows&);

// Classes in chunks: see the operators of the same names.
void accumulate(const Device&, const Pairs&, const Choices<double>&, const StateRows& state);
void merge_states(const Device&, const StateRows& states, int64_t count, int64_t pairs, bool wide,
                  const Choices<double>&, const StateRows& into);
void finish_states(const Device&, const StateRows& state, int64_t pairs, bool wide,
                   const int64_t* labels, int64_t classes, const Choices<double>&,
                   const void* margins, const RowResults&);
void mmd_accumulate(const Device&, const Pairs&, const Choices<double>&, const void* stats,
                    void* sums);
void mmd_finish(const Device&, const void* sums, int64_t pairs, bool wide, const int64_t* labels,
                const Choices<double>&, const RowResults&);

}  // namespace cuda
}  // namespace pairdistill
