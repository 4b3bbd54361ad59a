// The operators' CPU implementation.
//
// The work is cut into pieces of whole columns of one pair, of a size that does not depend on the
// number of threads, and pieces are merged in their order: any number of threads gives the same
// bits. Everything outside the vector loops is computed in float64.
#include "pair_loss_op.h"

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "pair_loss_types.h"

namespace pairdistill {
namespace {

constexpr int64_t kPiece = 65536;          // columns of a piece
constexpr int64_t kColumnsOfTask = 16384;  // columns that are worth waking a thread for

#ifdef PAIR_LOSS_X86
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

// The best table that this processor can run, or at most the one that PAIRDISTILL_CPU names.
const CpuTable& chosen_table() {
  const char* named = std::getenv("PAIRDISTILL_CPU");
  const std::string most = named ? named : "avx512";
  if (most == "avx512" && has_avx512()) return avx512::table;
  if (most != "generic" && has_avx2()) return avx2::table;
  return generic::table;
}
#else
const CpuTable& chosen_table() { return generic::table; }
#endif

const CpuTable& cpu_table() {
  static const CpuTable& table = chosen_table();
  return table;
}

double read(const Pairs& p, const void* values, int64_t at) {
  return p.wide() ? static_cast<const double*>(values)[at] : static_cast<const float*>(values)[at];
}

void write(const Pairs& p, void* values, int64_t at, double value) {
  if (p.wide()) {
    static_cast<double*>(values)[at] = value;
  } else {
    static_cast<float*>(values)[at] = static_cast<float>(value);
  }
}

const void* address(const Pairs& p, const void* base, int64_t element) {
  return static_cast<const char*>(base) + element * p.logit_bytes();
}

// Columns [from, to) of one pair, with the target's column cut out: up to two runs.
struct Run {
  int64_t from, count;
};
struct Runs {
  Run run[2];
  bool holds_target;
};
Runs without_target(int64_t from, int64_t to, int64_t label) {
  const bool inside = label >= from && label < to;
  if (!inside) return Runs{{{from, to - from}, {to, 0}}, false};
  return Runs{{{from, label - from}, {label + 1, to - label - 1}}, true};
}

ConstColumns columns(const Pairs& p, int64_t row, Run run) {
  return ConstColumns{address(p, p.first, row * p.stride_first + run.from),
                      address(p, p.second, row * p.stride_second + run.from), run.count};
}

// Both logits of one column, in float64.
struct Column {
  double first, second;
};
Column column(const Pairs& p, int64_t row, int64_t at) {
  // The vector loops know the types: one column's state has its logits as its maxima.
  const Choices<double> none{kNone, 1.0, 0.0, 0.0, 0.0, 0.0};
  const PairState<double> one =
      cpu_table().reduce(p.type, columns(p, row, Run{at, 1}), at, none);
  return Column{one.first.sum, one.second.sum};
}

int64_t pieces_of(const Pairs& p) { return (p.classes + kPiece - 1) / kPiece; }

// Calls work(row, piece, from, to) for every piece of every row that is not ignored.
template <class Work>
void for_each_piece(const Pairs& p, const Work& work) {
  const int64_t pieces = pieces_of(p), length = p.classes < kPiece ? p.classes : kPiece;
  const int64_t grain = (kColumnsOfTask + length - 1) / length;
  torch::stable::parallel_for(0, p.pairs * pieces, grain, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t row = task / pieces, piece = task % pieces, from = piece * kPiece;
      if (p.labels[row] < 0) continue;
      work(row, piece, from, from + kPiece < p.classes ? from + kPiece : p.classes);
    }
  });
}

PairState<double> piece_state(const Pairs& p, int64_t row, int64_t from, int64_t to,
                              const Choices<double>& c) {
  const Runs runs = without_target(from, to, p.labels[row]);
  PairState<double> state = generic::empty_state<double>();
  for (const Run& run : runs.run)
    if (run.count > 0)
      generic::merge(state, cpu_table().reduce(p.type, columns(p, row, run), run.from, c), c);
  return state;
}

// The statistics as they will be read back: rounded to the type they are stored in.
RowStats<double> read_stats(const Pairs& p, const void* stats, int64_t row) {
  RowStats<double> out;
  double* values = reinterpret_cast<double*>(&out);
  for (int i = 0; i < kStatsOfRow; ++i) values[i] = read(p, stats, row * kStatsOfRow + i);
  return out;
}

