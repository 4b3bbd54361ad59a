// Runs CUDA kernels on the CPU, thread by thread: enough of the language for kernels/*.cuh.
//
// Each thread of a block is a fiber; it runs until it waits at a barrier or for its warp, then the
// next one goes on. Blocks run one after the other. So a block of 256 threads is exact, and slow.
#pragma once

#include <ucontext.h>

#include <cassert>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __shared__ static  // blocks run one after the other

struct Index {
  unsigned x;
};
inline Index blockIdx{0}, threadIdx{0};
using cudaStream_t = void*;

namespace emulation {

constexpr int kThreads = 256, kWarp = 32;
constexpr size_t kStack = 128 * 1024;
constexpr long kMostRounds = 1000000;  // a barrier that not all threads reach

struct Barrier {
  int arrived = 0;
  long generation = 0;
};

struct Machine {
  ucontext_t scheduler, fiber[kThreads];
  bool done[kThreads];
  Barrier block, warp[kThreads / kWarp];
  char lane[kThreads][16];
  std::vector<char> stacks = std::vector<char>(kThreads * kStack);
  std::function<void()> kernel;
};
inline Machine& machine() {
  static Machine the_machine;
  return the_machine;
}

inline void run_others() {
  const unsigned me = threadIdx.x;
  swapcontext(&machine().fiber[me], &machine().scheduler);
  threadIdx.x = me;
}

inline void wait(Barrier& barrier, int threads) {
  const long generation = barrier.generation;
  if (++barrier.arrived == threads) {
    barrier.arrived = 0;
    ++barrier.generation;
    return;
  }
  while (barrier.generation == generation) run_others();
}

inline void fiber_main() {
  machine().kernel();
  machine().done[threadIdx.x] = true;
  swapcontext(&machine().fiber[threadIdx.x], &machine().scheduler);
}

inline void start_fibers() {
  Machine& m = machine();
  m.block = Barrier();
  for (Barrier& warp : m.warp) warp = Barrier();
  for (int i = 0; i < kThreads; ++i) {
    getcontext(&m.fiber[i]);
    m.fiber[i].uc_stack.ss_sp = &m.stacks[i * kStack];
    m.fiber[i].uc_stack.ss_size = kStack;
    m.fiber[i].uc_link = &m.scheduler;
    makecontext(&m.fiber[i], fiber_main, 0);
    m.done[i] = false;
  }
}

inline bool run_each_once() {
  Machine& m = machine();
  bool any = false;
  for (int i = 0; i < kThreads; ++i) {
    if (m.done[i]) continue;
    any = true;
    threadIdx.x = i;
    swapcontext(&m.scheduler, &m.fiber[i]);
  }
  return any;
}

inline void launch(unsigned blocks, std::function<void()> kernel) {
  machine().kernel = std::move(kernel);
  for (unsigned block = 0; block < blocks; ++block) {
    blockIdx.x = block;
    start_fibers();
    long rounds = 0;
    while (run_each_once())
      if (++rounds > kMostRounds) std::abort();
  }
}

}  // namespace emulation

inline void __syncthreads() {
  emulation::wait(emulation::machine().block, emulation::kThreads);
}

template <class T>
T __shfl_down_sync(unsigned, T value, int offset) {
  emulation::Machine& m = emulation::machine();
  const int me = threadIdx.x, lane = me % emulation::kWarp;
  std::memcpy(m.lane[me], &value, sizeof value);
  emulation::wait(m.warp[me / emulation::kWarp], emulation::kWarp);
  if (lane + offset < emulation::kWarp) std::memcpy(&value, m.lane[me + offset], sizeof value);
  emulation::wait(m.warp[me / emulation::kWarp], emulation::kWarp);
  return value;
}
