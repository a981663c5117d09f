// fused_adaptive_softmax and its backward operator for any device: arguments checked, problem
// described, a kernel called.
#pragma once

#include <string>

#include "results.h"
#include "terms.h"

namespace adaptau {

struct FusedArguments {
  const Tensor &u, &i, &tau;
  const OptionalTensor &target, &positive_tau, &log_q, &item_ids, &exclude_indptr, &exclude_indices;
  const std::string &denominator, &normalize, &precision;
  int64_t workspace_mib;
};

// What a device is asked to do; it finds the candidates that leave the denominator itself.
template <class T>
struct FusedCall {
  SoftmaxProblem<T> problem;  // nothing masked yet
  const int64_t* item_ids;    // [M] in [0, 2^31), or nullptr: every candidate is its own item
  SizedCsr excluded;          // per user: item_ids, or rows of i where there are none
  int64_t workspace_bytes;
};

constexpr int64_t kMostIds = int64_t{1} << 31;
constexpr int64_t kMostMib = int64_t{1} << 43;  // as bytes they overflow

template <class T>
FusedCall<T> fused_call(const Arguments& given, const FusedArguments& a, const Matrix& users,
                        const Matrix& items) {
  const int64_t B = users.rows, M = items.rows;
  FusedCall<T> call{{users, items, nullptr, {}, {}, Precision::float32}, nullptr, {}, 0};
  if (a.target) {
    call.problem.target = given.ids("target", *a.target, B, -1, M);
  } else if (M < B) {
    fail(
        "target is needed when i has fewer rows than u (row b's positive is i[b] without it), got ",
        M, " and ", B);
  }
  if (a.item_ids) call.item_ids = given.ids("item_ids", *a.item_ids, M, 0, kMostIds);
  call.excluded = given.csr("exclude", a.exclude_indptr, a.exclude_indices, B,
                            call.item_ids != nullptr ? kMostIds : M);
  call.problem.terms =
      softmax_terms<T>(given, a.tau, a.positive_tau, a.log_q, a.denominator, a.normalize, B, M);
  call.problem.precision = parse_precision(a.precision);
  if (a.workspace_mib < 0 || a.workspace_mib >= kMostMib)
    fail("workspace_mib must be in [0, 2^43), got ", a.workspace_mib);
  call.workspace_bytes = a.workspace_mib << 20;
  return call;
}

// Device::softmax(arguments, call, out) runs the kernels.
template <class Device>
LossResult fused_adaptive_softmax(Tensor u, Tensor i, Tensor tau, OptionalTensor target,
                                  OptionalTensor positive_tau, OptionalTensor log_q,
                                  OptionalTensor item_ids, OptionalTensor exclude_indptr,
                                  OptionalTensor exclude_indices, Text denominator, Text normalize,
                                  Text precision, int64_t workspace_mib, Text reduction,
                                  bool unit_loss, int64_t gradients) {
  const Arguments given(u);
  const Matrix users = given.matrix("u", u), items = given.matrix("i", i);
  check_pair("u", users, "i", items);
  return Device::with_compute_type(users, [&](auto zero) {
    using T = decltype(zero);
    const Reduction reduce = parse_reduction(reduction);
    const Tensor weight = reduction_weight(u, users, reduce, users.rows, gradients);
    const Results<T> r(u, users, users.rows, items, unit_loss, gradients, data<T>(weight));
    const FusedArguments arguments{u,
                                   i,
                                   tau,
                                   target,
                                   positive_tau,
                                   log_q,
                                   item_ids,
                                   exclude_indptr,
                                   exclude_indices,
                                   denominator,
                                   normalize,
                                   precision,
                                   workspace_mib};
    Device::softmax(arguments, fused_call<T>(given, arguments, users, items), r.out);
    return r.forward(reduce, r.grad_users);
  });
}

template <class Device>
Gradients fused_adaptive_softmax_backward(Tensor grad_loss, Tensor u, Tensor i, Tensor tau,
                                          OptionalTensor target, OptionalTensor positive_tau,
                                          OptionalTensor log_q, OptionalTensor item_ids,
                                          OptionalTensor exclude_indptr,
                                          OptionalTensor exclude_indices, Text denominator,
                                          Text normalize, Text precision, int64_t workspace_mib,
                                          int64_t gradients) {
  const Arguments given(u);
  const Matrix users = given.matrix("u", u), items = given.matrix("i", i);
  check_pair("u", users, "i", items);
  return Device::with_compute_type(users, [&](auto zero) {
    using T = decltype(zero);
    const Results<T> r(u, users, users.rows, items, false, gradients,
                       given.values<T>("grad_loss", grad_loss, users.rows));
    const FusedArguments arguments{u,
                                   i,
                                   tau,
                                   target,
                                   positive_tau,
                                   log_q,
                                   item_ids,
                                   exclude_indptr,
                                   exclude_indices,
                                   denominator,
                                   normalize,
                                   precision,
                                   workspace_mib};
    Device::softmax(arguments, fused_call<T>(given, arguments, users, items), r.out);
    return r.backward(r.grad_users);
  });
}

}  // namespace adaptau
