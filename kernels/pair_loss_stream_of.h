// How the CUDA operators meet torch: the device guard and the stream. Tests put a header in its
// place that takes CPU tensors (tests/unit/losses/cuda_on_cpu).
#pragma once

#include <stdexcept>
#include <string>

#include <dlfcn.h>

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#define PAIR_LOSS_DISPATCH_KEY CUDA

namespace pairdistill {
namespace cuda {

using DeviceGuard = torch::stable::accelerator::DeviceGuard;

inline bool on_device(const torch::stable::Tensor& tensor) { return tensor.is_cuda(); }
inline int device_index(const torch::stable::Tensor& tensor) { return tensor.get_device_index(); }

// The stream that torch launches on. The function is in the part of torch that only its CUDA builds
// have; looked up here, so that one library loads in a CPU torch as well.
inline void* current_stream(int device) {
  using Function = AOTITorchError (*)(int32_t, void**);
  static const Function function = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_NOLOAD);
    return library ? reinterpret_cast<Function>(
                         dlsym(library, "aoti_torch_get_current_cuda_stream"))
                   : nullptr;
  }();
  if (!function) throw std::runtime_error("pair_loss: this torch was built without CUDA");
  void* stream = nullptr;
  // Not by the macro for it, whose name differs between versions of torch.
  if (function(device, &stream) != AOTI_TORCH_SUCCESS)
    throw std::runtime_error("pair_loss: torch gives no stream of CUDA device " +
                             std::to_string(device));
  return stream;
}

}  // namespace cuda
}  // namespace pairdistill
