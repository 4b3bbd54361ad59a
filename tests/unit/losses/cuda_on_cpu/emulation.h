// Runs CUDA kernels on the CPU, thread by thread: enough of the language for kernels/*.cuh.
//
// Each thread of a block is a fiber; it runs until it waits at a barrier or for its warp, then one
// of its warp goes on, and another warp when all of this one wait: a warp runs as far ahead of the
// others as barriers let it. The blocks of a cluster run together and see each other's shared memory;
// apart from that, blocks run one after the other. So a block of 384 threads is exact, and slow.
//
// The last warp goes first: so what warp 0 writes for the others is seen to be missing.
//
// Shared memory starts as NaN in every block, and a thread that reads another block's after that
// block has left is an error: forgotten initialisation and forgotten barriers show. A copy ahead
// leaves NaN until its group is waited for.
//
// over 300 lines: fibers and what the language's words do with them know one another
#pragma once

#include <ucontext.h>

#include <cassert>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define PAIR_LOSS_EMULATED

struct Index {
  unsigned x;
};
inline Index blockIdx{0}, threadIdx{0}, blockDim{0};

struct uint2 {
  uint32_t x, y;
};
struct uint4 {
  uint32_t x, y, z, w;
};
template <class V>
V __ldcs(const V* address) {
  assert(reinterpret_cast<uintptr_t>(address) % sizeof(V) == 0);
  return *address;
}
template <class V>
void __stcs(V* address, V value) {
  assert(reinterpret_cast<uintptr_t>(address) % sizeof(V) == 0);
  *address = value;
}
// Bytes of two words in the order of the digits of `order`, lowest first.
inline uint32_t __byte_perm(uint32_t low, uint32_t high, uint32_t order) {
  const uint64_t both = uint64_t(high) << 32 | low;
  uint32_t out = 0;
  for (int i = 0; i < 4; ++i)
    out |= uint32_t(both >> 8 * (order >> 4 * i & 7u) & 0xffu) << 8 * i;
  return out;
}

namespace emulation {

constexpr int kWarp = 32, kMostThreads = 768, kMostBlocks = 16;
constexpr size_t kStack = 64 * 1024;
// Stacks a power of two apart would all lie in the same lines of the processor's cache.
constexpr size_t kStackStride = kStack + 19 * 64;

struct Barrier {
  int arrived = 0;
  long generation = 0;
};

struct Block {
  unsigned index;
  Barrier all, warp[kMostThreads / kWarp];
  std::vector<uint64_t> shared;
  int running = 0;  // threads that have not left
};

// A fiber is started by setcontext, once, and from then on left and entered by jumps, which ask
// nothing of the operating system: when its thread is done, it waits to be the next launch's.
using Jump = void* [5];  // of the compiler's own setjmp and longjmp, which save the least
struct Thread {
  Jump here;
  bool started = false, done;
  int block;
  long cluster_arrivals;
  const Barrier* awaited;  // none, or asleep until its generation is another one than `generation`
  long generation;
  char lane[2][8];  // what it shows to its warp, this time and the last
  int shown;
  std::deque<std::vector<std::pair<uint4*, const uint4*>>> groups;  // copies; the last is open
};

struct Machine {
  Jump host;
  int threads_of_block = 0, blocks = 0, current = 0, left = 0;
  Block block[kMostBlocks];
  Barrier cluster;
  std::vector<Thread> thread;  // as many as the largest cluster had; a fiber each
  std::vector<ucontext_t> start;
  std::vector<char> stacks;
  std::function<void()> kernel;

