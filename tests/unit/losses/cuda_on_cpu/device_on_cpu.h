// In place of kernels/pair_loss_device.h: launches run on the CPU and serve CPU tensors.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include "cuda_runtime.h"

#define PAIR_LOSS_DISPATCH_KEY CPU
#define PAIR_LOSS_LAUNCH(kernel, blocks, threads, stream, ...) \
  emulation::launch(blocks, [&] { kernel(__VA_ARGS__); })

namespace pairdistill {
namespace cuda {

struct DeviceGuard {
  explicit DeviceGuard(int) {}
};
inline bool on_device(const torch::stable::Tensor& tensor) { return tensor.is_cpu(); }
inline cudaStream_t current_stream(int) { return nullptr; }
inline int cudaGetLastError() { return 0; }
inline void check(int, const char*) {}

// One multiprocessor, unless a test asks for more: then a row is split over more blocks.
inline int multiprocessors(int) {
  const char* count = std::getenv("EMULATED_MULTIPROCESSORS");
  return count ? std::atoi(count) : 1;
}

}  // namespace cuda
}  // namespace pairdistill
