// The vector loops of the CPU path, as plain functions: compiled several times for several
// instruction sets, one table each; `pair_loss.cpp` takes the best that the processor has.
#pragma once

#include "pair_loss.h"

namespace pairdistill {

enum LogitType : int { kFloat64 = 0, kFloat32 = 1, kFloat16 = 2, kBFloat16 = 3 };

// Logits (or gradients) of `count` columns of one pair.
struct ConstColumns {
  const void* first;
  const void* second;
  int64_t count;
};
struct Columns {
  void* first;
  void* second;
};

struct CpuTable {
  const char* name;
  // Reduces the columns, of which none is the target; `column` is the number of the first.
  PairState<double> (*reduce)(LogitType, ConstColumns, int64_t column, const Choices<double>&);
  // Adds sum p (p - q) and sum q (q - p) over the columns.
  void (*mmd)(LogitType, ConstColumns, const RowStats<double>&, double inv_temperature,
              double* sum1, double* sum2);
  // Writes the gradients of the columns, of which none is the target.
  void (*gradient)(LogitType, int kind, ConstColumns, Columns out, const PairGradient<double>&);
};

namespace generic { extern const CpuTable table; }
#ifdef PAIR_LOSS_X86
namespace avx2 { extern const CpuTable table; }
namespace avx512 { extern const CpuTable table; }
#endif

}  // namespace pairdistill