  Thread& me() { return thread[current]; }
  Block& my_block() { return block[me().block]; }
};
inline Machine the_machine;
inline Machine& machine() { return the_machine; }

inline void fail(const char* what) {
  std::fprintf(stderr, "emulated device: %s\n", what);
  std::abort();
}

inline void enter(int thread) {
  Machine& m = machine();
  m.current = thread;
  threadIdx.x = unsigned(thread % m.threads_of_block);
  blockIdx.x = m.my_block().index;
}

inline bool can_go_on(const Thread& thread) {
  if (thread.done) return false;
  return thread.awaited == nullptr || thread.awaited->generation != thread.generation;
}

// The thread that goes on when this one does not: of its warp, or of the warps after it.
inline int next_thread() {
  Machine& m = machine();
  const int count = m.threads_of_block * m.blocks, warp = m.current / kWarp * kWarp;
  for (int lane = 0; lane < kWarp; ++lane) {
    const int i = warp + (m.current + lane) % kWarp;
    if (can_go_on(m.thread[i])) return i;
  }
  for (int i = warp + kWarp; i < warp + count; ++i)
    if (can_go_on(m.thread[i % count])) return i % count;
  fail("a barrier that not all threads reach");
  return 0;
}

__attribute__((noinline)) inline void resume(int thread) {
  enter(thread);
  Thread& t = machine().me();
  if (t.started) __builtin_longjmp(t.here, 1);
  t.started = true;
  setcontext(&machine().start[thread]);
}

// The other threads go on, until one of them comes back here.
__attribute__((noinline)) inline void leave() {
  if (__builtin_setjmp(machine().me().here) == 0) resume(next_thread());
}

// The other threads go on until the barrier has let its threads of this generation through.
inline void sleep(const Barrier& barrier, long generation) {
  if (barrier.generation != generation) return;
  machine().me().awaited = &barrier;
  machine().me().generation = generation;
  leave();
}

inline void arrive(Barrier& barrier, int threads) {
  if (++barrier.arrived < threads) return;
  barrier.arrived = 0;
  ++barrier.generation;
}
inline void wait(Barrier& barrier, int threads) {
  const long generation = barrier.generation;
  arrive(barrier, threads);
  sleep(barrier, generation);
}

__attribute__((noinline)) inline void back_to_the_host() { __builtin_longjmp(machine().host, 1); }

// One thread of one launch; the fiber of the next one goes on here.
__attribute__((noinline)) inline void run_thread() {
  Machine& m = machine();
  m.kernel();
  for (const auto& group : m.me().groups)
    if (!group.empty()) fail("a thread leaves before its copies have arrived");
  m.me().done = true;
  --m.my_block().running;
  if (__builtin_setjmp(m.me().here) != 0) return;
  if (--m.left == 0) back_to_the_host();
  resume(next_thread());
}
inline void fiber_main() {
  while (true) run_thread();
}

// A fiber for each thread: as they were left, or new ones where there were not as many.
inline void make_fibers(int count) {
  Machine& m = machine();
  if (int(m.thread.size()) < count) {
    m.thread = std::vector<Thread>(count);
    m.start = std::vector<ucontext_t>(count);
    m.stacks = std::vector<char>(count * kStackStride);
    for (int i = 0; i < count; ++i) {
      getcontext(&m.start[i]);
      m.start[i].uc_stack.ss_sp = &m.stacks[i * kStackStride];
      m.start[i].uc_stack.ss_size = kStack;
      m.start[i].uc_link = nullptr;
      makecontext(&m.start[i], fiber_main, 0);
    }
  }
  for (int i = 0; i < count; ++i) {
    Thread& t = m.thread[i];
    t.done = false;
    t.shown = 0;
    t.block = i / m.threads_of_block;
    t.cluster_arrivals = 0;
    t.awaited = nullptr;
    t.groups.resize(1);
    t.groups.front().clear();
  }
  m.left = count;
}

__attribute__((noinline)) inline void run_fibers() {
  if (__builtin_setjmp(machine().host) == 0) resume(machine().left - 1);
}

// Blocks [first, first + blocks) at the same time.
inline void run_cluster(unsigned first, int blocks, int64_t shared_bytes) {
  Machine& m = machine();
  m.cluster = Barrier();
  for (int i = 0; i < blocks; ++i) {
    Block& b = m.block[i];
    b.index = first + unsigned(i);
    b.all = Barrier();
    for (Barrier& warp : b.warp) warp = Barrier();
    b.shared.assign(size_t(shared_bytes + 7) / 8 + 2, ~uint64_t(0));
    b.running = m.threads_of_block;
  }
  make_fibers(m.threads_of_block * blocks);
  run_fibers();
}

inline void launch(int64_t blocks, int64_t threads, int64_t shared_bytes, int64_t cluster,
                   std::function<void()> kernel) {
  Machine& m = machine();
  if (threads < 1 || threads > kMostThreads || threads % kWarp != 0) fail("threads of a block");
  if (blocks < 1 || blocks % cluster != 0 || cluster > kMostBlocks) fail("grid");
  m.kernel = std::move(kernel);
  m.threads_of_block = int(threads);
  m.blocks = int(cluster);
  blockDim.x = unsigned(threads);
  for (int64_t block = 0; block < blocks; block += cluster)
    run_cluster(unsigned(block), int(cluster), shared_bytes);
}

// The dynamic shared memory of the block, on a boundary of 16 bytes.
inline unsigned char* dynamic_shared() {
  const uintptr_t start = reinterpret_cast<uintptr_t>(machine().my_block().shared.data());
  return reinterpret_cast<unsigned char*>((start + 15) / 16 * 16);
}

// `cp.async`: the bytes arrive when their group is waited for, as late as can be.
inline void copy_ahead(uint4* to, const uint4* from) {
  if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % sizeof(uint4))
    fail("a copy ahead that is not aligned");
  *to = uint4{~0u, ~0u, ~0u, ~0u};
  machine().me().groups.back().emplace_back(to, from);
}
inline void close_group() { machine().me().groups.emplace_back(); }
template <int LATEST>
void wait_for_groups() {
  auto& groups = machine().me().groups;
  for (; int(groups.size()) > LATEST + 1; groups.pop_front())
    for (const auto& [to, from] : groups.front()) *to = *from;
}

}  // namespace emulation

