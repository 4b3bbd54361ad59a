// How a launch meets torch: the device, the stream and the errors. Tests put a header in its place
// that runs the kernels on the CPU (tests/unit/losses/cuda_on_cpu).
#pragma once

#include <stdexcept>
#include <string>

#include <cuda_runtime.h>
#include <dlfcn.h>

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#define PAIR_LOSS_DISPATCH_KEY CUDA
#define PAIR_LOSS_LAUNCH(kernel, blocks, threads, stream, ...) \
  kernel<<<blocks, threads, 0, stream>>>(__VA_ARGS__)

namespace pairdistill {
namespace cuda {

using DeviceGuard = torch::stable::accelerator::DeviceGuard;

inline bool on_device(const torch::stable::Tensor& tensor) { return tensor.is_cuda(); }

inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess)
    throw std::runtime_error(std::string("pair_loss: ") + what + ": " + cudaGetErrorString(status));
}

// The stream that torch launches on. The function is in the part of torch that only its CUDA builds
// have; looked up here, so that one library loads in a CPU torch as well.
inline cudaStream_t current_stream(int device) {
  using Function = AOTITorchError (*)(int32_t, void**);
  static const Function function = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_NOLOAD);
    return library ? reinterpret_cast<Function>(
                         dlsym(library, "aoti_torch_get_current_cuda_stream"))
                   : nullptr;
  }();
  if (!function) throw std::runtime_error("pair_loss: this torch was built without CUDA");
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(function(device, &stream));
  return static_cast<cudaStream_t>(stream);
}

inline int multiprocessors(int device) {
  int count = 0;
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "device");
  return count;
}

}  // namespace cuda
}  // namespace pairdistill
