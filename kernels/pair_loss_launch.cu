// The launches of the CUDA kernels: which, in which order, over which grid (pair_loss_plan.h).
//
// What a launch computes depends on the device and the shape alone and there are no atomics, so
// repeated runs give the same bits. Every launch is on the given stream and memory comes from the
// caller, so that a CUDA graph can capture a call.
#include "pair_loss_launch.h"

#include "pair_loss_device.h"
#include "pair_loss_on_chip.cuh"
#include "pair_loss_split.cuh"

namespace pairdistill {
namespace cuda {
namespace {

constexpr int64_t kRowWarps = 4;  // rows of a block where a warp works on one

Grid plain_grid(const Device& at, int64_t blocks, int64_t threads) {
  if (blocks > kMostBlocks) throw std::runtime_error("pair_loss: too many pairs in one batch");
  return Grid{blocks, threads, kHeaderBytes, 1, at.stream};
}
Grid warp_grid(const Device& at, int64_t pairs) {
  return plain_grid(at, ceil_div(pairs, kRowWarps), kRowWarps * kWarp);
}

template <class T>
Rows<T> rows_of(const Pairs& p) {
  return Rows<T>{static_cast<const T*>(p.first),
                 static_cast<const T*>(p.second),
                 p.stride_first,
                 p.stride_second,
                 p.pairs,
                 p.columns,
                 p.class_start,
                 p.labels};
}

template <class R>
Results<R> results_of(const RowResults& r) {
  return Results<R>{static_cast<R*>(r.values), static_cast<R*>(r.extras), r.tops,
                    static_cast<R*>(r.stats)};
}

template <class T>
Destination<T> destination_of(const GradientRows& g) {
  return Destination<T>{static_cast<T*>(g.first), static_cast<T*>(g.second), g.stride_first,
                        g.stride_second};
}

// What the mean divides by is found first: it depends on labels and weights alone.
template <class R>
Upstream<R> upstream_of(const Device& at, const Pairs& p, const UpstreamRows& u) {
  Upstream<R> upstream{static_cast<const R*>(u.values), static_cast<const R*>(u.weights), nullptr,
                       R(u.ce), R(u.similarity)};
  if (!u.mean) return upstream;
  R* const factor = static_cast<R*>(at.memory(sizeof(R)));
  launch(plain_grid(at, 1, kMostThreads), invert_weights<R>, p.labels, upstream.weights, p.pairs,
         factor);
  upstream.factor = factor;
  return upstream;
}

template <class R>
States<R> new_states(const Device& at, int64_t parts, int64_t pairs) {
  const int64_t rows = parts * pairs;
  return States<R>{static_cast<R*>(at.memory(rows * kStateOfRow * int64_t(sizeof(R)))),
                   static_cast<int64_t*>(at.memory(rows * 2 * int64_t(sizeof(int64_t)))), pairs};
}

template <class R>
States<R> states_of(const StateRows& s, int64_t pairs) {
  return States<R>{static_cast<R*>(s.values), s.tops, pairs};
}

Plan planned(const Device& at, const Pairs& p, bool gradient, bool two_sweeps) {
  const CallShape call{p.pairs, p.columns, p.score_bytes(), gradient, two_sweeps};
  return plan_of(call, shape_of(at.index), wish_of(std::getenv("PAIRDISTILL_CUDA_PATH")));
}

// The cut of a sweep over all pairs, where nothing stays on chip and nothing in the cache.
Plan sweep_plan(const Device& at, const Pairs& p) {
  const CallShape call{p.pairs, p.columns, p.score_bytes(), false, false};
  return plan_of(call, shape_of(at.index), Wish{false, Way::kSplit, 1});
}

template <class T>
void launch_on_chip(const Device& at, const Pairs& p, const Choices<Real<T>>& c,
                    const Real<T>* margins, const Plan& plan, const Results<Real<T>>& results, const Upstream<Real<T>>& upstream,
                    const Destination<T>& out) {
  const Grid grid{p.pairs * plan.cluster, plan.threads,
                  kHeaderBytes + 2 * kRunBytes * plan.runs_on_chip, plan.cluster, at.stream};
  const Cut cut{int(plan.cluster), int(plan.runs_of_block),
                int(plan.runs_on_chip / plan.threads)};
  launch(grid, on_chip<T>, rows_of<T>(p), c, margins, cut, results, upstream, out);
}

// The launches of rows that are cut over blocks, wave by wave.
template <class T>
struct SplitRows {
  using R = Real<T>;
  const Device& at;
  const Pairs& p;
  Choices<R> c;
  Plan plan;
  Rows<T> rows;

  SplitRows(const Device& device, const Pairs& pairs, const Choices<R>& choices, const Plan& cut)
      : at(device), p(pairs), c(choices), plan(cut), rows(rows_of<T>(pairs)) {}