void write_stats(const Pairs& p, void* stats, int64_t row, const RowStats<double>& in) {
  const double* values = reinterpret_cast<const double*>(&in);
  for (int i = 0; i < kStatsOfRow; ++i) write(p, stats, row * kStatsOfRow + i, values[i]);
}

void check_labels(const Pairs& p) {
  for (int64_t row = 0; row < p.pairs; ++row)
    STD_TORCH_CHECK(p.labels[row] >= -1 && p.labels[row] < p.classes, "pair_loss: labels[", row,
                    "] = ", p.labels[row], ": must be in [0, ", p.classes, "), or -1 for ignored");
}

void write_row(const Pairs& p, const ForwardOutputs& out, int64_t row,
               const RowValues<double>& values) {
  write(p, out.ce_first.data_ptr(), row, values.ce_first);
  write(p, out.ce_second.data_ptr(), row, values.ce_second);
  write(p, out.similarity.data_ptr(), row, values.similarity);
  static_cast<int64_t*>(out.top_first.data_ptr())[row] = values.top_first;
  static_cast<int64_t*>(out.top_second.data_ptr())[row] = values.top_second;
}

void finish_row(const Pairs& p, const ForwardOutputs& out, int64_t row,
                const PairState<double>* states, const Choices<double>& c) {
  RowStats<double> stats{};
  if (p.labels[row] < 0) {
    write_row(p, out, row, RowValues<double>{0.0, 0.0, 0.0, -1, -1});
    return write_stats(p, out.stats.data_ptr(), row, stats);
  }
  PairState<double> state = states[0];
  for (int64_t piece = 1; piece < pieces_of(p); ++piece) generic::merge(state, states[piece], c);
  const Column z_y = column(p, row, p.labels[row]);
  const double target1 = p.target_first ? read(p, p.target_first, row) : z_y.first;
  const double target2 = p.target_second ? read(p, p.target_second, row) : z_y.second;
  write_row(p, out, row,
            generic::finish(state, z_y.first, z_y.second, target1, target2, p.labels[row],
                            p.classes, c, stats));
  write_stats(p, out.stats.data_ptr(), row, stats);
}

// mmd's second sweep, over all columns, the target's too.
void add_mmd(const Pairs& p, const ForwardOutputs& out, const Choices<double>& c) {
  const int64_t pieces = pieces_of(p);
  std::vector<double> sums(p.pairs * pieces * 2, 0.0);
  void* stats = out.stats.data_ptr();
  for_each_piece(p, [&](int64_t row, int64_t piece, int64_t from, int64_t to) {
    double* sum = &sums[(row * pieces + piece) * 2];
    cpu_table().mmd(p.type, columns(p, row, Run{from, to - from}), read_stats(p, stats, row),
                    c.inv_temperature, sum, sum + 1);
  });
  for (int64_t row = 0; row < p.pairs; ++row) {
    double mean1 = 0.0, mean2 = 0.0;
    for (int64_t piece = 0; piece < pieces; ++piece) {
      mean1 += sums[(row * pieces + piece) * 2];
      mean2 += sums[(row * pieces + piece) * 2 + 1];
    }
    write(p, stats, row * kStatsOfRow + 5, mean1);
    write(p, stats, row * kStatsOfRow + 11, mean2);
    write(p, out.similarity.data_ptr(), row, c.scale * (mean1 + mean2));
  }
}

ForwardResult forward_cpu(const Tensor& first, const Tensor& second, const Tensor& labels,
                          const MaybeTensor& target_first, const MaybeTensor& target_second,
                          double temperature, int64_t kind, double forward, double reverse,
                          double scale, double label_smoothing, int64_t /*stop_gradient*/) {
  const Pairs p = checked_pairs(first, second, labels, target_first, target_second);
  const Choices<double> c =
      checked_choices(temperature, kind, forward, reverse, scale, label_smoothing);
  check_labels(p);
  const ForwardOutputs out(first, p);
  const int64_t pieces = pieces_of(p);
  std::vector<PairState<double>> states(p.pairs * pieces);
  for_each_piece(p, [&](int64_t row, int64_t piece, int64_t from, int64_t to) {
    states[row * pieces + piece] = piece_state(p, row, from, to, c);
  });
  for (int64_t row = 0; row < p.pairs; ++row) finish_row(p, out, row, &states[row * pieces], c);
  if (c.kind == kMmd) add_mmd(p, out, c);
  return out.result();
}

// One number, in the type of the logits.
void write_logit(const Pairs& p, void* values, int64_t at, double value) {
  switch (p.type) {
    case kFloat64: static_cast<double*>(values)[at] = value; return;
    case kFloat32: static_cast<float*>(values)[at] = float(value); return;
    case kFloat16: static_cast<uint16_t*>(values)[at] = generic::to_half(float(value)); return;
    case kBFloat16: static_cast<uint16_t*>(values)[at] = generic::to_bfloat(float(value)); return;
  }
}

