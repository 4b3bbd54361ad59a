// The operators on CUDA tensors: checks, outputs and workspace; the kernels are launched by
// pair_loss_launch.cu. Host code only: neither nvcc nor CUDA's headers are needed here.
#include <vector>

#include "pair_loss_op.h"

#include "pair_loss_launch.h"

#ifndef PAIR_LOSS_TENSOR_HEADER
#define PAIR_LOSS_TENSOR_HEADER "pair_loss_stream_of.h"
#endif
#include PAIR_LOSS_TENSOR_HEADER

namespace pairdistill {
namespace cuda {
namespace {

void check_device(const char* name, const Tensor& tensor, const Tensor& like) {
  STD_TORCH_CHECK(on_device(tensor) && device_index(tensor) == device_index(like),
                  "pair_loss: ", name, " must be on the device of the first logits");
}

void check_devices(const Tensor& second, const Tensor& labels, const Tensor& first) {
  check_device("second", second, first);
  check_device("labels", labels, first);
}

// A call on the device of `like`: that device is current while it lives, and workspace comes from
// torch's allocator, which gives it to others only after the work queued before on this stream.
class Call {
 public:
  explicit Call(const Tensor& like) : like_(like), guard_(device_index(like)) {
    const int device = device_index(like);
    device_ = Device{device, current_stream(device), [this](int64_t bytes) {
                       workspace_.push_back(
                           torch::stable::new_empty(like_, {bytes}, ScalarType::Byte));
                       return workspace_.back().data_ptr();
                     }};
  }
  Call(const Call&) = delete;
  const Device& device() const { return device_; }

