// The CPU operators for classes that arrive in chunks, or lie on several ranks: states that grow,
// merge and end in the values of a row, and gradients that replace the scores of a chunk.
#include <vector>

#include "pair_loss_rows.h"

namespace pairdistill {
namespace {

// The matrices of states, of one wide or narrow type.
struct States {
  bool wide;
  void* values;
  int64_t* tops;

  States(const Tensor& state, const Tensor& row_tops, int64_t pairs, bool is_wide)
      : wide(is_wide),
        values(checked_matrix("state", state, pairs, kStateOfRow, is_wide)),
        tops(checked_tops(row_tops, pairs)) {}

  PairState<double> get(int64_t row) const {
    const int64_t at = row * kStateOfRow;
    if (wide)
      return generic::load_state<double>(static_cast<const double*>(values) + at, tops + 2 * row);
    return generic::load_state<double>(static_cast<const float*>(values) + at, tops + 2 * row);
  }
  void put(int64_t row, const PairState<double>& state) const {
    const int64_t at = row * kStateOfRow;
    if (wide) {
      generic::store_state(state, static_cast<double*>(values) + at, tops + 2 * row);
    } else {
      generic::store_state(state, static_cast<float*>(values) + at, tops + 2 * row);
    }
  }
};

void accumulate_cpu(Tensor state, Tensor tops, const Tensor& first, const Tensor& second,
                    const Tensor& labels, int64_t class_start, PAIR_LOSS_CHOICES) {
  const Pairs p = checked_chunk(first, second, labels, class_start);
  const Choices<double> c = checked_choices(PAIR_LOSS_CHOICE_NAMES, p.wide());
  const States states(state, tops, p.pairs, p.wide());
  const int64_t pieces = pieces_of(p);
  std::vector<PairState<double>> parts(p.pairs * pieces);
  for_pieces(p, 0, p.pairs, [&](int64_t row, int64_t piece) {
    PairState<double>& part = parts[row * pieces + piece];
    part = generic::empty_state<double>();
    if (!ignored(p, row)) add_piece(p, row, piece, c, part);
  });
  for (int64_t row = 0; row < p.pairs; ++row) {
    if (ignored(p, row)) continue;
    PairState<double> total = states.get(row);
    for (int64_t i = 0; i < pieces; ++i) generic::merge(total, parts[row * pieces + i], c);
    states.put(row, total);
  }
}

MergeResult merge_cpu(const Tensor& states, const Tensor& tops, PAIR_LOSS_CHOICES) {
  STD_TORCH_CHECK(states.dim() == 3 && tops.dim() == 3 && states.size(0) == tops.size(0) &&
                      states.size(0) >= 1,
                  "pair_loss_merge: states must be (W, B, 14), tops (W, B, 2)");
  const bool wide = is_wide(states);
  const Choices<double> c = checked_choices(PAIR_LOSS_CHOICE_NAMES, wide);
  const int64_t parts = states.size(0), pairs = states.size(1);
  const Tensor flat = torch::stable::view(states, {parts * pairs, states.size(2)});
  const Tensor flat_tops = torch::stable::view(tops, {parts * pairs, tops.size(2)});
  const States from(flat, flat_tops, parts * pairs, wide);
  const Tensor state = torch::stable::new_empty(states, {pairs, int64_t(kStateOfRow)});
  const Tensor top = torch::stable::new_empty(tops, {pairs, int64_t(2)});
  const States into(state, top, pairs, wide);
  for (int64_t row = 0; row < pairs; ++row) {
    PairState<double> total = from.get(row);
    for (int64_t i = 1; i < parts; ++i) generic::merge(total, from.get(i * pairs + row), c);
    into.put(row, total);
  }
  return {state, top};
}

ForwardResult finish_cpu(const Tensor& state, const Tensor& tops, const Tensor& labels,
                         int64_t classes, PAIR_LOSS_CHOICES, const MaybeTensor& margins) {
  STD_TORCH_CHECK(state.dim() == 2 && classes >= 2,
                  "pair_loss_finish: state must be (B, 14), classes at least 2");
  const bool wide = is_wide(state);
  const int64_t pairs = state.size(0);
  const Choices<double> c = checked_choices(PAIR_LOSS_CHOICE_NAMES, wide);
  const States states(state, tops, pairs, wide);
  const int64_t* label = checked_labels(labels, pairs);
  check_labels(label, pairs, classes);
  const ForwardOutputs out(state, pairs, wide);
  const RowOutputs rows(out, wide);
  const MarginRows own{wide, checked_margins(margins, pairs, wide)};
  for (int64_t row = 0; row < pairs; ++row) {
    RowStats<double> stats{};
    rows.put(row, label[row] < 0 ? generic::ignored_values<double>()
                                 : generic::finish(states.get(row), label[row], classes, c,
                                                   own.of(row, c), stats));
    write_stats(wide, out.stats.data_ptr(), row, stats);
  }
  return out.result();
}

void mmd_accumulate_cpu(Tensor sums, const Tensor& first, const Tensor& second,
                        const Tensor& labels, int64_t class_start, const Tensor& stats,
                        PAIR_LOSS_CHOICES) {
  const Pairs p = checked_chunk(first, second, labels, class_start);
  const Choices<double> c = checked_choices(PAIR_LOSS_CHOICE_NAMES, p.wide());
  void* into = checked_matrix("sums", sums, p.pairs, 2, p.wide());
  const void* saved = checked_matrix("stats", stats, p.pairs, kStatsOfRow, p.wide());
  const int64_t pieces = pieces_of(p);
  std::vector<double> parts(p.pairs * pieces * 2, 0.0);
  for_pieces(p, 0, p.pairs, [&](int64_t row, int64_t piece) {
    if (ignored(p, row)) return;
    add_mmd(p, row, piece, read_stats(p.wide(), saved, row), c, &parts[(row * pieces + piece) * 2]);
  });
  for (int64_t row = 0; row < p.pairs; ++row) {
    double sum[2] = {read(p.wide(), into, 2 * row), read(p.wide(), into, 2 * row + 1)};
    for (int64_t i = 0; i < 2 * pieces; ++i) sum[i % 2] += parts[row * pieces * 2 + i];
    for (int i = 0; i < 2; ++i) write(p.wide(), into, 2 * row + i, sum[i]);
  }
}

void mmd_finish_cpu(Tensor stats, Tensor values, const Tensor& sums, const Tensor& labels,
                    PAIR_LOSS_CHOICES) {
  const bool wide = is_wide(stats);
  const int64_t pairs = stats.size(0);
  const Choices<double> c = checked_choices(PAIR_LOSS_CHOICE_NAMES, wide);
  void* saved = checked_matrix("stats", stats, pairs, kStatsOfRow, wide);
  void* out = checked_matrix("values", values, pairs, kValuesOfRow, wide);
  const void* sum = checked_matrix("sums", sums, pairs, 2, wide);
  const int64_t* label = checked_labels(labels, pairs);
  for (int64_t row = 0; row < pairs; ++row) {
    if (label[row] < 0) continue;
    RowStats<double> found = read_stats(wide, saved, row);
    write(wide, out, 3 * row + 2,
          generic::finish_mmd(found, read(wide, sum, 2 * row), read(wide, sum, 2 * row + 1), c));
    write_stats(wide, saved, row, found);
  }
}

void gradient_cpu(Tensor first, Tensor second, const Tensor& labels, int64_t class_start,
                  const Tensor& grad_values, const Tensor& stats, int64_t classes,
                  PAIR_LOSS_CHOICES) {
  const Pairs p = checked_chunk(first, second, labels, class_start);
  check_in_place(first, second);
  const Choices<double> c = checked_choices(PAIR_LOSS_CHOICE_NAMES, p.wide());
  STD_TORCH_CHECK(classes >= class_start + p.columns,
                  "pair_loss_gradient_: classes must not be fewer than class_start + columns");
  const void* saved = checked_matrix("stats", stats, p.pairs, kStatsOfRow, p.wide());
  const void* up = checked_matrix("grad_values", grad_values, p.pairs, kValuesOfRow, p.wide());
  const Destination out{first.data_ptr(), second.data_ptr(), first.stride(0), second.stride(0)};
  for_pieces(p, 0, p.pairs, [&](int64_t row, int64_t piece) {
    if (ignored(p, row)) return clear_piece(p, out, row, piece);
    const PairGradient<double> g = generic::row_gradient(
        read_stats(p.wide(), saved, row), read(p.wide(), up, 3 * row),
        read(p.wide(), up, 3 * row + 1), read(p.wide(), up, 3 * row + 2), classes, c);
    piece_gradient(p, out, row, piece, g, c.kind);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pairdistill, CPU, m) {
  m.impl("pair_loss_accumulate_", TORCH_BOX(&accumulate_cpu));
  m.impl("pair_loss_merge", TORCH_BOX(&merge_cpu));
  m.impl("pair_loss_finish", TORCH_BOX(&finish_cpu));
  m.impl("pair_loss_mmd_accumulate_", TORCH_BOX(&mmd_accumulate_cpu));
  m.impl("pair_loss_mmd_finish_", TORCH_BOX(&mmd_finish_cpu));
  m.impl("pair_loss_gradient_", TORCH_BOX(&gradient_cpu));
}

}  // namespace pairdistill
