// In place of kernels/pair_loss_stream_of.h: the operators take CPU tensors.
#pragma once

#include <cstdint>

#include <torch/csrc/stable/tensor.h>

#define PAIR_LOSS_DISPATCH_KEY CPU

namespace pairdistill {
namespace cuda {

struct DeviceGuard {
  explicit DeviceGuard(int) {}
};
inline bool on_device(const torch::stable::Tensor& tensor) { return tensor.is_cpu(); }
inline int device_index(const torch::stable::Tensor&) { return 0; }
// `emulation::the_stream()`: that header is of the files that have kernels.
inline void* current_stream(int) { return reinterpret_cast<void*>(uintptr_t(0x57)); }

}  // namespace cuda
}  // namespace pairdistill
