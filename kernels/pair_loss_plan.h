// Which way a call takes on a GPU, from its shape and the device alone: no CUDA call is made here,
// so that every case can be checked on any machine.
//
// Three ways, for the loss with its gradient and for forward:
// - small: one block a pair; both rows stay in its shared memory between the sweeps;
// - cluster: 2, 4, 8 or 16 blocks a pair share the rows out, each in its own shared memory
//   (distributed shared memory; compute capability 9.0 and later);
// - split: the row is cut over many blocks, their states are merged in order by a second launch and
//   the gradient reads the rows again; the pairs go in waves that stay in the level-2 cache.
//
// The rule, in this order (a run is 16 bytes of a row; a pair needs 32 bytes a run on chip):
// 1. Forward of one sweep (all but mmd) gains nothing from rows on chip: small up to 1024 runs where
//    half as many pairs as multiprocessors fill the device or a row has at most 512, else split.
// 2. The smallest cluster size (1 is `small`) at which a block needs so little that two of them
//    share a multiprocessor; one loads while the other computes. What stays is counted in whole
//    rounds of the block's threads, and what does not stay needs 4 rounds to go through.
// 3. Else the largest one, if its blocks hold at least 4/5 of the rows: the rest is read again, from
//    the level-2 cache. Else split.
// 4. The cluster doubles while the grid leaves multiprocessors idle and a block keeps 512 runs.
// 5. Split after all, where even so less than half of the multiprocessors work on long rows (few
//    pairs, very many classes).
#pragma once

