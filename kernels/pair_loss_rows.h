// How the CPU operators walk over rows: pieces of columns, their states and their gradients.
//
// The work is cut into pieces of whole columns of one pair, of a size that does not depend on the
// number of threads, and pieces are merged in their order: any number of threads gives the same
// bits. Everything outside the vector loops is computed in float64.
#pragma once

#include <cstring>

#include "pair_loss_op.h"
#include "pair_loss_types.h"

namespace pairdistill {

constexpr int64_t kPiece = 65536;          // columns of a piece
constexpr int64_t kColumnsOfTask = 16384;  // columns that are worth waking a thread for

// The best table that this processor can run (pair_loss.cpp).
const CpuTable& cpu_table();

namespace {

double read(bool wide, const void* values, int64_t at) {
  return wide ? static_cast<const double*>(values)[at] : static_cast<const float*>(values)[at];
}

void write(bool wide, void* values, int64_t at, double value) {
  if (wide) {
    static_cast<double*>(values)[at] = value;
  } else {
    static_cast<float*>(values)[at] = static_cast<float>(value);
  }
}

// Reads the margins of pairs, where they have their own.
struct MarginRows {
  bool wide;
  const void* values;  // (B, 6), or null

  PairMargin<double> of(int64_t row, const Choices<double>& c) const {
    const int64_t at = values ? row * kMarginsOfRow : 0;
    if (wide) return generic::margin_of(values ? static_cast<const double*>(values) + at : nullptr, c);
    return generic::margin_of(values ? static_cast<const float*>(values) + at : nullptr, c);
  }
};

// Both numbers of one column, in float64.
struct Column {
  double first, second;
};

double read_score(const Pairs& p, const void* values, int64_t at) {
  switch (p.type) {
    case kFloat64: return static_cast<const double*>(values)[at];
    case kFloat32: return static_cast<const float*>(values)[at];
    case kFloat16: return generic::from_half(static_cast<const uint16_t*>(values)[at]);
    default: return generic::from_bfloat(static_cast<const uint16_t*>(values)[at]);
  }
}

void write_score(const Pairs& p, void* values, int64_t at, double value) {
  switch (p.type) {
    case kFloat64: static_cast<double*>(values)[at] = value; return;
    case kFloat32: static_cast<float*>(values)[at] = float(value); return;
    case kFloat16: static_cast<uint16_t*>(values)[at] = generic::to_half(float(value)); return;
    case kBFloat16: static_cast<uint16_t*>(values)[at] = generic::to_bfloat(float(value)); return;
  }
}

const void* address(const Pairs& p, const void* base, int64_t element) {
  return static_cast<const char*>(base) + element * p.score_bytes();
}
void* address(const Pairs& p, void* base, int64_t element) {
  return static_cast<char*>(base) + element * p.score_bytes();
}

Column column(const Pairs& p, int64_t row, int64_t at) {
  return Column{read_score(p, p.first, row * p.stride_first + at),
                read_score(p, p.second, row * p.stride_second + at)};
}

// Columns [from, to) of one pair, with the target's column cut out: up to two runs.
struct Run {
  int64_t from, count;
};
struct Runs {
  Run run[2];
  bool holds_target;
};
Runs without_target(int64_t from, int64_t to, int64_t target) {
  const bool inside = target >= from && target < to;
  if (!inside) return Runs{{{from, to - from}, {to, 0}}, false};
  return Runs{{{from, target - from}, {target + 1, to - target - 1}}, true};
}

ConstColumns columns(const Pairs& p, int64_t row, Run run) {
  return ConstColumns{address(p, p.first, row * p.stride_first + run.from),
                      address(p, p.second, row * p.stride_second + run.from), run.count};
}

bool ignored(const Pairs& p, int64_t row) { return p.labels[row] < 0; }

int64_t pieces_of(const Pairs& p) { return (p.columns + kPiece - 1) / kPiece; }

// The columns of a piece.
struct Span {
  int64_t from, to;
};
Span span_of(const Pairs& p, int64_t piece) {
  const int64_t from = piece * kPiece;
  return Span{from, from + kPiece < p.columns ? from + kPiece : p.columns};
}

// Calls work(row) for rows [begin, end), in parallel; `columns` says how much work a row is.
template <class Work>
void for_rows(int64_t begin, int64_t end, int64_t columns, const Work& work) {
  const int64_t grain = columns > 0 ? (kColumnsOfTask + columns - 1) / columns : 1;
  torch::stable::parallel_for(begin, end, grain, [&](int64_t from, int64_t to) {
    for (int64_t row = from; row < to; ++row) work(row);
  });
}

// Calls work(row, piece) for every piece of rows [begin, end), in parallel.
template <class Work>
void for_pieces(const Pairs& p, int64_t begin, int64_t end, const Work& work) {
  const int64_t pieces = pieces_of(p), length = p.columns < kPiece ? p.columns : kPiece;
  for_rows(begin * pieces, end * pieces, length,
           [&](int64_t task) { work(task / pieces, task % pieces); });
}

// Adds a piece of a row to a state, the target's column too.
void add_piece(const Pairs& p, int64_t row, int64_t piece, const Choices<double>& c,
               PairState<double>& state) {
  const Span span = span_of(p, piece);
  const int64_t target = p.labels[row] - p.class_start;
  const Runs runs = without_target(span.from, span.to, target);
  for (const Run& run : runs.run)
    if (run.count > 0)
      cpu_table().reduce(p.type, columns(p, row, run), p.class_start + run.from, c, state);
  if (!runs.holds_target) return;
  const Column x_y = column(p, row, target);
  state.first.y += x_y.first;
  state.second.y += x_y.second;
}

// mmd's sums over a piece, the target's column too.
void add_mmd(const Pairs& p, int64_t row, int64_t piece, const RowStats<double>& stats,
             const Choices<double>& c, double* sums) {
  const Span span = span_of(p, piece);
  cpu_table().mmd(p.type, columns(p, row, Run{span.from, span.to - span.from}), stats,
                  c.soft_scale, sums, sums + 1);
}

// Where gradients go; strides as those of the scores.
struct Destination {
  void* first;
  void* second;
  int64_t stride_first, stride_second;
};

struct Exact {
  static double of(double x) { return std::exp(x); }
};

void piece_gradient(const Pairs& p, const Destination& out, int64_t row, int64_t piece,
                    const PairGradient<double>& g, int kind) {
  const Span span = span_of(p, piece);
  const int64_t target = p.labels[row] - p.class_start;
  const Runs runs = without_target(span.from, span.to, target);
  const int64_t at1 = row * out.stride_first, at2 = row * out.stride_second;
  for (const Run& run : runs.run) {
    const Columns destination{address(p, out.first, at1 + run.from),
                              address(p, out.second, at2 + run.from)};
    if (run.count > 0)
      cpu_table().gradient(p.type, kind, columns(p, row, run), destination, g);
  }
  if (!runs.holds_target) return;
  const Column x_y = column(p, row, target);
  double d1, d2;
  generic::target_gradient<Exact>(kind, g, x_y.first, x_y.second, d1, d2);
  write_score(p, out.first, at1 + target, d1);
  write_score(p, out.second, at2 + target, d2);
}

// No gradient reaches an ignored pair, whatever its scores are.
void clear_piece(const Pairs& p, const Destination& out, int64_t row, int64_t piece) {
  const Span span = span_of(p, piece);
  const int64_t bytes = (span.to - span.from) * p.score_bytes();
  std::memset(address(p, out.first, row * out.stride_first + span.from), 0, bytes);
  std::memset(address(p, out.second, row * out.stride_second + span.from), 0, bytes);
}

// The statistics as they will be read back: rounded to the type they are stored in.
RowStats<double> read_stats(bool wide, const void* stats, int64_t row) {
  RowStats<double> out;
  double* values = reinterpret_cast<double*>(&out);
  for (int i = 0; i < kStatsOfRow; ++i) values[i] = read(wide, stats, row * kStatsOfRow + i);
  return out;
}

void write_stats(bool wide, void* stats, int64_t row, const RowStats<double>& in) {
  const double* values = reinterpret_cast<const double*>(&in);
  for (int i = 0; i < kStatsOfRow; ++i) write(wide, stats, row * kStatsOfRow + i, values[i]);
}

// What `ForwardOutputs` holds, as pointers.
struct RowOutputs {
  bool wide;
  void* values;
  void* extras;
  int64_t* tops;

