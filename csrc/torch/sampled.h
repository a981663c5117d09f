// sampled_adaptive_softmax and its backward operator for any device: arguments checked, problem
// described, a kernel called.
#pragma once

#include <string>

#include "results.h"
#include "terms.h"

namespace adaptau {

struct SampledArguments {
  const Tensor &user_table, &item_table;
  const OptionalTensor& users;
  const Tensor &positives, &tau;
  const OptionalTensor &positive_tau, &negatives;
  int64_t n_negatives, seed;
  double item_l2;
  const OptionalTensor& log_q;
  const std::string &denominator, &normalize;

  int64_t n_rows() const { return users ? users->numel() : user_table.size(0); }
};

template <class T>
struct SampledCall {
  SampledProblem<T> problem;
  Tensor negatives;  // what the problem's point into
};

template <class T>
SampledCall<T> sampled_call(const Arguments& given, const SampledArguments& a,
                            const Matrix& user_table, const Matrix& item_table) {
  const int64_t B = a.n_rows(), M = item_table.rows;
  SampledCall<T> call{};
  SampledProblem<T>& problem = call.problem;
  problem.user_table = user_table;
  problem.item_table = item_table;
  problem.users = a.users ? given.ids("users", *a.users, B, 0, user_table.rows) : nullptr;
  problem.positives = given.ids("positives", a.positives, B, 0, M);
  problem.n_rows = B;
  problem.n_negatives = a.n_negatives;
  problem.seed = static_cast<uint64_t>(a.seed);
  problem.item_l2 = a.item_l2;
  if (!(a.item_l2 >= 0)) fail("item_l2 must be >= 0, got ", a.item_l2);
  if (a.negatives) {
    const Tensor& negatives = *a.negatives;
    if (negatives.dim() != 2 || negatives.size(0) != B)
      fail("negatives must have shape [", B, ", n_negatives], got ", shape_of(negatives));
    problem.n_negatives = negatives.size(1);
    call.negatives = torch::stable::flatten(negatives);
    problem.negatives = given.ids("negatives", call.negatives, B * problem.n_negatives, 0, M);
  }
  if (problem.n_negatives < 0) fail("n_negatives must be >= 0, got ", problem.n_negatives);
  if (problem.n_negatives > 0 && B >= (int64_t{1} << 32) / problem.n_negatives)
    fail("batch rows x n_negatives must be below 2^32, got ", B, " x ", problem.n_negatives,
         "; use smaller batches");
  problem.terms =
      softmax_terms<T>(given, a.tau, a.positive_tau, a.log_q, a.denominator, a.normalize, B, M);
  if (problem.terms.denominator == Denominator::negatives && problem.n_negatives == 0 && B > 0)
    fail("denominator=\"negatives\" needs n_negatives >= 1, got 0");
  return call;
}

// Gradient rows of the batch -> gradient of the table.
template <class Device, class T>
Tensor grad_user_table(const SampledArguments& a, const SampledProblem<T>& problem,
                       const Results<T>& r, int64_t gradients) {
  if (!(gradients & kGradUsers) || !a.users) return r.grad_users;
  const Matrix& table = problem.user_table;
  const Tensor grad =
      torch::stable::new_zeros(a.user_table, {table.rows, table.cols}, compute_type(table));
  if (problem.n_rows > 0) Device::template scatter_users<T>(a, r.grad_users, grad);
  return grad;
}

// Device::sampled_softmax(like, problem, out) runs the kernels, like being a tensor to allocate
// scratch from; Device::scatter_users<T>(arguments, rows, table) adds rows [B, d] to the zeros of
// the table.
template <class Device>
LossResult sampled_adaptive_softmax(Tensor user_table, Tensor item_table, OptionalTensor users,
                                    Tensor positives, Tensor tau, OptionalTensor positive_tau,
                                    OptionalTensor negatives, int64_t n_negatives, int64_t seed,
                                    double item_l2, OptionalTensor log_q, Text denominator,
                                    Text normalize, Text reduction, bool unit_loss,
                                    int64_t gradients) {
  const Arguments given(user_table);
  const Matrix u = given.matrix("user_table", user_table);
  const Matrix i = given.matrix("item_table", item_table);
  check_pair("user_table", u, "item_table", i);
  const SampledArguments a{user_table,   item_table,  users,       positives, tau,
                           positive_tau, negatives,   n_negatives, seed,      item_l2,
                           log_q,        denominator, normalize};
  return Device::with_compute_type(u, [&](auto zero) {
    using T = decltype(zero);
    const Reduction reduce = parse_reduction(reduction);
    const Tensor weight = reduction_weight(user_table, u, reduce, a.n_rows(), gradients);
    Results<T> r(user_table, u, a.n_rows(), i, unit_loss, gradients, data<T>(weight));
    const SampledCall<T> call = sampled_call<T>(given, a, u, i);
    double squares = 0;
    if (given.on_cpu() && item_l2 != 0 && reduce != Reduction::none) r.out.squares = &squares;
    Device::sampled_softmax(user_table, call.problem, r.out);
    return r.forward(reduce, grad_user_table<Device>(a, call.problem, r, gradients),
                     item_l2 / 2 * squares);
  });
}

template <class Device>
Gradients sampled_adaptive_softmax_backward(Tensor grad_loss, Tensor user_table, Tensor item_table,
                                            OptionalTensor users, Tensor positives, Tensor tau,
                                            OptionalTensor positive_tau, OptionalTensor negatives,
                                            int64_t n_negatives, int64_t seed, double item_l2,
                                            OptionalTensor log_q, Text denominator, Text normalize,
                                            int64_t gradients) {
  const Arguments given(user_table);
  const Matrix u = given.matrix("user_table", user_table);
  const Matrix i = given.matrix("item_table", item_table);
  check_pair("user_table", u, "item_table", i);
  const SampledArguments a{user_table,   item_table,  users,       positives, tau,
                           positive_tau, negatives,   n_negatives, seed,      item_l2,
                           log_q,        denominator, normalize};
  return Device::with_compute_type(u, [&](auto zero) {
    using T = decltype(zero);
    const Results<T> r(user_table, u, a.n_rows(), i, false, gradients,
                       given.values<T>("grad_loss", grad_loss, a.n_rows()));
    const SampledCall<T> call = sampled_call<T>(given, a, u, i);
    Device::sampled_softmax(user_table, call.problem, r.out);
    return r.backward(grad_user_table<Device>(a, call.problem, r, gradients));
  });
}

}  // namespace adaptau