#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace pairdistill {
namespace cuda {

constexpr int64_t kRunBytes = 16;
constexpr int64_t kHeaderBytes = 4096;    // shared memory of a block besides the rows
constexpr int64_t kReservedBytes = 1024;  // what CUDA keeps of a multiprocessor for each block
constexpr int64_t kRunsOfBlock = 512;     // fewer are not worth a block of their own
constexpr int64_t kRunsOfPart = 512;
constexpr int64_t kRunsOfLongPart = 4096;
constexpr int64_t kRunsAhead = 4;         // of each thread of a block that keeps its rows
constexpr int64_t kPartsOfProcessor = 8;  // blocks wanted in flight on each multiprocessor
constexpr int64_t kMostParts = 1024;      // blocks of one row: their states are merged by one warp
constexpr int64_t kMostRuns = 1 << 24;    // of a block: its columns are numbered in 32 bits
constexpr int64_t kMostBlocks = INT32_MAX;
constexpr int kWarp = 32;
constexpr int kMostThreads = 512;         // of a block that only adds numbers up

// Threads of a block that works on rows: two such blocks share the registers of a multiprocessor, or one
// block of the most threads has them.
constexpr int row_threads(int64_t element_bytes) { return element_bytes == 8 ? 256 : 384; }
constexpr int most_row_threads(int64_t element_bytes) { return element_bytes == 8 ? 256 : 768; }

struct DeviceShape {
  int64_t multiprocessors;
  int64_t shared_of_block;      // bytes that one block can have
  int64_t shared_of_processor;  // bytes that the blocks of a multiprocessor share
  int64_t cache_bytes;          // level 2
  int64_t largest_cluster;      // 1 where there are no clusters
};

struct CallShape {
  int64_t pairs, classes, element_bytes;
  bool gradient;    // the gradient is written by the same call
  bool two_sweeps;  // forward alone reads the rows twice (mmd)
};

enum class Way : int { kSmall = 1, kCluster = 2, kSplit = 3 };

struct Plan {
  Way way;
  int64_t cluster;        // blocks a pair (small, cluster)
  int64_t threads;        // of a block
  int64_t runs_of_block;  // of each of both rows
  int64_t runs_on_chip;   // how many of them stay in shared memory
  int64_t splits;         // blocks a pair (split)
  int64_t pairs_of_wave;  // pairs that go through all launches together (split)
};

// Cluster size 0: chosen by the rule. Any other wish is served or is an error.
struct Wish {
  bool any = true;
  Way way = Way::kSplit;
  int64_t cluster = 1;
};

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

// Runs of a row, whatever its alignment is.
inline int64_t runs_of(int64_t classes, int64_t element_bytes) {
  const int64_t columns = kRunBytes / element_bytes;
  return ceil_div(classes + columns - 1, columns);
}

// Runs of both rows that a block can keep when `blocks` of them share a multiprocessor.
inline int64_t room(const DeviceShape& d, int64_t blocks) {
  const int64_t share = d.shared_of_processor / blocks - kReservedBytes;
  return most(0, least(share, d.shared_of_block) - kHeaderBytes) / (2 * kRunBytes);
}

// Of a block that works on `runs` of each of both rows. One that leaves no room for a second one has the
// threads of two, if that leaves each enough slots.
inline int64_t threads_for(int64_t runs, int64_t element_bytes, const DeviceShape& d) {
  if (runs <= 512) return runs > 256 ? 256 : 128;
  const int64_t threads = row_threads(element_bytes), wide = most_row_threads(element_bytes);
  const bool alone = ceil_div(runs, threads) > room(d, 2) / threads;
  return alone && room(d, 1) / wide >= kRunsAhead ? wide : threads;
}

// Runs of both rows that stay on chip, where `blocks` share a multiprocessor: as many for each thread,
// and all of them or enough to fetch ahead.
inline int64_t kept_of(int64_t runs, int64_t element_bytes, const DeviceShape& d, int64_t blocks) {
  const int64_t threads = threads_for(runs, element_bytes, d);
  const int64_t all = ceil_div(runs, threads), kept = least(all, room(d, blocks) / threads);
  return kept < all && kept < kRunsAhead ? 0 : kept * threads;
}

inline Plan on_chip(const CallShape& call, const DeviceShape& d, int64_t cluster) {
  const int64_t runs = ceil_div(runs_of(call.classes, call.element_bytes), cluster);
  return Plan{cluster == 1 ? Way::kSmall : Way::kCluster,
              cluster,
              threads_for(runs, call.element_bytes, d),
              runs,
              kept_of(runs, call.element_bytes, d, 1),
              1,
              call.pairs};
}

// As many blocks as fill the device, none with too little to do; of long rows more, so that few
// multiprocessors are idle while the last blocks run.
inline int64_t splits_for(int64_t pairs, int64_t runs, const DeviceShape& d) {
  const int64_t wanted = (d.multiprocessors * kPartsOfProcessor + pairs / 2) / most(1, pairs);
  const int64_t useful = least(most(wanted, runs / kRunsOfLongPart), ceil_div(runs, kRunsOfPart));
  return most(most(1, least(useful, kMostParts)), ceil_div(runs, kMostRuns));
}

inline int64_t wave_of(const CallShape& call, const DeviceShape& d) {
  const int64_t bytes = 2 * call.classes * call.element_bytes;
  const int64_t fit = most(1, d.cache_bytes * 2 / 5 / most(1, bytes));
  const int64_t waves = ceil_div(most(1, call.pairs), fit);
  return ceil_div(call.pairs, waves);
}

inline Plan split(const CallShape& call, const DeviceShape& d) {
  const int64_t wave = call.gradient || call.two_sweeps ? wave_of(call, d) : call.pairs;
  const int64_t runs = runs_of(call.classes, call.element_bytes);
  const int64_t splits = splits_for(wave, runs, d);
  const int64_t of_part = ceil_div(runs, splits);
  return Plan{Way::kSplit, 1, 256, of_part, 0, ceil_div(runs, of_part), most(1, wave)};
}

// Whether 4/5 of the rows at least stay on chip.
inline bool holds_most(const Plan& plan) { return plan.runs_of_block * 4 <= plan.runs_on_chip * 5; }

// Cluster size by points 2 and 3 of the rule; 0 where the rows do not fit.
inline int64_t cluster_that_holds(const CallShape& call, const DeviceShape& d) {
  const int64_t runs = runs_of(call.classes, call.element_bytes);
  for (int64_t size = 1; size <= d.largest_cluster; size *= 2) {
    const int64_t of_block = ceil_div(runs, size);
    if (of_block <= kept_of(of_block, call.element_bytes, d, 2)) return size;
  }
  return holds_most(on_chip(call, d, d.largest_cluster)) ? d.largest_cluster : 0;
}

inline Plan chosen(const CallShape& call, const DeviceShape& d) {
  const int64_t runs = runs_of(call.classes, call.element_bytes);
  if (!call.gradient && !call.two_sweeps) {
    const bool small = runs <= 2 * kRunsOfBlock && holds_most(on_chip(call, d, 1)) &&
                       (call.pairs * 2 >= d.multiprocessors || runs <= kRunsOfBlock);
    return small ? on_chip(call, d, 1) : split(call, d);
  }
  int64_t size = cluster_that_holds(call, d);
  if (size == 0) return split(call, d);
  while (call.pairs * size < d.multiprocessors && size * 2 <= d.largest_cluster &&
         runs / (size * 2) >= kRunsOfBlock)
    size *= 2;
  const bool idle = call.pairs * size * 2 <= d.multiprocessors && runs / size >= 4 * kRunsOfBlock;
  return idle ? split(call, d) : on_chip(call, d, size);
}

// PAIRDISTILL_CUDA_PATH: "small", "cluster" or "cluster:4", "split"; unset: the rule.
inline Wish wish_of(const char* text) {
  const std::string name = text ? text : "";
  if (name.empty()) return Wish{};
  if (name == "small") return Wish{false, Way::kSmall, 1};
  if (name == "split") return Wish{false, Way::kSplit, 1};
  for (int64_t size = 2; size <= 16; size *= 2)
    if (name == "cluster:" + std::to_string(size)) return Wish{false, Way::kCluster, size};
  throw std::runtime_error("pair_loss: PAIRDISTILL_CUDA_PATH = \"" + name +
                           "\": must be small, split or cluster:2, :4, :8, :16");
}

inline Plan wished(const CallShape& call, const DeviceShape& d, const Wish& wish) {
  if (wish.way == Way::kSplit) return split(call, d);
  if (wish.cluster > d.largest_cluster)
    throw std::runtime_error("pair_loss: PAIRDISTILL_CUDA_PATH asks for clusters of " +
                             std::to_string(wish.cluster) + " blocks; this device has at most " +
                             std::to_string(d.largest_cluster));
  const Plan plan = on_chip(call, d, wish.cluster);
  if (!holds_most(plan))
    throw std::runtime_error("pair_loss: PAIRDISTILL_CUDA_PATH: the rows of " +
                             std::to_string(call.classes) + " classes do not fit on the chip");
  return plan;
}

inline Plan plan_of(const CallShape& call, const DeviceShape& d, const Wish& wish) {
  const Plan plan = wish.any ? chosen(call, d) : wished(call, d, wish);
  const int64_t blocks = plan.way == Way::kSplit ? plan.pairs_of_wave * plan.splits
                                                 : call.pairs * plan.cluster;
  if (blocks > kMostBlocks) throw std::runtime_error("pair_loss: too many pairs in one batch");
  return plan;
}

}  // namespace cuda
}  // namespace pairdistill
