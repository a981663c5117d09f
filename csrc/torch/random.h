// draw_negatives and dropout for any device: arguments checked, problem described, a kernel called.
#pragma once

#include "tensors.h"

namespace adaptau {

// Device::draw(seed, n_items, ids) fills them; `like` says on which device.
template <class Device>
Tensor draw_negatives(Tensor like, int64_t n_rows, int64_t n_negatives, int64_t n_items,
                      int64_t seed) {
  if (n_rows < 0) fail("n_rows must be >= 0, got ", n_rows);
  if (n_negatives < 0) fail("n_negatives must be >= 0, got ", n_negatives);
  if (n_items < 1 || n_items >= (int64_t{1} << 31))
    fail("n_items must be in [1, 2^31), got ", n_items);
  Tensor out = torch::stable::new_empty(like, {n_rows, n_negatives}, ScalarType::Long);
  Device::draw(static_cast<uint64_t>(seed), static_cast<uint32_t>(n_items), out);
  return out;
}

inline Dropout parse_dropout(const char* name, int64_t steps, int64_t seed) {
  if (steps < 0 || steps >= Dropout::kSteps)
    fail(name, " must be in [0, ", Dropout::kSteps, "), got ", steps);
  return {steps, static_cast<uint64_t>(seed)};
}

// Device::dropout(problem, out) runs the kernel.
template <class Device>
Tensor dropout_rows(Tensor x, OptionalTensor rows, int64_t first_row, int64_t steps, int64_t seed) {
  const Arguments given(x);
  const Matrix m = given.matrix("x", x);
  constexpr int64_t most = int64_t{1} << 62;  // the sum of two is still a number
  if (first_row < 0 || first_row >= most) fail("first_row must be in [0, 2^62), got ", first_row);
  const int64_t* ids = rows ? given.ids("rows", *rows, m.rows, 0, most) : nullptr;
  Tensor out = empty_like_compute(x, m, {m.rows, m.cols});
  Device::with_compute_type(m, [&](auto zero) {
    Device::dropout(x, DropoutProblem{m, ids, first_row, parse_dropout("steps", steps, seed)},
                    data<decltype(zero)>(out));
  });
  return out;
}

}  // namespace adaptau
