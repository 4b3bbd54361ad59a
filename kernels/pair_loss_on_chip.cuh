// One kernel for both ways that keep the rows of a pair on chip: one block, or a cluster of blocks
// that hold a share of the columns each. Every score is read once and every gradient written once;
// runs beyond the shared memory of a block are read again (they are still in the level-2 cache).
//
// A run is fetched, kept, and read back by one and the same thread (`Ring`), so that the rows
// themselves need no barrier; what crosses threads are states, sums and coefficients, in `Shared`.
#pragma once

#include "pair_loss_outputs.cuh"

namespace pairdistill {
namespace cuda {
namespace {

// Blocks of one pair that see each other's shared memory. With one block nothing is done; where the
// architecture has no clusters, the host never launches more.
struct Cluster {
  int size, rank;

#if defined(PAIR_LOSS_EMULATED) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900)
  __device__ void arrive() const {
    if (size > 1) __cluster_barrier_arrive();
  }
  __device__ void wait() const {
    if (size > 1) __cluster_barrier_wait();
  }
  template <class S>
  __device__ S of_block(const S& mine, int block) const {
    if (size == 1) return mine;
    return *static_cast<const S*>(__cluster_map_shared_rank(&mine, unsigned(block)));
  }
#else
  __device__ void arrive() const {}
  __device__ void wait() const {}
  template <class S>
  __device__ S of_block(const S& mine, int) const {
    return mine;
  }
#endif
  __device__ void wait_for_all() const {
    arrive();
    wait();
  }
};

// How the host cut the pairs; `slots` runs of each row stay with each thread.
struct Cut {
  int cluster, runs_of_block, slots;
};

// The state of the whole pair, in every lane of the first warp.
template <class T, class R>
__device__ __forceinline__ PairState<R> merge_cluster(PairState<R> state, Shared<R>& shared,
                                                      const Cluster& cluster, const Choices<R>& c,
                                                      const Part<T>& part,
                                                      int64_t class_of_column_0) {
  merge_block(state, shared, c, part, class_of_column_0);
  if (cluster.size == 1) return state;
  if (threadIdx.x == 0) shared.of_block = state;
  cluster.wait_for_all();
  if (warp() != 0) return state;
  state = lane() < cluster.size ? cluster.of_block(shared.of_block, lane()) : empty_state<R>();
  merge_warp(state, c);
  return state;
}

template <class R>
__device__ __forceinline__ void sum_cluster(R& sum1, R& sum2, Shared<R>& shared,
                                            const Cluster& cluster) {
  sum_block(sum1, sum2, shared);
  if (cluster.size == 1) return;
  if (threadIdx.x == 0) shared.sums_of_block[0] = sum1, shared.sums_of_block[1] = sum2;
  cluster.wait_for_all();
  if (warp() != 0) return;
  const bool there = lane() < cluster.size;
  sum1 = sum_of_warp(there ? cluster.of_block(shared.sums_of_block[0], lane()) : R(0));
  sum2 = sum_of_warp(there ? cluster.of_block(shared.sums_of_block[1], lane()) : R(0));
}

template <class T>
__global__ void __launch_bounds__(most_row_threads(sizeof(T)), 1)
    on_chip(Rows<T> rows, Choices<Real<T>> c, const Real<T>* margins, Cut cut,
            Results<Real<T>> results, Upstream<Real<T>> upstream, Destination<T> out) {
  using R = Real<T>;
  PAIR_LOSS_DYNAMIC_SHARED(memory);
  Shared<R>& shared = *reinterpret_cast<Shared<R>*>(memory);
  const Cluster cluster{cut.cluster, int(blockIdx.x % unsigned(cut.cluster))};
  const int64_t row = blockIdx.x / unsigned(cut.cluster), label = rows.labels[row];
  const bool leader = cluster.rank == 0 && threadIdx.x == 0;
  const Part<T> part(rows, row, cluster.rank, cut.runs_of_block);
  check_label(label, rows.columns);
  if (label < 0) {
    if (leader) results.put_ignored(row);
    if (out.first) clear_part(part, out);
    return;
  }

  Ring<T, int(kRunsAhead), true> ring(part, memory + kHeaderBytes, cut.slots);
  Stream<T> stream(c, part);
  const auto again = [&](const auto& body) { ring.next_sweep(body); };
  ring.first_sweep([&](int run, const Run<T>& first, const Run<T>& second) {
    add_run(stream, part, run, first, second, c);
  });
  const RowUpstream<R> row_upstream = upstream.of_row(row);
  const int64_t class_of_column_0 = rows.class_start + part.offset;
  const PairState<R> state = merge_cluster(stream.finished(class_of_column_0, c), shared, cluster, c,
                                           part, class_of_column_0);

  if (warp() == 0) {
    RowStats<R> stats;
    const PairMargin<R> margin = margin_of(row_margins(margins, row), c);
    const RowValues<R> values = finish(state, label, rows.columns, c, margin, stats);
    if (threadIdx.x == 0) shared.stats = stats;
    if (leader) results.put(row, values);
  }
  if (c.kind == kMmd) {
    __syncthreads();
    R sum1 = R(0), sum2 = R(0);
    add_mmd_terms<T>(shared.stats, c.soft_scale, again, sum1, sum2);
    sum_cluster(sum1, sum2, shared, cluster);
    if (threadIdx.x == 0) {
      const R similarity = finish_mmd(shared.stats, sum1, sum2, c);
      if (leader) results.put_similarity(row, similarity);
    }
  }
  if (threadIdx.x == 0)
    share_gradient<T>(shared, row_upstream.gradient(shared.stats, rows.columns, c), c.kind);
  if (leader) results.put_stats(row, shared.stats);
  cluster.arrive();  // before the gradients: arriving waits for what has been written so far
  if (out.first) {
    __syncthreads();
    write_gradients(part, out, c.kind, shared, again);
  }
  cluster.wait();  // nobody leaves while another reads its shared memory
}

}  // namespace
}  // namespace cuda
}  // namespace pairdistill
