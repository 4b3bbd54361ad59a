// What the operators look like, and their checked arguments; shared by the CPU and CUDA files.
#pragma once

#include <optional>
#include <tuple>

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include "pair_loss_pairs.h"

// The static choices of a call, as the last parameters of every operator.
#define PAIR_LOSS_CHOICES                                                                      \
  double temperature, int64_t kind, double forward, double reverse, double similarity_scale,   \
      double label_smoothing, int64_t stop_gradient, double logit_scale,                       \
      double margin_angle_rad, double margin_cosine
#define PAIR_LOSS_CHOICE_NAMES                                                            \
  temperature, kind, forward, reverse, similarity_scale, label_smoothing, stop_gradient,  \
      logit_scale, margin_angle_rad, margin_cosine

namespace pairdistill {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;
using ForwardResult = std::tuple<Tensor, Tensor, Tensor, Tensor>;
using BackwardResult = std::tuple<Tensor, Tensor>;
using LossAndGradResult = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
using LossInPlaceResult = std::tuple<Tensor, Tensor, Tensor, Tensor>;
using MergeResult = std::tuple<Tensor, Tensor>;

// float64 for float64 scores, else float32.
inline ScalarType accumulation_type(bool wide) {
  return wide ? ScalarType::Double : ScalarType::Float;
}
inline ScalarType accumulation_type(const Pairs& p) { return accumulation_type(p.wide()); }

inline LogitType score_type(const Tensor& scores) {
  switch (scores.scalar_type()) {
    case ScalarType::Double: return kFloat64;
    case ScalarType::Float: return kFloat32;
    case ScalarType::Half: return kFloat16;
    case ScalarType::BFloat16: return kBFloat16;
    default: break;
  }
  STD_TORCH_CHECK(false, "pair_loss: logits must be float64, float32, float16 or bfloat16");
}

inline const int64_t* checked_labels(const Tensor& labels, int64_t pairs) {
  STD_TORCH_CHECK(labels.scalar_type() == ScalarType::Long && labels.dim() == 1 &&
                      labels.size(0) == pairs && labels.is_contiguous(),
                  "pair_loss: labels must be a contiguous int64 vector of one label a pair");
  return static_cast<const int64_t*>(labels.data_ptr());
}

// A chunk may hold a single class; the classes of a whole row are at least two.
inline Pairs checked_chunk(const Tensor& first, const Tensor& second, const Tensor& labels,
                           int64_t class_start) {
  STD_TORCH_CHECK(first.dim() == 2 && second.dim() == 2, "pair_loss: logits must be (B, C)");
  STD_TORCH_CHECK(first.size(0) == second.size(0) && first.size(1) == second.size(1),
                  "pair_loss: first and second logits differ in shape");
  STD_TORCH_CHECK(first.scalar_type() == second.scalar_type(),
                  "pair_loss: first and second logits differ in type");
  STD_TORCH_CHECK((first.stride(1) == 1 && second.stride(1) == 1) || first.size(1) < 2,
                  "pair_loss: logits must be contiguous in the class dimension");
  STD_TORCH_CHECK(class_start >= 0, "pair_loss: class_start must not be negative");
  return Pairs{first.data_ptr(),
               second.data_ptr(),
               first.stride(0),
               second.stride(0),
               first.size(0),
               first.size(1),
               class_start,
               checked_labels(labels, first.size(0)),
               score_type(first)};
}

inline Pairs checked_pairs(const Tensor& first, const Tensor& second, const Tensor& labels) {
  const Pairs p = checked_chunk(first, second, labels, 0);
  STD_TORCH_CHECK(p.columns >= 2, "pair_loss: logits must have at least 2 classes");
  return p;
}

// What is written over must have no element twice.
inline void check_in_place(const Tensor& first, const Tensor& second) {
  for (const Tensor* scores : {&first, &second})
    STD_TORCH_CHECK(scores->size(0) < 2 || scores->stride(0) >= scores->size(1),
                    "pair_loss: rows that overlap cannot be replaced by their gradients");
  STD_TORCH_CHECK(first.data_ptr() != second.data_ptr() || first.size(0) == 0,
                  "pair_loss: first and second are the same memory; it cannot hold both gradients");
}

inline Choices<double> checked_choices(PAIR_LOSS_CHOICES, bool wide) {
  STD_TORCH_CHECK(temperature > 0.0 && temperature < HUGE_VAL,
                  "pair_loss: temperature must be greater than 0");
  STD_TORCH_CHECK(kind >= kNone && kind <= kMmd, "pair_loss: kind must be 0 .. 3");
  STD_TORCH_CHECK(stop_gradient >= 0 && stop_gradient <= 2,
                  "pair_loss: stop_gradient must be 0 .. 2");
  STD_TORCH_CHECK(label_smoothing >= 0.0 && label_smoothing < 1.0,
                  "pair_loss: label_smoothing must be in [0, 1)");
  STD_TORCH_CHECK(logit_scale > 0.0 && logit_scale < HUGE_VAL,
                  "pair_loss: logit_scale must be greater than 0");
  STD_TORCH_CHECK(margin_angle_rad >= 0.0 && margin_angle_rad < 1.5707963267948966,
                  "pair_loss: margin_angle_rad must be in [0, pi/2)");
  STD_TORCH_CHECK(margin_cosine >= 0.0 && margin_cosine < 1.0,
                  "pair_loss: margin_cosine must be in [0, 1)");
  const double floor = 8.0 * (wide ? 0x1p-52 : 0x1p-23);  // 8 units in the last place of 1
  const Margin<double> margin{::cos(margin_angle_rad), ::sin(margin_angle_rad), margin_cosine,
                              floor};
  return Choices<double>{int(kind), int(stop_gradient), forward,     reverse,
                         similarity_scale, label_smoothing, logit_scale, logit_scale / temperature,
                         margin};
}

// A contiguous matrix of `columns` numbers a pair in the accumulation type.
inline void* checked_matrix(const char* name, const Tensor& matrix, int64_t pairs, int64_t columns,
                            bool wide) {
  STD_TORCH_CHECK(matrix.dim() == 2 && matrix.size(0) == pairs && matrix.size(1) == columns &&
                      matrix.is_contiguous() && matrix.scalar_type() == accumulation_type(wide),
                  "pair_loss: ", name, " must be a contiguous (", pairs, ", ", columns,
                  ") matrix of ", wide ? "float64" : "float32");
  return matrix.data_ptr();
}

inline int64_t* checked_tops(const Tensor& tops, int64_t pairs) {
  STD_TORCH_CHECK(tops.dim() == 2 && tops.size(0) == pairs && tops.size(1) == 2 &&
                      tops.is_contiguous() && tops.scalar_type() == ScalarType::Long,
                  "pair_loss: tops must be a contiguous (", pairs, ", 2) matrix of int64");
  return static_cast<int64_t*>(tops.data_ptr());
}

// Row weights, or null where every pair weighs 1.
inline const void* checked_weights(const MaybeTensor& weights, int64_t pairs, bool wide) {
  if (!weights.has_value()) return nullptr;
  STD_TORCH_CHECK(weights->dim() == 1 && weights->size(0) == pairs && weights->is_contiguous() &&
                      weights->scalar_type() == accumulation_type(wide),
                  "pair_loss: weights must be a contiguous vector of one ",
                  wide ? "float64" : "float32", " a pair");
  return weights->data_ptr();
}

// Margins of each pair, or null where all have the call's.
inline const void* checked_margins(const MaybeTensor& margins, int64_t pairs, bool wide) {
  return margins ? checked_matrix("margins", *margins, pairs, kMarginsOfRow, wide) : nullptr;
}

inline bool is_wide(const Tensor& tensor) { return tensor.scalar_type() == ScalarType::Double; }

// The outputs of forward: values, by-products and answers of each pair, and its statistics.
struct ForwardOutputs {
  Tensor values, extras, tops, stats;

  ForwardOutputs(const Tensor& like, int64_t pairs, bool wide)
      : values(matrix(like, pairs, kValuesOfRow, wide)),
        extras(matrix(like, pairs, kExtrasOfRow, wide)),
        tops(torch::stable::new_empty(like, {pairs, 2}, ScalarType::Long)),
        stats(matrix(like, pairs, kStatsOfRow, wide)) {}

  static Tensor matrix(const Tensor& like, int64_t pairs, int64_t columns, bool wide) {
    return torch::stable::new_empty(like, {pairs, columns}, accumulation_type(wide));
  }
  ForwardResult result() const { return {values, extras, tops, stats}; }
};

}  // namespace pairdistill
