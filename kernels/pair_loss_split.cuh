// The kernels of rows that are cut over many blocks, and of classes that arrive in chunks.
#pragma once

#include "pair_loss_outputs.cuh"

namespace pairdistill {
namespace cuda {
namespace {

constexpr int kPartThreads = 256;
template <class T> constexpr int kPartBlocks = sizeof(T) == 8 ? 1 : 3;  // on a multiprocessor
constexpr int kAheadOfPart = 3;  // runs that a thread has under way
template <class T> using PartRing = Ring<T, kAheadOfPart, false>;

// How the host cut the rows: the launch works on pairs [pair_start, pair_start + gridDim / splits).
struct Splits {
  int splits, runs_of_part;
  int64_t pair_start;

  __device__ int64_t pair() const { return blockIdx.x / unsigned(splits); }
  __device__ int64_t row() const { return pair_start + pair(); }
  __device__ int64_t part() const { return blockIdx.x % unsigned(splits); }
};

// States as rows of matrices: the state of (part, pair) is row part * pairs + pair.
template <class R>
struct States {
  R* values;
  int64_t* tops;
  int64_t pairs;

  __device__ PairState<R> get(int64_t part, int64_t pair) const {
    const int64_t at = part * pairs + pair;
    return load_state<R>(values + at * kStateOfRow, tops + at * 2);
  }
  __device__ void put(int64_t part, int64_t pair, const PairState<R>& state) const {
    const int64_t at = part * pairs + pair;
    store_state(state, values + at * kStateOfRow, tops + at * 2);
  }
};

// The state of each part.
template <class T>
__global__ void __launch_bounds__(kPartThreads, kPartBlocks<T>)
    reduce_parts(Rows<T> rows, Choices<Real<T>> c, Splits cut, States<Real<T>> parts) {
  using R = Real<T>;
  PAIR_LOSS_DYNAMIC_SHARED(memory);
  const Part<T> part(rows, cut.row(), cut.part(), cut.runs_of_part);
  if (rows.labels[part.row] < 0) return;
  const PartRing<T> ring(part, memory + kHeaderBytes, kAheadOfPart);
  Stream<T> stream(c, part);
  ring.first_sweep([&](int run, const Run<T>& first, const Run<T>& second) {
    add_run(stream, part, run, first, second, c);
  });
  const int64_t class_of_column_0 = rows.class_start + part.offset;
  PairState<R> state = stream.finished(class_of_column_0, c);
  merge_block(state, *reinterpret_cast<Shared<R>*>(memory), c, part, class_of_column_0);
  if (threadIdx.x == 0) parts.put(cut.part(), cut.pair(), state);
}

// The parts of a pair merged by one warp: each lane takes every 32nd in order, then the lanes meet.
template <class R>
__device__ __forceinline__ PairState<R> merge_parts(const States<R>& parts, int count, int64_t pair,
                                                    const Choices<R>& c) {
  PairState<R> state = empty_state<R>();
#pragma unroll 1
  for (int part = lane(); part < count; part += kWarp) merge(state, parts.get(part, pair), c);
  merge_warp(state, c);
  return state;
}

// One warp a pair: its parts are merged into `into`, beside what is there if `add` says so. Without
// labels no pair is ignored.
template <class R>
__global__ void __launch_bounds__(kMostThreads)
    fold_rows(States<R> parts, int count, int64_t pairs, const int64_t* labels, bool add,
              States<R> into, Choices<R> c) {
  const int64_t pair = int64_t(blockIdx.x) * warps() + warp();
  if (pair >= pairs || (labels && labels[pair] < 0)) return;
  PairState<R> state = merge_parts(parts, count, pair, c);
  if (lane() != 0) return;
  if (add) {
    PairState<R> before = into.get(0, pair);
    merge(before, state, c);
    state = before;
  }
  into.put(0, pair, state);
}

// One warp a pair: its parts are merged and its row is finished.
template <class R>
__global__ void __launch_bounds__(kMostThreads)
    finish_rows(States<R> parts, int count, int64_t pairs, int64_t pair_start,
                const int64_t* labels, int64_t classes, const R* margins, Results<R> results,
                Choices<R> c) {
  const int64_t pair = int64_t(blockIdx.x) * warps() + warp(), row = pair_start + pair;
  if (pair >= pairs) return;
  const int64_t label = labels[row];
  check_label(label, classes);
  if (label < 0) {
    if (lane() == 0) results.put_ignored(row);
    return;
  }
  const PairState<R> state = merge_parts(parts, count, pair, c);
  RowStats<R> stats;
  const PairMargin<R> margin = margin_of(row_margins(margins, row), c);
  const RowValues<R> values = finish(state, label, classes, c, margin, stats);
  if (lane() != 0) return;
  results.put(row, values);
  results.put_stats(row, stats);
}

// mmd's two sums of each part; the sums of (part, pair) are row part * pairs + pair.
template <class T>
__global__ void __launch_bounds__(kPartThreads, kPartBlocks<T>)
    mmd_parts(Rows<T> rows, Splits cut, Real<T> soft_scale, const Real<T>* stats, Real<T>* sums,
              int64_t pairs) {
  using R = Real<T>;
  PAIR_LOSS_DYNAMIC_SHARED(memory);
  const Part<T> part(rows, cut.row(), cut.part(), cut.runs_of_part);
  if (rows.labels[part.row] < 0) return;
  const RowStats<R> row_stats = reinterpret_cast<const RowStats<R>*>(stats)[part.row];
  R sum1 = R(0), sum2 = R(0);
  const PartRing<T> ring(part, memory + kHeaderBytes, kAheadOfPart);
  add_mmd_terms<T>(
      row_stats, soft_scale, [&](const auto& body) { ring.first_sweep(body); }, sum1, sum2);
  sum_block(sum1, sum2, *reinterpret_cast<Shared<R>*>(memory));
  if (threadIdx.x != 0) return;
  R* const at = sums + 2 * (cut.part() * pairs + cut.pair());
  at[0] = sum1;
  at[1] = sum2;
}

// One thread a pair adds mmd's sums in order: into `into` where it is given, else into the row.
template <class R>
__global__ void __launch_bounds__(kMostThreads)
    mmd_rows(const R* sums, int count, int64_t pairs, int64_t pair_start, const int64_t* labels,
             R* into, Results<R> results, Choices<R> c) {
  const int64_t pair = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, row = pair_start + pair;
  if (pair >= pairs || labels[row] < 0) return;
  R sum1 = into ? into[2 * pair] : R(0), sum2 = into ? into[2 * pair + 1] : R(0);
#pragma unroll 1
  for (int part = 0; part < count; ++part) {
    sum1 += sums[2 * (part * pairs + pair)];
    sum2 += sums[2 * (part * pairs + pair) + 1];
  }
  if (into) {
    into[2 * pair] = sum1;
    into[2 * pair + 1] = sum2;
    return;
  }
  RowStats<R>& stats = reinterpret_cast<RowStats<R>*>(results.stats)[row];
  results.put_similarity(row, finish_mmd(stats, sum1, sum2, c));
}

// The gradients of each part from the statistics of its row. Here the scores are read for the last
// time. Two rounds of the same reads would differ where `out` is the scores: each thread loads
// only what it alone writes.
template <class T>
__global__ void __launch_bounds__(kPartThreads, kPartBlocks<T>)
    gradient_parts(Rows<T> rows, Choices<Real<T>> c, Splits cut, int64_t classes,
                   const Real<T>* stats, Upstream<Real<T>> upstream, Destination<T> out) {
  using R = Real<T>;
  PAIR_LOSS_DYNAMIC_SHARED(memory);
  Shared<R>& shared = *reinterpret_cast<Shared<R>*>(memory);
  const Part<T> part(rows, cut.row(), cut.part(), cut.runs_of_part);
  if (rows.labels[part.row] < 0) return clear_part(part, out);
  if (threadIdx.x == 0) {
    const RowStats<R> row_stats = reinterpret_cast<const RowStats<R>*>(stats)[part.row];
    share_gradient<T>(shared, upstream.of_row(part.row).gradient(row_stats, classes, c), c.kind);
  }
  __syncthreads();
  const PartRing<T> ring(part, memory + kHeaderBytes, kAheadOfPart);
  write_gradients(part, out, c.kind, shared,
                  [&](const auto& body) { ring.first_sweep(body); });
}

// One block: 1 / the sum of the weights of the pairs that are not ignored; 1 where that is 0.
template <class R>
__global__ void __launch_bounds__(kMostThreads)
    invert_weights(const int64_t* labels, const R* weights, int64_t pairs, R* factor) {
  PAIR_LOSS_DYNAMIC_SHARED(memory);
  R total = R(0), none = R(0);
  for (int64_t row = threadIdx.x; row < pairs; row += blockDim.x)
    if (labels[row] >= 0) total += weights ? weights[row] : R(1);
  sum_block(total, none, *reinterpret_cast<Shared<R>*>(memory));
  if (threadIdx.x == 0) *factor = total == R(0) ? R(1) : R(1) / total;
}

// One block: the total of all pairs. A similarity that weighs nothing is not met.
template <class R>
__global__ void __launch_bounds__(kMostThreads)
    add_total(const int64_t* labels, const R* values, int64_t pairs, Upstream<R> upstream,
              R* total) {
  PAIR_LOSS_DYNAMIC_SHARED(memory);
  R sum = R(0), none = R(0);
  for (int64_t row = threadIdx.x; row < pairs; row += blockDim.x) {
    if (labels[row] < 0) continue;
    R value = upstream.ce * (values[3 * row] + values[3 * row + 1]);
    if (upstream.similarity != R(0)) value += upstream.similarity * values[3 * row + 2];
    sum += upstream.share(row) * value;
  }
  sum_block(sum, none, *reinterpret_cast<Shared<R>*>(memory));
  if (threadIdx.x == 0) *total = sum;
}

}  // namespace
}  // namespace cuda
}  // namespace pairdistill
