// The calls of CUDA's runtime that launches are made with, of a device that a test describes. None is
// there that would wait, or that a stream which is being captured refuses: what calls one does not
// compile. Launches that a device refuses are refused here.
#pragma once

#include <cstdlib>
#include <map>
#include <sstream>

#include "emulation.h"

#define __align__(bytes) alignas(bytes)

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInsufficientDriver = 35,
  cudaErrorInvalidDeviceFunction = 98,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorUnsupportedPtxVersion = 222,
  cudaErrorInvalidClusterSize = 912,
};
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor,
  cudaDevAttrL2CacheSize,
  cudaDevAttrClusterLaunch,
};
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize,
  cudaFuncAttributePreferredSharedMemoryCarveout,
  cudaFuncAttributeNonPortableClusterSizeAllowed,
};
constexpr int cudaSharedmemCarveoutMaxShared = 100;
enum cudaLaunchAttributeID { cudaLaunchAttributeIgnore, cudaLaunchAttributeClusterDimension };

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3() = default;
  explicit dim3(unsigned x) : x(x) {}
};
using cudaStream_t = struct Stream*;
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    struct {
      unsigned x, y, z;
    } clusterDim;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

namespace emulation {

// Of the current stream, and of no other: a launch elsewhere is refused.
inline void* the_stream() { return reinterpret_cast<void*>(uintptr_t(0x57)); }

// A small device, or EMULATED_DEVICE = "multiprocessors, shared memory of a block, of a multiprocessor,
// cache, largest cluster".
struct Figures {
  int multiprocessors = 2, shared_of_block = 99 * 1024, shared_of_processor = 100 * 1024;
  int cache_bytes = 1 << 20, largest_cluster = 4;

  Figures() {
    char comma;
    if (const char* const text = std::getenv("EMULATED_DEVICE"))
      std::istringstream(text) >> multiprocessors >> comma >> shared_of_block >> comma >>
          shared_of_processor >> comma >> cache_bytes >> comma >> largest_cluster;
  }
};

// What a function has been allowed.
struct Allowed {
  int shared_bytes = 48 * 1024, carveout = -1;
  bool large_clusters = false;
};
inline Allowed& allowed(const void* function) {
  static std::map<const void*, Allowed> of;
  return of[function];
}

inline unsigned cluster_of(const cudaLaunchConfig_t& config) {
  return config.numAttrs ? config.attrs[0].val.clusterDim.x : 1;
}

inline cudaError_t refusal(const void* function, const cudaLaunchConfig_t& config) {
  const Figures device;
  const Allowed& may = allowed(function);
  const unsigned cluster = cluster_of(config), threads = config.blockDim.x;
  if (config.numAttrs > 1 || config.gridDim.y * config.gridDim.z != 1) return cudaErrorInvalidValue;
  if (config.gridDim.x < 1 || config.gridDim.x > unsigned(INT32_MAX) || threads < 1 ||
      threads > 1024)
    return cudaErrorInvalidConfiguration;
  if (config.dynamicSmemBytes > size_t(may.shared_bytes)) return cudaErrorInvalidValue;
  if (config.numAttrs && config.attrs[0].id != cudaLaunchAttributeClusterDimension)
    return cudaErrorInvalidValue;
  if (cluster > (may.large_clusters ? 16u : 8u) || cluster > unsigned(device.largest_cluster) ||
      config.gridDim.x % cluster)
    return cudaErrorInvalidClusterSize;
  return cudaSuccess;
}

}  // namespace emulation

inline const char* cudaGetErrorString(cudaError_t status) {
  return status == cudaSuccess ? "no error" : "refused by the emulated device";
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

// EMULATED_STATUS: what every question about the device is answered with.
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  const emulation::Figures device;
  const int values[] = {device.multiprocessors, device.shared_of_block, device.shared_of_processor,
                        device.cache_bytes, device.largest_cluster > 1};
  *value = values[which];
  const char* const status = std::getenv("EMULATED_STATUS");
  return status ? cudaError_t(std::atoi(status)) : cudaSuccess;
}

inline cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute which, int value) {
  emulation::Allowed& may = emulation::allowed(function);
  if (which == cudaFuncAttributeMaxDynamicSharedMemorySize) {
    if (value > emulation::Figures().shared_of_block) return cudaErrorInvalidValue;
    may.shared_bytes = value;
  } else if (which == cudaFuncAttributePreferredSharedMemoryCarveout) {
    may.carveout = value;
  } else {
    may.large_clusters = value != 0;
  }
  return cudaSuccess;
}

template <class Kernel>
cudaError_t cudaOccupancyMaxActiveClusters(int* clusters, Kernel kernel,
                                           const cudaLaunchConfig_t* config) {
  const cudaError_t status =
      emulation::refusal(reinterpret_cast<const void*>(kernel), *config);
  const int fit = emulation::Figures().multiprocessors / int(emulation::cluster_of(*config));
  *clusters = fit > 1 ? fit : 1;
  return status;
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const cudaError_t status =
      emulation::refusal(reinterpret_cast<const void*>(kernel), *config);
  if (status != cudaSuccess) return status;
  if (config->stream != emulation::the_stream()) return cudaErrorInvalidValue;
  emulation::launch(config->gridDim.x, config->blockDim.x, int64_t(config->dynamicSmemBytes),
                    emulation::cluster_of(*config), [&] { kernel(Parameters(arguments)...); });
  return cudaSuccess;
}