 private:
  const Tensor& like_;
  DeviceGuard guard_;
  std::vector<Tensor> workspace_;
  Device device_;
};

// Null, or the margins of each pair, on the device of `like`.
const void* margins_of(const MaybeTensor& margins, int64_t pairs, bool wide, const Tensor& like) {
  if (margins) check_device("margins", *margins, like);
  return checked_margins(margins, pairs, wide);
}

RowResults results_of(const ForwardOutputs& out, bool stats) {
  return RowResults{out.values.data_ptr(), out.extras.data_ptr(),
                    static_cast<int64_t*>(out.tops.data_ptr()),
                    stats ? out.stats.data_ptr() : nullptr};
}

GradientRows gradients_of(const Tensor& first, const Tensor& second) {
  return GradientRows{first.data_ptr(), second.data_ptr(), first.stride(0), second.stride(0)};
}

StateRows states_of(const Tensor& state, const Tensor& tops, int64_t rows, bool wide) {
  return StateRows{checked_matrix("state", state, rows, kStateOfRow, wide),
                   checked_tops(tops, rows)};
}

ForwardResult forward_cuda(const Tensor& first, const Tensor& second, const Tensor& labels,
                           PAIR_LOSS_CHOICES, const MaybeTensor& margins) {
  const Pairs p = checked_pairs(first, second, labels);
  check_devices(second, labels, first);
  const Choices<double> c = checked_choices(PAIR_LOSS_CHOICE_NAMES, p.wide());
  const void* own = margins_of(margins, p.pairs, p.wide(), first);
  const Call call(first);
  const ForwardOutputs out(first, p.pairs, p.wide());
  if (p.pairs > 0)
    whole_rows(call.device(), p, c, own, results_of(out, true), UpstreamRows{}, GradientRows{},
               nullptr);
  return out.result();
}

UpstreamRows given_upstream(const Tensor& grad_values, const Pairs& p) {
  return UpstreamRows{checked_matrix("grad_values", grad_values, p.pairs, kValuesOfRow, p.wide()),
                      nullptr, 0.0, 0.0, false};
}

BackwardResult backward_cuda(const Tensor& grad_values, const Tensor& first, const Tensor& second,
                             const Tensor& labels, const Tensor& stats, PAIR_LOSS_CHOICES) {
  const Pairs p = checked_pairs(first, second, labels);
  check_devices(second, labels, first);
  check_device("stats", stats, first);
  check_device("grad_values", grad_values, first);
  const Choices<double> c = checked_choices(PAIR_LOSS_CHOICE_NAMES, p.wide());
  const void* saved = checked_matrix("stats", stats, p.pairs, kStatsOfRow, p.wide());
  const Call call(first);
  const Tensor grad_first = torch::stable::new_empty(first, {p.pairs, p.columns});
  const Tensor grad_second = torch::stable::new_empty(first, {p.pairs, p.columns});
  if (p.pairs > 0)
    gradient(call.device(), p, p.columns, c, saved, given_upstream(grad_values, p),
             gradients_of(grad_first, grad_second));
  return {grad_first, grad_second};
}

// The total, and the outputs of each row; the gradients go where `gradients` says.
Tensor loss_and_grad(const Call& call, const Pairs& p, const Tensor& like,
                     const ForwardOutputs& out, const GradientRows& gradients,
                     const MaybeTensor& weights, double ce_weight, double similarity_weight,
                     int64_t reduction, const Choices<double>& c, const MaybeTensor& margins) {
  STD_TORCH_CHECK(reduction >= kRows && reduction <= kSum,
                  "pair_loss_and_grad: reduction must be 0 .. 2");
  if (weights) check_device("weights", *weights, like);
  const UpstreamRows upstream{nullptr, checked_weights(weights, p.pairs, p.wide()), ce_weight,
                              c.kind == kNone ? 0.0 : similarity_weight, reduction == kMean};
  const void* own = margins_of(margins, p.pairs, p.wide(), like);
  if (p.pairs == 0) return torch::stable::new_zeros(like, {}, accumulation_type(p));
  const Tensor total = torch::stable::new_empty(like, {}, accumulation_type(p));
  whole_rows(call.device(), p, c, own, results_of(out, false), upstream, gradients,
             total.data_ptr());
  return total;
}

LossAndGradResult and_grad_cuda(const Tensor& first, const Tensor& second, const Tensor& labels,
                                const MaybeTensor& weights, double ce_weight,
                                double similarity_weight, int64_t reduction, PAIR_LOSS_CHOICES,
                                const MaybeTensor& margins) {
  const Pairs p = checked_pairs(first, second, labels);
  check_devices(second, labels, first);
  const Choices<double> c = checked_choices(PAIR_LOSS_CHOICE_NAMES, p.wide());
  const Call call(first);
  const ForwardOutputs out(first, p.pairs, p.wide());
  const Tensor grad_first = torch::stable::new_empty(first, {p.pairs, p.columns});
  const Tensor grad_second = torch::stable::new_empty(first, {p.pairs, p.columns});
  const Tensor total = loss_and_grad(call, p, first, out, gradients_of(grad_first, grad_second),
                                     weights, ce_weight, similarity_weight, reduction, c, margins);
  return {total, out.values, out.extras, out.tops, grad_first, grad_second};
}

LossInPlaceResult and_grad_in_place_cuda(Tensor first, Tensor second, const Tensor& labels,
                                         const MaybeTensor& weights, double ce_weight,
                                         double similarity_weight, int64_t reduction,
                                         PAIR_LOSS_CHOICES, const MaybeTensor& margins) {
  const Pairs p = checked_pairs(first, second, labels);
  check_in_place(first, second);
  check_devices(second, labels, first);
  const Choices<double> c = checked_choices(PAIR_LOSS_CHOICE_NAMES, p.wide());
  const Call call(first);
  const ForwardOutputs out(first, p.pairs, p.wide());
  const Tensor total = loss_and_grad(call, p, first, out, gradients_of(first, second), weights,
                                     ce_weight, similarity_weight, reduction, c, margins);
  return {total, out.values, out.extras, out.tops};
}

void accumulate_cuda(Tensor state, Tensor tops, const Tensor& first, const Tensor& second,
                     const Tensor& labels, int64_t class_start, PAIR_LOSS_CHOICES) {
  const Pairs p = checked_chunk(first, second, labels, class_start);
  check_devices(second, labels, first);
  check_device("state", state, first);
  check_device("tops", tops, first);
  const Choices<double> c = checked_choices(PAIR_LOSS_CHOICE_NAMES, p.wide());
  const StateRows into = states_of(state, tops, p.pairs, p.wide());
  const Call call(first);
  if (p.pairs > 0 && p.columns > 0) accumulate(call.device(), p, c, into);
}

MergeResult merge_cuda(const Tensor& states, const Tensor& tops, PAIR_LOSS_CHOICES) {
  STD_TORCH_CHECK(states.dim() == 3 && tops.dim() == 3 && states.size(0) == tops.size(0) &&
                      states.size(0) >= 1,
                  "pair_loss_merge: states must be (W, B, 14), tops (W, B, 2)");
  check_device("tops", tops, states);
  const bool wide = is_wide(states);
  const int64_t count = states.size(0), pairs = states.size(1);
  const Choices<double> c = checked_choices(PAIR_LOSS_CHOICE_NAMES, wide);
  const Tensor flat = torch::stable::view(states, {count * pairs, states.size(2)});
  const Tensor flat_tops = torch::stable::view(tops, {count * pairs, tops.size(2)});
  const StateRows from = states_of(flat, flat_tops, count * pairs, wide);
  const Call call(states);
  const Tensor state = torch::stable::new_empty(states, {pairs, int64_t(kStateOfRow)});
  const Tensor top = torch::stable::new_empty(tops, {pairs, int64_t(2)});
  const StateRows into = states_of(state, top, pairs, wide);
  if (pairs > 0) merge_states(call.device(), from, count, pairs, wide, c, into);
  return {state, top};
}

ForwardResult finish_cuda(const Tensor& state, const Tensor& tops, const Tensor& labels,
                          int64_t classes, PAIR_LOSS_CHOICES, const MaybeTensor& margins) {
  STD_TORCH_CHECK(state.dim() == 2 && classes >= 2,
                  "pair_loss_finish: state must be (B, 14), classes at least 2");
  check_device("tops", tops, state);
  check_device("labels", labels, state);
  const bool wide = is_wide(state);
  const int64_t pairs = state.size(0);
  const Choices<double> c = checked_choices(PAIR_LOSS_CHOICE_NAMES, wide);
  const StateRows from = states_of(state, tops, pairs, wide);
  const int64_t* label = checked_labels(labels, pairs);
  const void* own = margins_of(margins, pairs, wide, state);
  const Call call(state);
  const ForwardOutputs out(state, pairs, wide);
  if (pairs > 0)
    finish_states(call.device(), from, pairs, wide, label, classes, c, own, results_of(out, true));
  return out.result();
}

void mmd_accumulate_cuda(Tensor sums, const Tensor& first, const Tensor& second,
                         const Tensor& labels, int64_t class_start, const Tensor& stats,
                         PAIR_LOSS_CHOICES) {
  const Pairs p = checked_chunk(first, second, labels, class_start);
  check_devices(second, labels, first);
  check_device("sums", sums, first);
  check_device("stats", stats, first);
  const Choices<double> c = checked_choices(PAIR_LOSS_CHOICE_NAMES, p.wide());
  void* into = checked_matrix("sums", sums, p.pairs, 2, p.wide());
  const void* saved = checked_matrix("stats", stats, p.pairs, kStatsOfRow, p.wide());
  const Call call(first);
  if (p.pairs > 0 && p.columns > 0) mmd_accumulate(call.device(), p, c, saved, into);
}

void mmd_finish_cuda(Tensor stats, Tensor values, const Tensor& sums, const Tensor& labels,
                     PAIR_LOSS_CHOICES) {
  check_devices(values, labels, stats);
  check_device("sums", sums, stats);
  const bool wide = is_wide(stats);
  const int64_t pairs = stats.size(0);
  const Choices<double> c = checked_choices(PAIR_LOSS_CHOICE_NAMES, wide);
  const RowResults into{checked_matrix("values", values, pairs, kValuesOfRow, wide), nullptr,
                        nullptr, checked_matrix("stats", stats, pairs, kStatsOfRow, wide)};
  const void* from = checked_matrix("sums", sums, pairs, 2, wide);
  const int64_t* label = checked_labels(labels, pairs);
  const Call call(stats);
  if (pairs > 0) mmd_finish(call.device(), from, pairs, wide, label, c, into);
}

void gradient_cuda(Tensor first, Tensor second, const Tensor& labels, int64_t class_start,
                   const Tensor& grad_values, const Tensor& stats, int64_t classes,
                   PAIR_LOSS_CHOICES) {
  const Pairs p = checked_chunk(first, second, labels, class_start);
  check_in_place(first, second);
  check_devices(second, labels, first);
  check_device("grad_values", grad_values, first);
  check_device("stats", stats, first);
  const Choices<double> c = checked_choices(PAIR_LOSS_CHOICE_NAMES, p.wide());
  STD_TORCH_CHECK(classes >= class_start + p.columns,
                  "pair_loss_gradient_: classes must not be fewer than class_start + columns");
  const void* saved = checked_matrix("stats", stats, p.pairs, kStatsOfRow, p.wide());
  const UpstreamRows upstream = given_upstream(grad_values, p);
  const Call call(first);
  if (p.pairs > 0 && p.columns > 0)
    gradient(call.device(), p, classes, c, saved, upstream, gradients_of(first, second));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pairdistill, PAIR_LOSS_DISPATCH_KEY, m) {
  m.impl("pair_loss", TORCH_BOX(&forward_cuda));
  m.impl("pair_loss_backward", TORCH_BOX(&backward_cuda));
  m.impl("pair_loss_and_grad", TORCH_BOX(&and_grad_cuda));
  m.impl("pair_loss_and_grad_", TORCH_BOX(&and_grad_in_place_cuda));
  m.impl("pair_loss_accumulate_", TORCH_BOX(&accumulate_cuda));
  m.impl("pair_loss_merge", TORCH_BOX(&merge_cuda));
  m.impl("pair_loss_finish", TORCH_BOX(&finish_cuda));
  m.impl("pair_loss_mmd_accumulate_", TORCH_BOX(&mmd_accumulate_cuda));
  m.impl("pair_loss_mmd_finish_", TORCH_BOX(&mmd_finish_cuda));
  m.impl("pair_loss_gradient_", TORCH_BOX(&gradient_cuda));
}

}  // namespace cuda
}  // namespace pairdistill
