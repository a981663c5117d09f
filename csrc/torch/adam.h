// adam_rows_: arguments checked, problem described, a kernel called.
#pragma once

#include <cmath>

#include "tensors.h"

namespace adaptau {

constexpr int64_t kMostMissed = 1 << 24;  // steps; tables of their factors take 32 bytes each

// Device::adam(problem) runs the kernel.
template <class Device>
void adam_rows_(Tensor parameter, Tensor mean, Tensor square, Tensor last_step, OptionalTensor rows,
                OptionalTensor gradient, int64_t step, double lr, double beta1, double beta2,
                double epsilon) {
  const Arguments given(parameter);
  const Matrix m = given.matrix("parameter", parameter);
  if (m.dtype != DType::f32 && m.dtype != DType::f64)
    fail("parameter must be float32 or float64, got ", name_of(parameter.scalar_type()));
  for (const auto& [name, t] : {std::pair{"parameter", &parameter}, std::pair{"mean", &mean},
                                std::pair{"square", &square}}) {
    const Matrix own = given.matrix(name, *t);
    check_pair("parameter", m, name, own);
    if (own.rows != m.rows) fail(name, " must have ", m.rows, " rows, got ", own.rows);
    if (!t->is_contiguous()) fail(name, " must be contiguous");
  }
  if (step < 1) fail("step must be >= 1, got ", step);
  for (const auto& [name, beta] : {std::pair{"beta1", beta1}, std::pair{"beta2", beta2}})
    if (!(beta >= 0 && beta < 1)) fail(name, " must be in [0, 1), got ", beta);
  for (const auto& [name, value] : {std::pair{"lr", lr}, std::pair{"epsilon", epsilon}})
    if (!(value >= 0 && std::isfinite(value))) fail(name, " must be finite and >= 0, got ", value);
  const int64_t* ids = rows ? given.ids("rows", *rows, -1, 0, m.rows) : nullptr;
  const int64_t n = rows ? rows->numel() : m.rows;
  const int64_t* last = given.integers("last_step", last_step, m.rows);
  const int64_t latest = gradient ? step - 1 : step;
  for (int64_t i = 0; i < n; ++i) {  // of the rows used: there may be very many others
    const int64_t own = last[ids != nullptr ? ids[i] : i];
    if (own < 0 || own > latest) fail("last_step must lie in [0, ", latest, "], got ", own);
    if (own != 0 && latest - own > kMostMissed)
      fail("last_step of a row must be at most ", kMostMissed, " before step, got ", own,
           "; catch up more often");
  }
  if (gradient) {
    if (!rows) fail("gradient needs rows, got none");
    const Matrix own = given.matrix("gradient", *gradient);
    check_pair("parameter", m, "gradient", own);
    if (own.rows != n) fail("gradient must have ", n, " rows as rows has, got ", own.rows);
    if (!gradient->is_contiguous()) fail("gradient must be contiguous; call .contiguous()");
  }
  Device::with_compute_type(m, [&](auto zero) {
    using T = decltype(zero);
    Device::adam(AdamProblem<T>{
        data<T>(parameter), data<T>(mean), data<T>(square), data<int64_t>(last_step), m.cols, ids,
        n, gradient ? data<T>(*gradient) : nullptr, step, lr, beta1, beta2, epsilon});
  });
}

}  // namespace adaptau
