#include <algorithm>

#include "operators.h"
#include "rows.h"

namespace adaptau {

template <class T>
void dropout(const DropoutProblem& p, T* out, const Parallel& parallel) {
  constexpr int64_t task_rows = 512;
  const Kernels<T>& kernels = active_kernels<T>();
  const int64_t rows = p.x.rows, d = p.x.cols, ld = padded<T>(d);
  const bool in_place = readable_in_place<T>(p.x);
  for_each_task(parallel, (rows + task_rows - 1) / task_rows, [&](int64_t task, int) {
    const Buffer<T> copy(in_place ? 0 : ld);
    for (int64_t r = task * task_rows; r < std::min(rows, (task + 1) * task_rows); ++r) {
      if (!in_place) read_row(p.x, r, copy.get(), ld);
      kernels.dropout_row(p.dropout, p.first_row + (p.ids != nullptr ? p.ids[r] : r), d,
                          in_place ? row_in_place<T>(p.x, r) : copy.get(), out + r * d);
    }
  });
}
template void dropout<float>(const DropoutProblem&, float*, const Parallel&);
template void dropout<double>(const DropoutProblem&, double*, const Parallel&);

}  // namespace adaptau
