// The runs of one thread on their way through shared memory: fetched several ahead without a
// register (`cp.async`, compute capability 8.0 and later), so that enough bytes are under way for
// the memory's latency; the last ones stay for the next sweep.
#pragma once

#include "pair_loss_rows.cuh"

namespace pairdistill {
namespace cuda {
namespace {

#if defined(PAIR_LOSS_EMULATED)
using emulation::close_group;
using emulation::copy_ahead;
using emulation::wait_for_groups;
#else
// 16 bytes into shared memory, some time before `wait_for_groups` of their group is over.
__device__ __forceinline__ void copy_ahead(uint4* to, const uint4* from) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
               :
               : "r"(unsigned(__cvta_generic_to_shared(to))), "l"(from)
               : "memory");
#else
  *to = __ldcs(from);
#endif
}
__device__ __forceinline__ void close_group() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" : : : "memory");
#endif
}
// Until at most the LATEST newest groups of this thread are under way.
template <int LATEST>
__device__ __forceinline__ void wait_for_groups() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" : : "n"(LATEST) : "memory");
#endif
}
#endif

// A thread's place in its runs and its slots.
template <class T>
struct Place {
  int run;
  Run<T>* slot;  // of the first row; that of the second is blockDim.x further on
};

// Only the thread itself reads and writes its slots, so that they need no barrier. A slot takes the
// next run as soon as its own has been used; never fewer than AHEAD - 1 groups are closed between a
// run's own and the wait for it.
template <class T, int AHEAD, bool KEEPS>
class Ring {
 public:
  // `memory`: of the block, 32 bytes for each of `slots` of each of its threads. If it `KEEPS` runs for
  // other sweeps there are as many slots as runs, or at least AHEAD; if not, AHEAD.
  __device__ Ring(const Part<T>& part, unsigned char* memory, int slots)
      : part_(part),
        first_(by_itself(reinterpret_cast<const uint4*>(part.first))),
        second_(by_itself(reinterpret_cast<const uint4*>(part.second))),
        begin_(reinterpret_cast<Run<T>*>(memory) + threadIdx.x),
        end_(begin_ + 2 * slots * int(blockDim.x)),
        start_{int(threadIdx.x), begin_} {}

  // Calls body(run, first, second) for each run of the thread in ascending order.
  template <class Body>
  __device__ __forceinline__ void first_sweep(const Body& body) const {
    Place<T> next = start_, place = start_;
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
      if (next.run < part_.runs) fetch(next);
      close_group();
      move(next);
    }
#pragma unroll 1
    while (place.run < part_.runs) {
      use(place, body);
      if (!KEEPS) next = Place<T>{place.run + AHEAD * int(blockDim.x), place.slot};
      if (next.run < part_.runs) fetch(next);
      close_group();
      move(next);
      move(place);
    }
  }

  // The same once more, beginning with the runs that the sweep before left in the slots.
  template <class Body>
  __device__ __forceinline__ void next_sweep(const Body& body) {
    const int count = runs_of_thread(), slots = int(end_ - begin_) / (2 * int(blockDim.x));
    const int others = count > slots ? count - slots : 0;
    Place<T> next = start_;  // what is not in a slot is what the sweep before began with
    for (int i = 0; i < others; ++i) move(start_), wrap(start_);
    Place<T> place = start_;
#pragma unroll 1
    for (int i = 0; i < count; ++i) {
      use(place, body);
      if (i < others) next.slot = place.slot, fetch(next);
      close_group();
      move(next), wrap(next);
      move(place), wrap(place);
    }
  }

 private:
  __device__ __forceinline__ int runs_of_thread() const {
    const int after = part_.runs - 1 - int(threadIdx.x);
    return after < 0 ? 0 : after / int(blockDim.x) + 1;
  }
  __device__ __forceinline__ void move(Place<T>& at) const {
    at.run += blockDim.x;
    at.slot += 2 * int(blockDim.x);
    if (at.slot == end_) at.slot = begin_;
  }
  __device__ __forceinline__ void wrap(Place<T>& at) const {
    if (at.run >= part_.runs) at.run = threadIdx.x;
  }
  template <class Body>
  __device__ __forceinline__ void use(const Place<T>& at, const Body& body) const {
    wait_for_groups<AHEAD - 1>();
    const Run<T> first = at.slot[0], second = at.slot[blockDim.x];
    body(at.run, first, second);
  }
  __device__ __forceinline__ void fetch(const Place<T>& to) const {
    const int column = to.run * kColumns<T>;
    Run<T>* const second = to.slot + blockDim.x;
    if (part_.together && part_.has_run(to.run)) {
      copy_ahead(reinterpret_cast<uint4*>(to.slot), first_ + unsigned(to.run));
      copy_ahead(reinterpret_cast<uint4*>(second), second_ + unsigned(to.run));
    } else {
      load_by_columns(part_, part_.first, column, *to.slot);
      load_by_columns(part_, part_.second, column, *second);
    }
  }

  const Part<T>& part_;
  const uint4* const first_;
  const uint4* const second_;
  Run<T>* const begin_;
  Run<T>* const end_;
  Place<T> start_;
};

}  // namespace
}  // namespace cuda
}  // namespace pairdistill
