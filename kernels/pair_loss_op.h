// What the operators look like, and their checked arguments; shared by the CPU and CUDA files.
#pragma once

#include <optional>
#include <tuple>

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include "pair_loss_cpu.h"

namespace pairdistill {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;
using ForwardResult = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
using BackwardResult = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// The inputs of a call, checked. Targets are null where the cross-entropies use z_y.
struct Pairs {
  const void* first;
  const void* second;
  int64_t stride_first, stride_second;  // elements from row to row
  int64_t pairs, classes;
  const int64_t* labels;
  const void* target_first;
  const void* target_second;
  LogitType type;

  bool wide() const { return type == kFloat64; }
  int64_t logit_bytes() const { return type == kFloat64 ? 8 : type == kFloat32 ? 4 : 2; }
};

// float64 for float64 logits, else float32.
inline ScalarType accumulation_type(const Pairs& p) {
  return p.wide() ? ScalarType::Double : ScalarType::Float;
}

inline LogitType logit_type(const Tensor& logits) {
  switch (logits.scalar_type()) {
    case ScalarType::Double: return kFloat64;
    case ScalarType::Float: return kFloat32;
    case ScalarType::Half: return kFloat16;
    case ScalarType::BFloat16: return kBFloat16;
    default: break;
  }
  STD_TORCH_CHECK(false, "pair_loss: logits must be float64, float32, float16 or bfloat16");
}

inline const void* checked_target(const char* name, const MaybeTensor& target, const Pairs& p) {
  if (!target.has_value()) return nullptr;
  STD_TORCH_CHECK(target->dim() == 1 && target->size(0) == p.pairs && target->is_contiguous(),
                  "pair_loss: ", name, " must be a contiguous vector of one target logit a pair");
  STD_TORCH_CHECK(target->scalar_type() == accumulation_type(p), "pair_loss: ", name,
                  " must be float32 (float64 for float64 logits)");
  return target->data_ptr();
}

inline Pairs checked_pairs(const Tensor& first, const Tensor& second, const Tensor& labels,
                           const MaybeTensor& target_first, const MaybeTensor& target_second) {
  STD_TORCH_CHECK(first.dim() == 2 && second.dim() == 2, "pair_loss: logits must be (B, C)");
  STD_TORCH_CHECK(first.size(0) == second.size(0) && first.size(1) == second.size(1),
                  "pair_loss: first and second logits differ in shape");
  STD_TORCH_CHECK(first.scalar_type() == second.scalar_type(),
                  "pair_loss: first and second logits differ in type");
  STD_TORCH_CHECK(first.size(1) >= 2, "pair_loss: logits must have at least 2 classes");
  STD_TORCH_CHECK(first.stride(1) == 1 && second.stride(1) == 1,
                  "pair_loss: logits must be contiguous in the class dimension");
  STD_TORCH_CHECK(labels.scalar_type() == ScalarType::Long && labels.dim() == 1 &&
                      labels.size(0) == first.size(0) && labels.is_contiguous(),
                  "pair_loss: labels must be a contiguous int64 vector of one label a pair");
  STD_TORCH_CHECK(target_first.has_value() == target_second.has_value(),
                  "pair_loss: give targets for both sides or for none");
  Pairs p{first.data_ptr(), second.data_ptr(), first.stride(0), second.stride(0),
          first.size(0),    first.size(1),     static_cast<const int64_t*>(labels.data_ptr()),
          nullptr,          nullptr,           logit_type(first)};
  p.target_first = checked_target("target_first", target_first, p);
  p.target_second = checked_target("target_second", target_second, p);
  return p;
}

inline Choices<double> checked_choices(double temperature, int64_t kind, double forward,
                                       double reverse, double scale, double smoothing) {
  STD_TORCH_CHECK(temperature > 0.0, "pair_loss: temperature must be greater than 0");
  STD_TORCH_CHECK(kind >= kNone && kind <= kMmd, "pair_loss: kind must be 0 .. 3");
  STD_TORCH_CHECK(smoothing >= 0.0 && smoothing < 1.0,
                  "pair_loss: label_smoothing must be in [0, 1)");
  return Choices<double>{int(kind), 1.0 / temperature, forward, reverse, scale, smoothing};
}

// The outputs of forward: three values and two answers a pair, and the statistics of the rows.
struct ForwardOutputs {
  Tensor ce_first, ce_second, similarity, top_first, top_second, stats;

  ForwardOutputs(const Tensor& like, const Pairs& p)
      : ce_first(values(like, p)),
        ce_second(values(like, p)),
        similarity(values(like, p)),
        top_first(torch::stable::new_empty(like, {p.pairs}, ScalarType::Long)),
        top_second(torch::stable::new_empty(like, {p.pairs}, ScalarType::Long)),
        stats(torch::stable::new_empty(like, {p.pairs, kStatsOfRow}, accumulation_type(p))) {}

  static Tensor values(const Tensor& like, const Pairs& p) {
    return torch::stable::new_empty(like, {p.pairs}, accumulation_type(p));
  }
  ForwardResult result() const {
    return {ce_first, ce_second, similarity, top_first, top_second, stats};
  }
};

// The outputs of backward; the gradients of the targets are empty where there are no targets.
struct BackwardOutputs {
  Tensor first, second, target_first, target_second;

  BackwardOutputs(const Tensor& like, const Pairs& p)
      : first(torch::stable::new_empty(like, {p.pairs, p.classes})),
        second(torch::stable::new_empty(like, {p.pairs, p.classes})),
        target_first(targets(like, p)),
        target_second(targets(like, p)) {}

  static Tensor targets(const Tensor& like, const Pairs& p) {
    const int64_t count = p.target_first ? p.pairs : 0;
    return torch::stable::new_empty(like, {count}, accumulation_type(p));
  }
  BackwardResult result() const { return {first, second, target_first, target_second}; }
};

inline const void* checked_upstream(const char* name, const Tensor& gradient, const Pairs& p) {
  STD_TORCH_CHECK(gradient.dim() == 1 && gradient.size(0) == p.pairs && gradient.is_contiguous() &&
                      gradient.scalar_type() == accumulation_type(p),
                  "pair_loss_backward: ", name, " must be a contiguous vector of one float a pair");
  return gradient.data_ptr();
}

inline void check_stats(const Tensor& stats, const Pairs& p) {
  STD_TORCH_CHECK(stats.dim() == 2 && stats.size(0) == p.pairs && stats.size(1) == kStatsOfRow &&
                      stats.is_contiguous() && stats.scalar_type() == accumulation_type(p),
                  "pair_loss_backward: stats must come from pair_loss");
}

}  // namespace pairdistill