  RowOutputs(const ForwardOutputs& out, bool is_wide)
      : wide(is_wide),
        values(out.values.data_ptr()),
        extras(out.extras.data_ptr()),
        tops(static_cast<int64_t*>(out.tops.data_ptr())) {}

  void put(int64_t row, const RowValues<double>& v) const {
    const double all[kValuesOfRow + kExtrasOfRow] = {v.ce_first,      v.ce_second,
                                                     v.similarity,    v.entropy_first,
                                                     v.entropy_second, v.p_first, v.p_second};
    for (int i = 0; i < kValuesOfRow; ++i) write(wide, values, row * kValuesOfRow + i, all[i]);
    for (int i = 0; i < kExtrasOfRow; ++i)
      write(wide, extras, row * kExtrasOfRow + i, all[kValuesOfRow + i]);
    tops[2 * row] = v.top_first;
    tops[2 * row + 1] = v.top_second;
  }
};

inline void check_labels(const int64_t* labels, int64_t pairs, int64_t classes) {
  for (int64_t row = 0; row < pairs; ++row)
    STD_TORCH_CHECK(labels[row] >= -1 && labels[row] < classes, "pair_loss: labels[", row,
                    "] = ", labels[row], ": must be in [0, ", classes, "), or -1 for ignored");
}

}  // namespace
}  // namespace pairdistill
