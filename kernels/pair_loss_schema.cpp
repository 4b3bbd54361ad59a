// The operators as torch sees them. Their implementations register themselves: pair_loss.cpp for the
// CPU, pair_loss.cu for CUDA; shapes for tracing and gradients stand in distill/losses/fused.py.
#include <string>

#include <torch/csrc/stable/library.h>

namespace {

// How the extension was built; for `pairdistill doctor`.
std::string build_description() { return PAIR_LOSS_BUILD; }

}  // namespace

STABLE_TORCH_LIBRARY(pairdistill, m) {
  m.def(
      "pair_loss(Tensor first, Tensor second, Tensor labels, Tensor? target_first, "
      "Tensor? target_second, float temperature, int kind, float forward, float reverse, "
      "float scale, float label_smoothing, int stop_gradient) -> (Tensor ce_first, "
      "Tensor ce_second, Tensor similarity, Tensor top_first, Tensor top_second, Tensor stats)");
  m.def(
      "pair_loss_backward(Tensor grad_ce_first, Tensor grad_ce_second, Tensor grad_similarity, "
      "Tensor first, Tensor second, Tensor labels, Tensor? target_first, Tensor? target_second, "
      "Tensor stats, float temperature, int kind, float forward, float reverse, float scale, "
      "float label_smoothing, int stop_gradient) -> (Tensor grad_first, Tensor grad_second, "
      "Tensor grad_target_first, Tensor grad_target_second)");
  m.def("cpu_instructions() -> str");
  m.def("build_description() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(pairdistill, CompositeExplicitAutograd, m) {
  m.impl("build_description", TORCH_BOX(&build_description));
}
