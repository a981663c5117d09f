// sampled_scores and its backward operator for any device: arguments checked, problem described, a
// kernel called.
#pragma once

#include <tuple>

#include "tensors.h"

namespace adaptau {

// A call's problem, and the ids that it points into.
struct ScoresCall {
  ScoresProblem problem;
  Tensor listed;
};

inline ScoresCall scores_call(const Arguments& given, const Matrix& users, const Matrix& table,
                              const Tensor& items, const Text& normalize) {
  check_pair("u", users, "i", table);
  if (items.dim() != 2 || items.size(0) != users.rows)
    fail("items must have shape [", users.rows, ", n_items of a row], got ", shape_of(items));
  const int64_t n = items.size(1);
  if (n > 0 && users.rows >= (int64_t{1} << 32) / n)
    fail("batch rows x items of a row must be below 2^32, got ", users.rows, " x ", n,
         "; use smaller batches");
  ScoresCall call{{users, table, nullptr, n, parse_normalize(normalize)},
                  torch::stable::flatten(items)};
  call.problem.listed = given.ids("items", call.listed, users.rows * n, 0, table.rows);
  return call;
}

// Device::sampled_scores(like, problem, scores) runs the kernels, like being a tensor to allocate
// scratch from.
template <class Device>
Tensor scores_of_listed(Tensor u, Tensor i, Tensor items, Text normalize) {
  const Arguments given(u);
  const Matrix users = given.matrix("u", u), table = given.matrix("i", i);
  const ScoresCall call = scores_call(given, users, table, items, normalize);
  Tensor scores = empty_like_compute(u, users, {users.rows, call.problem.n_listed});
  Device::with_compute_type(users, [&](auto zero) {
    Device::sampled_scores(u, call.problem, data<decltype(zero)>(scores));
  });
  return scores;
}

// Device::sampled_scores_backward(like, problem, grad, grad_users, grad_items) runs the kernels.
template <class Device>
std::tuple<Tensor, Tensor> scores_of_listed_backward(Tensor grad, Tensor u, Tensor i, Tensor items,
                                                     Text normalize, int64_t gradients) {
  const Arguments given(u);
  const Matrix users = given.matrix("u", u), table = given.matrix("i", i);
  const ScoresCall call = scores_call(given, users, table, items, normalize);
  if (grad.dim() != 2 || grad.size(0) != users.rows || grad.size(1) != call.problem.n_listed)
    fail("grad must have the shape of the scores, [", users.rows, ", ", call.problem.n_listed,
         "], got ", shape_of(grad));
  const Tensor flat = torch::stable::flatten(grad);
  auto make = [&](int64_t bit, const Matrix& m) {
    return gradients & bit ? empty_like_compute(u, users, {m.rows, m.cols})
                           : empty_like_compute(u, users, {0});
  };
  Tensor grad_u = make(kGradUsers, users), grad_i = make(kGradItems, table);
  Device::with_compute_type(users, [&](auto zero) {
    using T = decltype(zero);
    Device::sampled_scores_backward(
        u, call.problem, given.values<T>("grad", flat, users.rows * call.problem.n_listed),
        gradients & kGradUsers ? data<T>(grad_u) : nullptr,
        gradients & kGradItems ? data<T>(grad_i) : nullptr);
  });
  return {grad_u, grad_i};
}

}  // namespace adaptau
