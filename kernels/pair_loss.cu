// The CUDA implementation of the operators.
//
// Forward: a grid of blocks, `splits` of them for each pair, reduces the columns to one state a
// block; a second launch merges the states of a pair in their order and finishes its row. mmd
// sweeps once more for sum p (p - q). Backward: one launch over the same grid, one read and one
// write. `splits` depends on the device and the shape alone and no atomic is used, so repeated
// runs give the same bits. Nothing waits for the device, every launch is on the current stream and
// memory comes from torch's allocator, so that a CUDA graph can capture a call.
#include "pair_loss_kernels.cuh"
#include "pair_loss_op.h"

#ifndef PAIR_LOSS_DEVICE_HEADER
#define PAIR_LOSS_DEVICE_HEADER "pair_loss_device.h"
#endif
#include PAIR_LOSS_DEVICE_HEADER

namespace pairdistill {
namespace cuda {
namespace {

constexpr int kBlocksOfProcessor = 8;      // blocks wanted in flight on each multiprocessor
constexpr int64_t kColumnsOfBlock = 4096;  // fewer are not worth a block of their own

// Blocks for each pair: enough to fill the device, none with too few columns.
int splits_of(int64_t pairs, int64_t classes, int device) {
  const int64_t wanted = (int64_t(multiprocessors(device)) * kBlocksOfProcessor + pairs - 1) / pairs;
  const int64_t most = (classes + kColumnsOfBlock - 1) / kColumnsOfBlock;
  return int(wanted < most ? wanted : most);
}

template <class T>
Rows<T> rows_of(const Pairs& p, int device) {
  using R = Real<T>;
  const int splits = splits_of(p.pairs, p.classes, device);
  // Whole runs of 16 bytes in every block but the last.
  const int64_t columns = ((p.classes + splits - 1) / splits + 7) / 8 * 8;
  return Rows<T>{static_cast<const T*>(p.first),
                 static_cast<const T*>(p.second),
                 p.stride_first,
                 p.stride_second,
                 p.pairs,
                 p.classes,
                 p.labels,
                 static_cast<const R*>(p.target_first),
                 static_cast<const R*>(p.target_second),
                 int((p.classes + columns - 1) / columns),
                 columns};
}

unsigned blocks_of(int64_t count) {
  if (count > INT32_MAX) throw std::runtime_error("pair_loss: too many pairs in one batch");
  return unsigned(count);
}

unsigned blocks_of_rows(int64_t pairs) { return blocks_of((pairs + kThreads - 1) / kThreads); }

Tensor workspace(const Tensor& like, int64_t bytes) {
  return torch::stable::new_empty(like, {bytes}, ScalarType::Byte);
}

template <class T>
void launch_mmd(const Rows<T>& rows, const Choices<Real<T>>& c, const Tensor& like,
                Values<Real<T>> out, cudaStream_t stream) {
  using R = Real<T>;
  const int64_t parts = rows.pairs * rows.splits;
  const Tensor memory = workspace(like, parts * 2 * int64_t(sizeof(R)));
  R* sums = static_cast<R*>(memory.data_ptr());
  PAIR_LOSS_LAUNCH(mmd_parts<T>, blocks_of(parts), kThreads, stream, rows, c.inv_temperature,
                   out.stats, sums);
  PAIR_LOSS_LAUNCH(mmd_rows<R>, blocks_of_rows(rows.pairs), kThreads, stream, rows.labels,
                   rows.pairs, rows.splits, c.scale, sums, out);
}

template <class R>
Choices<R> narrowed(const Choices<double>& c) {
  return Choices<R>{c.kind,       R(c.inv_temperature), R(c.forward),
                    R(c.reverse), R(c.scale),           R(c.smoothing)};
}

template <class R>
Values<R> pointers(const ForwardOutputs& out) {
  return Values<R>{static_cast<R*>(out.ce_first.data_ptr()),
                   static_cast<R*>(out.ce_second.data_ptr()),
                   static_cast<R*>(out.similarity.data_ptr()),
                   static_cast<int64_t*>(out.top_first.data_ptr()),
                   static_cast<int64_t*>(out.top_second.data_ptr()),
                   static_cast<RowStats<R>*>(out.stats.data_ptr())};
}

template <class T>
void launch_forward(const Pairs& p, const Choices<double>& wide, const Tensor& like,
                    const ForwardOutputs& out, int device, cudaStream_t stream) {
  using R = Real<T>;
  const Rows<T> rows = rows_of<T>(p, device);
  const Choices<R> c = narrowed<R>(wide);
  const int64_t parts = rows.pairs * rows.splits;
  const Tensor memory = workspace(like, parts * int64_t(sizeof(PairState<R>)));
  PairState<R>* states = static_cast<PairState<R>*>(memory.data_ptr());
  PAIR_LOSS_LAUNCH(reduce_parts<T>, blocks_of(parts), kThreads, stream, rows, c, states);
  PAIR_LOSS_LAUNCH(finish_rows<T>, blocks_of_rows(rows.pairs), kThreads, stream, rows, c, states,
                   pointers<R>(out));
  if (c.kind == kMmd) launch_mmd<T>(rows, c, like, pointers<R>(out), stream);
}

template <class T>
void launch_backward(const Pairs& p, const Choices<double>& wide, const void* const (&up)[3],
                     const Tensor& stats, int64_t stop_gradient, const BackwardOutputs& out,
                     int device, cudaStream_t stream) {
  using R = Real<T>;
  const Rows<T> rows = rows_of<T>(p, device);
  const Gradients<T> grads{static_cast<const R*>(up[0]),
                           static_cast<const R*>(up[1]),
                           static_cast<const R*>(up[2]),
                           static_cast<const RowStats<R>*>(stats.data_ptr()),
                           static_cast<T*>(out.first.data_ptr()),
                           static_cast<T*>(out.second.data_ptr()),
                           static_cast<R*>(out.target_first.data_ptr()),
                           static_cast<R*>(out.target_second.data_ptr()),
                           stop_gradient != 1,
                           stop_gradient != 2};
  PAIR_LOSS_LAUNCH(gradient_parts<T>, blocks_of(rows.pairs * rows.splits), kThreads, stream, rows,
                   narrowed<R>(wide), grads);
}

void check_device(const char* name, const Tensor& tensor, const Tensor& like) {
  STD_TORCH_CHECK(on_device(tensor) && tensor.get_device_index() == like.get_device_index(),
                  "pair_loss: ", name, " must be on the device of the first logits");
}

void check_devices(const Tensor& first, const Tensor& second, const Tensor& labels,
                   const MaybeTensor& target_first, const MaybeTensor& target_second) {
  check_device("second", second, first);
  check_device("labels", labels, first);
  if (target_first) check_device("target_first", *target_first, first);
  if (target_second) check_device("target_second", *target_second, first);
}

ForwardResult forward_cuda(const Tensor& first, const Tensor& second, const Tensor& labels,
                           const MaybeTensor& target_first, const MaybeTensor& target_second,
                           double temperature, int64_t kind, double forward, double reverse,
                           double scale, double label_smoothing, int64_t /*stop_gradient*/) {
  const Pairs p = checked_pairs(first, second, labels, target_first, target_second);
  check_devices(first, second, labels, target_first, target_second);
  const Choices<double> c =
      checked_choices(temperature, kind, forward, reverse, scale, label_smoothing);
  const int device = first.get_device_index();
  const DeviceGuard guard(device);
  const ForwardOutputs out(first, p);
  const cudaStream_t stream = current_stream(device);
  if (p.pairs == 0) return out.result();
  switch (p.type) {
    case kFloat64: launch_forward<double>(p, c, first, out, device, stream); break;
    case kFloat32: launch_forward<float>(p, c, first, out, device, stream); break;
    case kFloat16: launch_forward<__half>(p, c, first, out, device, stream); break;
    case kBFloat16: launch_forward<__nv_bfloat16>(p, c, first, out, device, stream); break;
  }
  check(cudaGetLastError(), "forward launch");
  return out.result();
}

BackwardResult backward_cuda(const Tensor& grad_ce_first, const Tensor& grad_ce_second,
                             const Tensor& grad_similarity, const Tensor& first,
                             const Tensor& second, const Tensor& labels,
                             const MaybeTensor& target_first, const MaybeTensor& target_second,
                             const Tensor& stats, double temperature, int64_t kind, double forward,
                             double reverse, double scale, double label_smoothing,
                             int64_t stop_gradient) {
  const Pairs p = checked_pairs(first, second, labels, target_first, target_second);
  check_devices(first, second, labels, target_first, target_second);
  const Choices<double> c =
      checked_choices(temperature, kind, forward, reverse, scale, label_smoothing);
  check_stats(stats, p);
  check_device("stats", stats, first);
  check_device("grad_ce_first", grad_ce_first, first);
  check_device("grad_ce_second", grad_ce_second, first);
  check_device("grad_similarity", grad_similarity, first);
  const void* const up[3] = {checked_upstream("grad_ce_first", grad_ce_first, p),
                             checked_upstream("grad_ce_second", grad_ce_second, p),
                             checked_upstream("grad_similarity", grad_similarity, p)};
  const int device = first.get_device_index();
  const DeviceGuard guard(device);
  const BackwardOutputs out(first, p);
  const cudaStream_t s = current_stream(device);
  if (p.pairs == 0) return out.result();
  switch (p.type) {
    case kFloat64: launch_backward<double>(p, c, up, stats, stop_gradient, out, device, s); break;
    case kFloat32: launch_backward<float>(p, c, up, stats, stop_gradient, out, device, s); break;
    case kFloat16: launch_backward<__half>(p, c, up, stats, stop_gradient, out, device, s); break;
    case kBFloat16:
      launch_backward<__nv_bfloat16>(p, c, up, stats, stop_gradient, out, device, s);
      break;
  }
  check(cudaGetLastError(), "backward launch");
  return out.result();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pairdistill, PAIR_LOSS_DISPATCH_KEY, m) {
  m.impl("pair_loss", TORCH_BOX(&forward_cuda));
  m.impl("pair_loss_backward", TORCH_BOX(&backward_cuda));
}

}  // namespace cuda
}  // namespace pairdistill