  Splits cut(int64_t start) const { return Splits{int(plan.splits), int(plan.runs_of_block), start}; }
  Grid grid(int64_t pairs) const {
    Grid parts = plain_grid(at, pairs * plan.splits, kPartThreads);
    parts.shared_bytes += 2 * kRunBytes * kAheadOfPart * kPartThreads;
    return parts;
  }

  void reduce(int64_t start, int64_t pairs, States<R> parts) const {
    parts.pairs = pairs;
    launch(grid(pairs), reduce_parts<T>, rows, c, cut(start), parts);
  }
  void finish(int64_t start, int64_t pairs, States<R> parts, int64_t classes, const R* margins,
              const Results<R>& results) const {
    parts.pairs = pairs;
    launch(warp_grid(at, pairs), finish_rows<R>, parts, plan.splits, pairs, start, p.labels,
           classes, margins, results, c);
  }
  void mmd(int64_t start, int64_t pairs, const void* stats, R* sums, R* into,
           const Results<R>& results) const {
    launch(grid(pairs), mmd_parts<T>, rows, cut(start), c.soft_scale,
           static_cast<const R*>(stats), sums, pairs);
    launch(plain_grid(at, ceil_div(pairs, kPartThreads), kPartThreads), mmd_rows<R>, sums,
           plan.splits, pairs, start, p.labels, into, results, c);
  }
  void gradient(int64_t start, int64_t pairs, int64_t classes, const void* stats,
                const Upstream<R>& upstream, const Destination<T>& out) const {
    launch(grid(pairs), gradient_parts<T>, rows, c, cut(start), classes,
           static_cast<const R*>(stats), upstream, out);
  }
};

template <class T>
void launch_waves(const SplitRows<T>& split, const Real<T>* margins, Results<Real<T>> results,
                  const Upstream<Real<T>>& upstream, const Destination<T>& out) {
  using R = Real<T>;
  const Device& at = split.at;
  const int64_t pairs = split.p.pairs, wave = split.plan.pairs_of_wave;
  const bool mmd = split.c.kind == kMmd;
  const States<R> parts = new_states<R>(at, split.plan.splits, wave);
  R* const sums =
      mmd ? static_cast<R*>(at.memory(split.plan.splits * wave * 2 * int64_t(sizeof(R)))) : nullptr;
  if (!results.stats)
    results.stats = static_cast<R*>(at.memory(pairs * kStatsOfRow * int64_t(sizeof(R))));
  for (int64_t start = 0; start < pairs; start += wave) {
    const int64_t count = least(wave, pairs - start);
    split.reduce(start, count, parts);
    split.finish(start, count, parts, split.p.columns, margins, results);
    if (mmd) split.mmd(start, count, results.stats, sums, nullptr, results);
    if (out.first) split.gradient(start, count, split.p.columns, results.stats, upstream, out);
  }
}

template <class T>
void whole_rows_of(const Device& at, const Pairs& p, const Choices<double>& wide,
                   const void* own, const RowResults& to, const UpstreamRows& u, const GradientRows& gradients,
                   void* total) {
  using R = Real<T>;
  const Choices<R> c = converted<R>(wide);
  const R* const margins = static_cast<const R*>(own);
  const Plan plan = planned(at, p, gradients.first != nullptr, c.kind == kMmd);
  const Results<R> results = results_of<R>(to);
  const Upstream<R> upstream = upstream_of<R>(at, p, u);
  const Destination<T> out = destination_of<T>(gradients);
  if (plan.way == Way::kSplit) {
    launch_waves(SplitRows<T>(at, p, c, plan), margins, results, upstream, out);
  } else {
    launch_on_chip<T>(at, p, c, margins, plan, results, upstream, out);
  }
  if (total)
    launch(plain_grid(at, 1, kMostThreads), add_total<R>, p.labels, results.values, p.pairs,
           upstream, static_cast<R*>(total));
}

template <class T>
void accumulate_of(const Device& at, const Pairs& p, const Choices<double>& wide,
                   const StateRows& state) {
  using R = Real<T>;
  const SplitRows<T> split(at, p, converted<R>(wide), sweep_plan(at, p));
  const States<R> parts = new_states<R>(at, split.plan.splits, p.pairs);
  split.reduce(0, p.pairs, parts);
  launch(warp_grid(at, p.pairs), fold_rows<R>, parts, split.plan.splits, p.pairs, p.labels, true,
         states_of<R>(state, p.pairs), split.c);
}

template <class T>
void mmd_accumulate_of(const Device& at, const Pairs& p, const Choices<double>& wide,
                       const void* stats, void* sums) {
  using R = Real<T>;
  const SplitRows<T> split(at, p, converted<R>(wide), sweep_plan(at, p));
  R* const parts =
      static_cast<R*>(at.memory(split.plan.splits * p.pairs * 2 * int64_t(sizeof(R))));
  split.mmd(0, p.pairs, stats, parts, static_cast<R*>(sums), Results<R>{});
}

template <class T>
void gradient_of(const Device& at, const Pairs& p, int64_t classes, const Choices<double>& wide,
                 const void* stats, const UpstreamRows& u, const GradientRows& gradients) {
  using R = Real<T>;
  const SplitRows<T> split(at, p, converted<R>(wide), sweep_plan(at, p));
  split.gradient(0, p.pairs, classes, stats, upstream_of<R>(at, p, u),
                 destination_of<T>(gradients));
}

// Calls function<T>(arguments...) for the type of the scores.
#define PAIR_LOSS_BY_TYPE(type, function, ...)                          \
  switch (type) {                                                       \
    case kFloat64: return function<double>(__VA_ARGS__);                \
    case kFloat32: return function<float>(__VA_ARGS__);                 \
    case kFloat16: return function<__half>(__VA_ARGS__);                \
    case kBFloat16: return function<__nv_bfloat16>(__VA_ARGS__);        \
  }

template <class R>
void merge_states_of(const Device& at, const StateRows& states, int64_t count, int64_t pairs,
                     const Choices<double>& wide, const StateRows& into) {
  launch(warp_grid(at, pairs), fold_rows<R>, states_of<R>(states, pairs), count, pairs,
         static_cast<const int64_t*>(nullptr), false, states_of<R>(into, pairs),
         converted<R>(wide));
}

template <class R>
void finish_states_of(const Device& at, const StateRows& state, int64_t pairs,
                      const int64_t* labels, int64_t classes, const Choices<double>& wide,
                      const void* margins, const RowResults& results) {
  launch(warp_grid(at, pairs), finish_rows<R>, states_of<R>(state, pairs), 1, pairs, int64_t(0),
         labels, classes, static_cast<const R*>(margins), results_of<R>(results),
         converted<R>(wide));
}

template <class R>
void mmd_finish_of(const Device& at, const void* sums, int64_t pairs, const int64_t* labels,
                   const Choices<double>& wide, const RowResults& results) {
  launch(plain_grid(at, ceil_div(pairs, kPartThreads), kPartThreads), mmd_rows<R>,
         static_cast<const R*>(sums), 1, pairs, int64_t(0), labels, static_cast<R*>(nullptr),
         results_of<R>(results), converted<R>(wide));
}

}  // namespace

DeviceShape shape_of(int device) { return device_shape(device, on_chip<float>); }

void whole_rows(const Device& at, const Pairs& p, const Choices<double>& c, const void* margins,
                const RowResults& to, const UpstreamRows& u, const GradientRows& gradients, void* total) {
  PAIR_LOSS_BY_TYPE(p.type, whole_rows_of, at, p, c, margins, to, u, gradients, total);
}

void gradient(const Device& at, const Pairs& p, int64_t classes, const Choices<double>& c,
              const void* stats, const UpstreamRows& u, const GradientRows& gradients) {
  PAIR_LOSS_BY_TYPE(p.type, gradient_of, at, p, classes, c, stats, u, gradients);
}

void accumulate(const Device& at, const Pairs& p, const Choices<double>& c,
                const StateRows& state) {
  PAIR_LOSS_BY_TYPE(p.type, accumulate_of, at, p, c, state);
}

void mmd_accumulate(const Device& at, const Pairs& p, const Choices<double>& c, const void* stats,
                    void* sums) {
  PAIR_LOSS_BY_TYPE(p.type, mmd_accumulate_of, at, p, c, stats, sums);
}

void merge_states(const Device& at, const StateRows& states, int64_t count, int64_t pairs,
                  bool wide, const Choices<double>& c, const StateRows& into) {
  if (wide) return merge_states_of<double>(at, states, count, pairs, c, into);
  merge_states_of<float>(at, states, count, pairs, c, into);
}

void finish_states(const Device& at, const StateRows& state, int64_t pairs, bool wide,
                   const int64_t* labels, int64_t classes, const Choices<double>& c,
                   const void* margins, const RowResults& results) {
  if (wide)
    return finish_states_of<double>(at, state, pairs, labels, classes, c, margins, results);
  finish_states_of<float>(at, state, pairs, labels, classes, c, margins, results);
}

void mmd_finish(const Device& at, const void* sums, int64_t pairs, bool wide,
                const int64_t* labels, const Choices<double>& c, const RowResults& results) {
  if (wide) return mmd_finish_of<double>(at, sums, pairs, labels, c, results);
  mmd_finish_of<float>(at, sums, pairs, labels, c, results);
}

}  // namespace cuda
}  // namespace pairdistill