struct Exact {
  static double of(double x) { return std::exp(x); }
};

// The target's column: the similarity's gradient, and the cross-entropy's where no margin takes it.
void target_gradient(const Pairs& p, const BackwardOutputs& out, int64_t row,
                     const PairGradient<double>& g, int kind) {
  const int64_t label = p.labels[row], at = row * p.classes + label;
  const Column z_y = column(p, row, label);
  double d1, d2;
  generic::soft_gradient<Exact>(kind, g, z_y.first, z_y.second, d1, d2);
  if (p.target_first) {
    write(p, out.target_first.data_ptr(), row, g.first.at_target);
    write(p, out.target_second.data_ptr(), row, g.second.at_target);
  } else {
    d1 += g.first.at_target;
    d2 += g.second.at_target;
  }
  write_logit(p, out.first.data_ptr(), at, d1);
  write_logit(p, out.second.data_ptr(), at, d2);
}

void piece_gradient(const Pairs& p, const BackwardOutputs& out, int64_t row, int64_t from,
                    int64_t to, const PairGradient<double>& g, int kind) {
  const Runs runs = without_target(from, to, p.labels[row]);
  for (const Run& run : runs.run) {
    const int64_t at = (row * p.classes + run.from) * p.logit_bytes();
    const Columns destination{static_cast<char*>(out.first.data_ptr()) + at,
                              static_cast<char*>(out.second.data_ptr()) + at};
    if (run.count > 0)
      cpu_table().gradient(p.type, kind, columns(p, row, run), destination, g);
  }
  if (runs.holds_target) target_gradient(p, out, row, g, kind);
}

// No gradient reaches an ignored pair, whatever its logits are.
void clear_ignored(const Pairs& p, const BackwardOutputs& out) {
  const int64_t bytes = p.classes * p.logit_bytes();
  for (int64_t row = 0; row < p.pairs; ++row) {
    if (p.labels[row] >= 0) continue;
    std::memset(static_cast<char*>(out.first.data_ptr()) + row * bytes, 0, bytes);
    std::memset(static_cast<char*>(out.second.data_ptr()) + row * bytes, 0, bytes);
    if (!p.target_first) continue;
    write(p, out.target_first.data_ptr(), row, 0.0);
    write(p, out.target_second.data_ptr(), row, 0.0);
  }
}

BackwardResult backward_cpu(const Tensor& grad_ce_first, const Tensor& grad_ce_second,
                            const Tensor& grad_similarity, const Tensor& first,
                            const Tensor& second, const Tensor& labels,
                            const MaybeTensor& target_first, const MaybeTensor& target_second,
                            const Tensor& stats, double temperature, int64_t kind, double forward,
                            double reverse, double scale, double label_smoothing,
                            int64_t stop_gradient) {
  const Pairs p = checked_pairs(first, second, labels, target_first, target_second);
  const Choices<double> c =
      checked_choices(temperature, kind, forward, reverse, scale, label_smoothing);
  check_labels(p);
  check_stats(stats, p);
  const void* up1 = checked_upstream("grad_ce_first", grad_ce_first, p);
  const void* up2 = checked_upstream("grad_ce_second", grad_ce_second, p);
  const void* up_similarity = checked_upstream("grad_similarity", grad_similarity, p);
  const BackwardOutputs out(first, p);
  for_each_piece(p, [&](int64_t row, int64_t, int64_t from, int64_t to) {
    const PairGradient<double> g = generic::row_gradient(
        read_stats(p, stats.data_ptr(), row), read(p, up1, row), read(p, up2, row),
        read(p, up_similarity, row), stop_gradient != 1, stop_gradient != 2, p.classes, c);
    piece_gradient(p, out, row, from, to, g, c.kind);
  });
  clear_ignored(p, out);
  return out.result();
}

// Which table runs on this processor; for `doctor`.
std::string cpu_instructions() { return cpu_table().name; }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pairdistill, CPU, m) {
  m.impl("pair_loss", TORCH_BOX(&forward_cpu));
  m.impl("pair_loss_backward", TORCH_BOX(&backward_cpu));
}

STABLE_TORCH_LIBRARY_IMPL(pairdistill, CompositeExplicitAutograd, m) {
  m.impl("cpu_instructions", TORCH_BOX(&cpu_instructions));
}

}  // namespace pairdistill