#define PAIR_LOSS_DYNAMIC_SHARED(name) unsigned char* const name = emulation::dynamic_shared()

inline void __syncthreads() {
  emulation::Machine& m = emulation::machine();
  emulation::wait(m.my_block().all, m.threads_of_block);
}

inline void __cluster_barrier_arrive() {
  emulation::Machine& m = emulation::machine();
  m.me().cluster_arrivals = m.cluster.generation;
  emulation::arrive(m.cluster, m.threads_of_block * m.blocks);
}
inline void __cluster_barrier_wait() {
  emulation::Machine& m = emulation::machine();
  emulation::sleep(m.cluster, m.me().cluster_arrivals);
}

inline void* __cluster_map_shared_rank(const void* mine, unsigned rank) {
  emulation::Machine& m = emulation::machine();
  if (int(rank) >= m.blocks) emulation::fail("rank outside the cluster");
  if (m.block[rank].running < m.threads_of_block)
    emulation::fail("shared memory of a block that is leaving");
  const ptrdiff_t offset = static_cast<const unsigned char*>(mine) - emulation::dynamic_shared();
  const int me = m.current;
  m.current = int(rank) * m.threads_of_block;
  unsigned char* const theirs = emulation::dynamic_shared() + offset;
  m.current = me;
  return theirs;
}

template <class V>
V __shfl_xor_sync(unsigned, V value, int mask) {
  static_assert(sizeof(V) <= 8, "one register or two");
  emulation::Machine& m = emulation::machine();
  const int warp = int(threadIdx.x) / emulation::kWarp, other = m.current ^ mask;
  const int now = m.me().shown ^= 1;
  std::memcpy(m.me().lane[now], &value, sizeof value);
  emulation::wait(m.my_block().warp[warp], emulation::kWarp);
  std::memcpy(&value, m.thread[other].lane[now], sizeof value);
  return value;
}
