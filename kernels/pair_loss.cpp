// The operators over whole rows on the CPU: forward, backward, and both in one sweep of memory.
#include <cstdlib>
#include <string>
#include <vector>

#include "pair_loss_rows.h"

namespace pairdistill {
namespace {

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

}  // namespace

const CpuTable& cpu_table() {
  static const CpuTable& table = chosen_table();
  return table;
}

namespace {

// Rows whose scores are to be in the cache still when their gradients are computed: of all threads
// that have a row each, or of a wave that all threads share.
constexpr int64_t kCacheBytes = 24 << 20;
constexpr int64_t kWaveBytes = 4 << 20;
constexpr int64_t kTasksOfThread = 4;  // rows, or pieces of a wave, for each thread

// The upstream gradients of a row's three values.
struct Upstream {
  double first, second, similarity;
};

// One call over whole rows. Where there are rows for all threads and the cache holds one for each,
// a thread takes a row from its scores to its gradients; else all threads share the pieces of a
// wave of rows, phase by phase. The bits are the same.
struct Sweep {
  Pairs p;
  Choices<double> c;
  MarginRows margins;
  const RowOutputs* out;      // null: backward from saved statistics
  void* saved;                // statistics to write or to read; null where nobody needs them
  const Destination* gradients;  // null: forward alone
  std::vector<PairState<double>> states;
  std::vector<RowStats<double>> stats;
  std::vector<double> sums;

  void reduce(int64_t row, int64_t piece, PairState<double>& state) const {
    state = generic::empty_state<double>();
    if (!ignored(p, row)) add_piece(p, row, piece, c, state);
  }

  RowValues<double> finish(int64_t row, const PairState<double>& total,
                           RowStats<double>& found) const {
    found = RowStats<double>{};
    if (ignored(p, row)) return generic::ignored_values<double>();
    return generic::finish(total, p.labels[row], p.columns, c, margins.of(row, c), found);
  }

  template <class Up>
  void gradient(int64_t row, int64_t piece, const RowStats<double>& found, const Up& up) const {
    if (ignored(p, row)) return clear_piece(p, *gradients, row, piece);
    const Upstream u = up(row);
    const PairGradient<double> g =
        generic::row_gradient(found, u.first, u.second, u.similarity, p.columns, c);
    piece_gradient(p, *gradients, row, piece, g, c.kind);
  }

  void put(int64_t row, const RowValues<double>& values, const RowStats<double>& found) const {
    out->put(row, values);
    if (saved) write_stats(p.wide(), saved, row, found);
  }

  // A row from its scores to its gradients.
  template <class Up>
  void whole_row(int64_t row, const Up& up) const {
    const int64_t pieces = pieces_of(p);
    PairState<double> total, next;
    RowStats<double> found;
    reduce(row, 0, total);
    for (int64_t piece = 1; piece < pieces; ++piece) {
      reduce(row, piece, next);
      generic::merge(total, next, c);
    }
    RowValues<double> values = finish(row, total, found);
    if (c.kind == kMmd && !ignored(p, row)) {
      double sum[2] = {0.0, 0.0};
      for (int64_t piece = 0; piece < pieces; ++piece) {
        double part[2] = {0.0, 0.0};
        add_mmd(p, row, piece, found, c, part);
        for (int i = 0; i < 2; ++i) sum[i] += part[i];
      }
      values.similarity = generic::finish_mmd(found, sum[0], sum[1], c);
    }
    put(row, values, found);
    for (int64_t piece = 0; gradients && piece < pieces; ++piece) gradient(row, piece, found, up);
  }

  // Rows [begin, end), each of several pieces.
  template <class Up>
  void wave(int64_t begin, int64_t end, const Up& up) {
    const int64_t pieces = pieces_of(p);
    states.resize((end - begin) * pieces);
    stats.resize(end - begin);
    std::vector<RowValues<double>> values(end - begin);
    for_pieces(p, begin, end, [&](int64_t row, int64_t piece) {
      reduce(row, piece, states[(row - begin) * pieces + piece]);
    });
    for (int64_t row = begin; row < end; ++row) {
      PairState<double>* of_row = &states[(row - begin) * pieces];
      for (int64_t i = 1; i < pieces; ++i) generic::merge(of_row[0], of_row[i], c);
      values[row - begin] = finish(row, of_row[0], stats[row - begin]);
    }
    if (c.kind == kMmd) wave_mmd(begin, end, values);
    for (int64_t row = begin; row < end; ++row) put(row, values[row - begin], stats[row - begin]);
    if (!gradients) return;
    for_pieces(p, begin, end, [&](int64_t row, int64_t piece) {
      gradient(row, piece, stats[row - begin], up);
    });
  }

