// The vector loops of the CPU path, as plain functions: compiled several times for several
// instruction sets, one table each; `cpu_table` takes the best that the processor has.
#pragma once

#include "pair_loss.h"

namespace pairdistill {

enum LogitType : int { kFloat64 = 0, kFloat32 = 1, kFloat16 = 2, kBFloat16 = 3 };

// Scores (or gradients) of `count` columns of one pair.
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
  // Adds the columns, of which none is the target; `column` is the class of the first.
  void (*reduce)(LogitType, ConstColumns, int64_t column, const Choices<double>&,
                 PairState<double>&);
  // Adds sum p (p - q) and sum q (q - p) over the columns.
  void (*mmd)(LogitType, ConstColumns, const RowStats<double>&, double soft_scale, double* sum1,
              double* sum2);
  // Writes the gradients of the columns, of which none is the target.
  void (*gradient)(LogitType, int kind, ConstColumns, Columns out, const PairGradient<double>&);
};

namespace generic { extern const CpuTable table; }
#ifdef PAIR_LOSS_X86
namespace avx2 { extern const CpuTable table; }
namespace avx512 { extern const CpuTable table; }
#endif

}  // namespace pairdistill
