// The operators as torch sees them. Their implementations register themselves: pair_loss.cpp and
// pair_loss_stream.cpp for the CPU, pair_loss_cuda.cpp for CUDA; shapes for tracing and gradients stand in
// distill/losses/registration.py.
#include <string>

#include <torch/csrc/stable/library.h>

#define PAIR_LOSS_SCHEMA_CHOICES                                                              \
  "float temperature, int kind, float forward, float reverse, float similarity_scale, "       \
  "float label_smoothing, int stop_gradient, float logit_scale, float margin_angle_rad, "     \
  "float margin_cosine"
#define PAIR_LOSS_SCHEMA_MARGINS ", Tensor? margins=None"

namespace {

// How the extension was built; for `pairdistill doctor`.
std::string build_description() { return PAIR_LOSS_BUILD; }

}  // namespace

STABLE_TORCH_LIBRARY(pairdistill, m) {
  // margins (B, 6): cos and sin of the angle and the cosine, each of both sides, in place of those of
  // the call. values (B, 3): both cross-entropies, similarity. extras (B, 4): both entropies, p(target) of
  // both sides. tops (B, 2): arg-max. stats (B, 12): what backward needs of each row.
  m.def("pair_loss(Tensor first, Tensor second, Tensor labels, " PAIR_LOSS_SCHEMA_CHOICES
        PAIR_LOSS_SCHEMA_MARGINS
        ") -> (Tensor values, Tensor extras, Tensor tops, Tensor stats)");
  m.def(
      "pair_loss_backward(Tensor grad_values, Tensor first, Tensor second, Tensor labels, "
      "Tensor stats, " PAIR_LOSS_SCHEMA_CHOICES ") -> (Tensor grad_first, Tensor grad_second)");
  // reduction: 0 the sum of the rows (upstream 1 a row), 1 weighted mean, 2 weighted sum.
  m.def(
      "pair_loss_and_grad(Tensor first, Tensor second, Tensor labels, Tensor? weights, "
      "float ce_weight, float similarity_weight, int reduction, " PAIR_LOSS_SCHEMA_CHOICES
      PAIR_LOSS_SCHEMA_MARGINS
      ") -> (Tensor total, Tensor values, Tensor extras, Tensor tops, Tensor grad_first, "
      "Tensor grad_second)");
  m.def(
      "pair_loss_and_grad_(Tensor(a!) first, Tensor(b!) second, Tensor labels, Tensor? weights, "
      "float ce_weight, float similarity_weight, int reduction, " PAIR_LOSS_SCHEMA_CHOICES
      PAIR_LOSS_SCHEMA_MARGINS
      ") -> (Tensor total, Tensor values, Tensor extras, Tensor tops)");
  // Classes that arrive in chunks: column 0 of a chunk is class `class_start`.
  m.def(
      "pair_loss_accumulate_(Tensor(a!) state, Tensor(b!) tops, Tensor first, Tensor second, "
      "Tensor labels, int class_start, " PAIR_LOSS_SCHEMA_CHOICES ") -> ()");
  m.def("pair_loss_merge(Tensor states, Tensor tops, " PAIR_LOSS_SCHEMA_CHOICES
        ") -> (Tensor state, Tensor tops)");
  m.def("pair_loss_finish(Tensor state, Tensor tops, Tensor labels, int classes, "
        PAIR_LOSS_SCHEMA_CHOICES PAIR_LOSS_SCHEMA_MARGINS
        ") -> (Tensor values, Tensor extras, Tensor tops, Tensor stats)");
  m.def(
      "pair_loss_mmd_accumulate_(Tensor(a!) sums, Tensor first, Tensor second, Tensor labels, "
      "int class_start, Tensor stats, " PAIR_LOSS_SCHEMA_CHOICES ") -> ()");
  m.def(
      "pair_loss_mmd_finish_(Tensor(a!) stats, Tensor(b!) values, Tensor sums, Tensor labels, "
      PAIR_LOSS_SCHEMA_CHOICES ") -> ()");
  m.def(
      "pair_loss_gradient_(Tensor(a!) first, Tensor(b!) second, Tensor labels, int class_start, "
      "Tensor grad_values, Tensor stats, int classes, " PAIR_LOSS_SCHEMA_CHOICES ") -> ()");
  m.def("cpu_instructions() -> str");
  m.def("build_description() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(pairdistill, CompositeExplicitAutograd, m) {
  m.impl("build_description", TORCH_BOX(&build_description));
}
