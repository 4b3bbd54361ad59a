// How a launch meets CUDA: the device's figures, dynamic shared memory, clusters and errors. Tests
// put a <cuda_runtime.h> in CUDA's place that runs the kernels on the CPU
// (tests/unit/losses/cuda_on_cpu).
#pragma once

#include <mutex>
#include <stdexcept>
#include <string>

#include <cuda_runtime.h>

#include "pair_loss_plan.h"

#ifndef PAIR_LOSS_DYNAMIC_SHARED
#define PAIR_LOSS_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

namespace pairdistill {
namespace cuda {

// What to do about errors of how the extension was built.
inline const char* fix_of(cudaError_t status) {
  switch (status) {
    case cudaErrorInsufficientDriver:
      return "; it was built by a newer CUDA than this driver serves: update the driver, or build "
             "it again with an older nvcc (CUDA_HOME)";
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
      return "; it was built for other GPUs: build it again with PAIRDISTILL_CUDA_ARCHS set to the "
             "compute capability of this one, e.g. 90";
    default: return "";
  }
}

inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess)
    throw std::runtime_error(std::string("pair_loss: ") + what + ": " +
                             cudaGetErrorString(status) + fix_of(status));
}

inline int64_t attribute(int device, cudaDeviceAttr which) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, device), "device attribute");
  return value;
}

struct Grid {
  int64_t blocks, threads, shared_bytes, cluster;
  void* stream;
};

// The configuration of a launch; it lives as long as the call.
struct Config {
  cudaLaunchConfig_t launch{};
  cudaLaunchAttribute attribute{};

  explicit Config(const Grid& grid) {
    launch.gridDim = dim3(unsigned(grid.blocks));
    launch.blockDim = dim3(unsigned(grid.threads));
    launch.dynamicSmemBytes = size_t(grid.shared_bytes);
    launch.stream = static_cast<cudaStream_t>(grid.stream);
    if (grid.cluster == 1) return;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = unsigned(grid.cluster);
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    launch.attrs = &attribute;
    launch.numAttrs = 1;
  }
  Config(const Config&) = delete;
};

// More than 48 KB, and clusters of more than 8, are asked for by name; and where a kernel keeps rows, as
// much of a multiprocessor's memory as can be shared. The figures are a function's own, alike for all
// threads of the process: always the most that the device has, so that no thread takes back what
// another is about to launch with.
template <class... Parameters>
cudaError_t allow(void (*kernel)(Parameters...), const Grid& grid) {
  const void* const function = reinterpret_cast<const void*>(kernel);
  cudaError_t status = cudaSuccess;
  if (grid.shared_bytes > kHeaderBytes)
    status = cudaFuncSetAttribute(function, cudaFuncAttributePreferredSharedMemoryCarveout,
                                  cudaSharedmemCarveoutMaxShared);
  if (status == cudaSuccess && grid.shared_bytes > 48 * 1024) {
    int device = 0, most = 0;
    status = cudaGetDevice(&device);
    if (status == cudaSuccess)
      status = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (status == cudaSuccess)
      status = cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
  }
  if (status == cudaSuccess && grid.cluster > 8)
    status = cudaFuncSetAttribute(function, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
  return status;
}

template <class... Parameters, class... Arguments>
void launch(const Grid& grid, void (*kernel)(Parameters...), const Arguments&... arguments) {
  const Config config(grid);
  check(allow(kernel, grid), "shared memory and clusters");
  check(cudaLaunchKernelEx(&config.launch, kernel, Parameters(arguments)...), "launch");
}

// The largest cluster whose blocks can have all the shared memory there is, and of which enough run at
// once: its blocks are on one graphics cluster of the device, and some of those may be too small.
template <class Kernel>
int64_t largest_cluster(Kernel kernel, int device, int64_t shared_bytes,
                        int64_t multiprocessors) {
  if (attribute(device, cudaDevAttrClusterLaunch) == 0) return 1;
  for (int64_t size = 16; size > 1; size /= 2) {
    const Grid grid{size, most_row_threads(4), shared_bytes, size, nullptr};
    const Config config(grid);
    int clusters = 0;
    cudaError_t status = allow(kernel, grid);
    if (status == cudaSuccess)
      status = cudaOccupancyMaxActiveClusters(&clusters, kernel, &config.launch);
    if (status == cudaSuccess && clusters * size * 4 >= multiprocessors * 3) return size;
    (void)cudaGetLastError();  // a size that this device refuses: the next smaller one
  }
  return 1;
}

// What the device `device`, which must be the current one, is made of. Asked once.
template <class Kernel>
DeviceShape device_shape(int device, Kernel kernel) {
  constexpr int kMostDevices = 128;
  static std::once_flag asked[kMostDevices];
  static DeviceShape shapes[kMostDevices];
  if (device < 0 || device >= kMostDevices)
    throw std::runtime_error("pair_loss: more than 128 devices are not served");
  std::call_once(asked[device], [&] {
    DeviceShape& d = shapes[device];
    d.multiprocessors = attribute(device, cudaDevAttrMultiProcessorCount);
    d.shared_of_block = attribute(device, cudaDevAttrMaxSharedMemoryPerBlockOptin);
    d.shared_of_processor = attribute(device, cudaDevAttrMaxSharedMemoryPerMultiprocessor);
    d.cache_bytes = attribute(device, cudaDevAttrL2CacheSize);
    d.largest_cluster = largest_cluster(kernel, device, d.shared_of_block, d.multiprocessors);
  });
  return shapes[device];
}

}  // namespace cuda
}  // namespace pairdistill
