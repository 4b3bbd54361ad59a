// In place of kernels/pair_loss_device.h: launches run on the CPU.
#pragma once

#include <cstdlib>
#include <sstream>

#include "cuda_runtime.h"

#include "pair_loss_plan.h"

namespace pairdistill {
namespace cuda {

struct Grid {
  int64_t blocks, threads, shared_bytes, cluster;
  void* stream;
};

template <class... Parameters, class... Arguments>
void launch(const Grid& grid, void (*kernel)(Parameters...), const Arguments&... arguments) {
  emulation::launch(grid.blocks, grid.threads, grid.shared_bytes, grid.cluster,
                    [&] { kernel(Parameters(arguments)...); });
}

// A small device, or the one that a test describes: EMULATED_DEVICE = "multiprocessors, shared
// memory of a block, of a multiprocessor, cache, largest cluster".
template <class Kernel>
DeviceShape device_shape(int, Kernel) {
  const char* const text = std::getenv("EMULATED_DEVICE");
  DeviceShape d{2, 99 * 1024, 100 * 1024, 1 << 20, 4};
  char comma;
  if (text)
    std::istringstream(text) >> d.multiprocessors >> comma >> d.shared_of_block >> comma >>
        d.shared_of_processor >> comma >> d.cache_bytes >> comma >> d.largest_cluster;
  return d;
}

}  // namespace cuda
}  // namespace pairdistill
