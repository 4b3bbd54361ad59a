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
#else
  asm volatile("" : : : "memory");  // as in `wait_for_groups`
#endif
}
// Until at most the LATEST newest groups of this thread are under way.
template <int LATEST>
__device__ __forceinline__ void wait_for_groups() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" : : "n"(LATEST) : "memory");
#else
  // A slot is written as `uint4` or as columns, and read as words: by the rules of types the compiler
  // might let the reads go first.
  asm volatile("" : : : "memory");
#endif
}
#endif

// A thread's place in its runs and in its slots.
struct Place {
  int run;
  unsigned slot;  // bytes from the first one of the block
};

// Only the thread itself reads and writes its slots, so that they need no barrier. A slot takes the
// next run as soon as its own has been used; never fewer than AHEAD - 1 groups are closed between a
// run's own and the wait for it.
//
// Places are numbers of bytes, and the two rows of a run lie at a fixed distance: what a sweep needs
// besides its arithmetic is a fifth of its instructions, and counts as much (docs/log.md).
template <class T, int AHEAD, bool KEEPS>
class Ring {
 public:
  // `memory`: of the block, 32 bytes for each of `slots` of each of its threads. If it `KEEPS` runs for
  // other sweeps there are as many slots as runs, or at least AHEAD; if not, AHEAD.
  __device__ Ring(const Part<T>& part, unsigned char* memory, int slots)
      : part_(part),
        first_(by_itself(reinterpret_cast<const uint4*>(part.first))),
        second_(by_itself(reinterpret_cast<const uint4*>(part.second))),
        memory_(memory),
        round_(2 * unsigned(kRunBytes) * blockDim.x),
        size_(unsigned(slots) * round_),
        aligned_runs_(part.together ? part.whole_runs : 0),
        start_{int(threadIdx.x), (threadIdx.x + threadIdx.x / kWarp * kWarp) * unsigned(kRunBytes)} {}

  // Calls body(run, first, second) for each run of the thread in ascending order.
  template <class Body>
  __device__ __forceinline__ void first_sweep(const Body& body) const {
    Place place = start_;
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
      fetch(place);
      close_group();
      place = ahead(place, 1);
    }
#pragma unroll 1
    for (place = start_; place.run < part_.runs; place = ahead(place, 1)) {
      use(place, body);
      fetch(KEEPS ? ahead(place, AHEAD)
                  : Place{place.run + AHEAD * int(blockDim.x), place.slot});
      close_group();
    }
  }

  // The same once more, beginning with the runs that the sweep before left in the slots.
  template <class Body>
  __device__ __forceinline__ void next_sweep(const Body& body) {
    const int count = runs_of_thread(), slots = int(size_ / round_);
    const int others = count > slots ? count - slots : 0;
    Place next = start_;  // what is not in a slot is what the sweep before began with
    for (int i = 0; i < others; ++i) start_ = wrapped(ahead(start_, 1));
    Place place = start_;
#pragma unroll 1
    for (int i = 0; i < count; ++i) {
      use(place, body);
      if (i < others) {
        fetch(Place{next.run, place.slot});
        next = wrapped(ahead(next, 1));
      }
      close_group();
      place = wrapped(ahead(place, 1));
    }
  }

 private:
  __device__ __forceinline__ int runs_of_thread() const {
    const int after = part_.runs - 1 - int(threadIdx.x);
    return after < 0 ? 0 : after / int(blockDim.x) + 1;
  }
  // So many runs further on; of no more slots than there are. An offset beyond the end is the larger one
  // of the two, one before it becomes so by the subtraction.
  __device__ __forceinline__ Place ahead(const Place& at, int runs) const {
    const unsigned slot = at.slot + unsigned(runs) * round_, back = slot - size_;
    return Place{at.run + runs * int(blockDim.x), slot < back ? slot : back};
  }
  __device__ __forceinline__ Place wrapped(const Place& at) const {
    return Place{at.run < part_.runs ? at.run : int(threadIdx.x), at.slot};
  }
  __device__ __forceinline__ Run<T>* slot_of(const Place& at) const {
    return reinterpret_cast<Run<T>*>(memory_ + at.slot);
  }
  template <class Body>
  __device__ __forceinline__ void use(const Place& at, const Body& body) const {
    wait_for_groups<AHEAD - 1>();
    const Run<T>* const slot = slot_of(at);
    const Run<T> first = slot[0], second = slot[kWarp];
    body(at.run, first, second);
  }
  // Nothing where there is no such run.
  __device__ __forceinline__ void fetch(const Place& to) const {
    Run<T>* const slot = slot_of(to);
    if (unsigned(to.run - part_.first_whole) < unsigned(aligned_runs_)) {
      copy_ahead(reinterpret_cast<uint4*>(slot), first_ + unsigned(to.run));
      copy_ahead(reinterpret_cast<uint4*>(slot + kWarp), second_ + unsigned(to.run));
    } else if (to.run < part_.runs) {
      const int column = to.run * kColumns<T>;
      load_by_columns(part_, part_.first, column, slot[0]);
      load_by_columns(part_, part_.second, column, slot[kWarp]);
    }
  }

  const Part<T>& part_;
  const uint4* const first_;
  const uint4* const second_;
  unsigned char* const memory_;
  const unsigned round_, size_;   // bytes of one slot of each thread of the block, and of all
  const int aligned_runs_;        // runs that are fetched 16 bytes at once
  Place start_;
};

}  // namespace
}  // namespace cuda
}  // namespace pairdistill