  void wave_mmd(int64_t begin, int64_t end, std::vector<RowValues<double>>& values) {
    const int64_t pieces = pieces_of(p);
    sums.assign((end - begin) * pieces * 2, 0.0);
    for_pieces(p, begin, end, [&](int64_t row, int64_t piece) {
      if (!ignored(p, row))
        add_mmd(p, row, piece, stats[row - begin], c, &sums[((row - begin) * pieces + piece) * 2]);
    });
    for (int64_t row = begin; row < end; ++row) {
      if (ignored(p, row)) continue;
      double sum[2] = {0.0, 0.0};
      for (int64_t i = 0; i < 2 * pieces; ++i) sum[i % 2] += sums[(row - begin) * pieces * 2 + i];
      values[row - begin].similarity =
          generic::finish_mmd(stats[row - begin], sum[0], sum[1], c);
    }
  }

  template <class Up>
  void run(const Up& up) {
    const int64_t pieces = pieces_of(p), threads = torch::stable::get_num_threads();
    const int64_t row_bytes = 2 * p.columns * p.score_bytes();
    const bool cached = !gradients || threads * row_bytes <= kCacheBytes;
    if (pieces == 1 || (cached && p.pairs >= kTasksOfThread * threads))
      return for_rows(0, p.pairs, p.columns, [&](int64_t row) { whole_row(row, up); });
    const int64_t busy = (kTasksOfThread * threads + pieces - 1) / pieces;
    const int64_t fitting = gradients ? kWaveBytes / row_bytes : p.pairs;
    const int64_t rows = fitting > busy ? fitting : busy;
    for (int64_t begin = 0; begin < p.pairs; begin += rows)
      wave(begin, begin + rows < p.pairs ? begin + rows : p.pairs, up);
  }
};

Upstream no_upstream(int64_t) { return Upstream{0.0, 0.0, 0.0}; }

ForwardResult forward_cpu(const Tensor& first, const Tensor& second, const Tensor& labels,
                          PAIR_LOSS_CHOICES, const MaybeTensor& margins) {
  const Pairs p = checked_pairs(first, second, labels);
  const Choices<double> c = checked_choices(PAIR_LOSS_CHOICE_NAMES, p.wide());
  check_labels(p.labels, p.pairs, p.columns);
  const ForwardOutputs out(first, p.pairs, p.wide());
  const RowOutputs rows(out, p.wide());
  const MarginRows own{p.wide(), checked_margins(margins, p.pairs, p.wide())};
  Sweep{p, c, own, &rows, out.stats.data_ptr(), nullptr, {}, {}, {}}.run(no_upstream);
  return out.result();
}

// The pair of gradients, laid out without gaps.
Destination destination(const Tensor& first, const Tensor& second) {
  return Destination{first.data_ptr(), second.data_ptr(), first.stride(0), second.stride(0)};
}

BackwardResult backward_cpu(const Tensor& grad_values, const Tensor& first, const Tensor& second,
                            const Tensor& labels, const Tensor& stats, PAIR_LOSS_CHOICES) {
  const Pairs p = checked_pairs(first, second, labels);
  const Choices<double> c = checked_choices(PAIR_LOSS_CHOICE_NAMES, p.wide());
  check_labels(p.labels, p.pairs, p.columns);
  const void* saved = checked_matrix("stats", stats, p.pairs, kStatsOfRow, p.wide());
  const void* up = checked_matrix("grad_values", grad_values, p.pairs, kValuesOfRow, p.wide());
  const Tensor grad_first = torch::stable::new_empty(first, {p.pairs, p.columns});
  const Tensor grad_second = torch::stable::new_empty(first, {p.pairs, p.columns});
  const Destination gradients = destination(grad_first, grad_second);
  const Sweep sweep{p, c, {}, nullptr, nullptr, &gradients, {}, {}, {}};
  for_pieces(p, 0, p.pairs, [&](int64_t row, int64_t piece) {
    sweep.gradient(row, piece, read_stats(p.wide(), saved, row), [&](int64_t at) {
      return Upstream{read(p.wide(), up, 3 * at), read(p.wide(), up, 3 * at + 1),
                      read(p.wide(), up, 3 * at + 2)};
    });
  });
  return {grad_first, grad_second};
}

// The share of each row in the total: its weight, over the sum of weights for the mean.
std::vector<double> row_shares(const Pairs& p, const void* weights, int64_t reduction) {
  std::vector<double> shares(p.pairs);
  double sum = 0.0;
  for (int64_t row = 0; row < p.pairs; ++row) {
    shares[row] = ignored(p, row) ? 0.0 : weights ? read(p.wide(), weights, row) : 1.0;
    sum += shares[row];
  }
  if (reduction != kMean || sum == 0.0) return shares;
  for (double& share : shares) share /= sum;
  return shares;
}

// The total and the outputs of each row; the gradients go where `gradients` says.
Tensor loss_and_grad(const Pairs& p, const Tensor& like, const ForwardOutputs& out,
                     const Destination& gradients, const MaybeTensor& weights, double ce_weight,
                     double similarity_weight, int64_t reduction, const Choices<double>& c,
                     const MaybeTensor& margins) {
  STD_TORCH_CHECK(reduction >= kRows && reduction <= kSum,
                  "pair_loss_and_grad: reduction must be 0 .. 2");
  check_labels(p.labels, p.pairs, p.columns);
  const std::vector<double> shares =
      row_shares(p, checked_weights(weights, p.pairs, p.wide()), reduction);
  const RowOutputs rows(out, p.wide());
  const double of_similarity = c.kind == kNone ? 0.0 : similarity_weight;
  const MarginRows own{p.wide(), checked_margins(margins, p.pairs, p.wide())};
  Sweep{p, c, own, &rows, nullptr, &gradients, {}, {}, {}}.run([&](int64_t row) {
    const double ce = shares[row] * ce_weight;
    return Upstream{ce, ce, shares[row] * of_similarity};
  });
  double total = 0.0;
  for (int64_t row = 0; row < p.pairs; ++row) {
    if (ignored(p, row)) continue;
    double value = ce_weight * (read(p.wide(), rows.values, 3 * row) +
                                read(p.wide(), rows.values, 3 * row + 1));
    if (of_similarity != 0.0) value += of_similarity * read(p.wide(), rows.values, 3 * row + 2);
    total += shares[row] * value;
  }
  const Tensor result = torch::stable::new_empty(like, {}, accumulation_type(p));
  write(p.wide(), result.data_ptr(), 0, total);
  return result;
}

LossAndGradResult and_grad_cpu(const Tensor& first, const Tensor& second, const Tensor& labels,
                               const MaybeTensor& weights, double ce_weight,
                               double similarity_weight, int64_t reduction, PAIR_LOSS_CHOICES,
                               const MaybeTensor& margins) {
  const Pairs p = checked_pairs(first, second, labels);
  const Choices<double> c = checked_choices(PAIR_LOSS_CHOICE_NAMES, p.wide());
  const ForwardOutputs out(first, p.pairs, p.wide());
  const Tensor grad_first = torch::stable::new_empty(first, {p.pairs, p.columns});
  const Tensor grad_second = torch::stable::new_empty(first, {p.pairs, p.columns});
  const Tensor total = loss_and_grad(p, first, out, destination(grad_first, grad_second), weights,
                                     ce_weight, similarity_weight, reduction, c, margins);
  return {total, out.values, out.extras, out.tops, grad_first, grad_second};
}

LossInPlaceResult and_grad_in_place_cpu(Tensor first, Tensor second, const Tensor& labels,
                                        const MaybeTensor& weights, double ce_weight,
                                        double similarity_weight, int64_t reduction,
                                        PAIR_LOSS_CHOICES, const MaybeTensor& margins) {
  const Pairs p = checked_pairs(first, second, labels);
  check_in_place(first, second);
  const Choices<double> c = checked_choices(PAIR_LOSS_CHOICE_NAMES, p.wide());
  const ForwardOutputs out(first, p.pairs, p.wide());
  const Tensor total = loss_and_grad(p, first, out, destination(first, second), weights, ce_weight,
                                     similarity_weight, reduction, c, margins);
  return {total, out.values, out.extras, out.tops};
}

// Which table runs on this processor; for `doctor`.
std::string cpu_instructions() { return cpu_table().name; }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pairdistill, CPU, m) {
  m.impl("pair_loss", TORCH_BOX(&forward_cpu));
  m.impl("pair_loss_backward", TORCH_BOX(&backward_cpu));
  m.impl("pair_loss_and_grad", TORCH_BOX(&and_grad_cpu));
  m.impl("pair_loss_and_grad_", TORCH_BOX(&and_grad_in_place_cpu));
}

STABLE_TORCH_LIBRARY_IMPL(pairdistill, CompositeExplicitAutograd, m) {
  m.impl("cpu_instructions", TORCH_BOX(&cpu_instructions));
}

}  // namespace pairdistill
