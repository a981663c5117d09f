// Where a loss leaves its results, on any device: the output tensors, the pointers that kernels
// write through, and the weights of the rows.
#pragma once

#include <array>
#include <tuple>
#include <utility>
#include <vector>

#include "tensors.h"

namespace adaptau {

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;
using LossResult = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <class T>
struct Results {
  Tensor loss, unit_loss, grad_users, grad_items, grad_tau, grad_positive_tau, grad_log_q;
  SoftmaxOutput<T> out{};

  // weight: per-row dL/d(loss_b), read only if there are gradients; it must outlive the results.
  Results(const Tensor& like, const Matrix& users, int64_t n_rows, const Matrix& items,
          bool want_unit_loss, int64_t gradients, const T* weight) {
    auto make = [&](bool wanted, std::vector<int64_t> sizes, T*& pointer) {
      if (!wanted) sizes.assign(1, 0);
      Tensor t = empty_like_compute(like, users, sizes);
      pointer = wanted ? data<T>(t) : nullptr;  // also null where there is nothing to write
      return t;
    };
    loss = make(true, {n_rows}, out.loss);
    unit_loss = make(want_unit_loss, {n_rows}, out.unit_loss);
    grad_users = make(gradients & kGradUsers, {n_rows, users.cols}, out.grad_users);
    grad_items = make(gradients & kGradItems, {items.rows, items.cols}, out.grad_items);
    grad_tau = make(gradients & kGradTau, {n_rows}, out.grad_tau);
    grad_positive_tau = make(gradients & kGradPositiveTau, {n_rows}, out.grad_positive_tau);
    grad_log_q = make(gradients & kGradLogQ, {items.rows}, out.grad_log_q);
    static const T no_rows{};  // an empty batch has gradients, of nothing
    if (gradients != 0) out.weight = n_rows > 0 ? weight : &no_rows;
  }

  // more, on the CPU: what the losses add up to is more by that.
  Tensor reduced(Reduction reduction, double more) const {
    if (reduction == Reduction::none) return loss;
    if (!loss.is_cpu()) return reduced_by_torch(reduction);
    Tensor total = torch::stable::new_empty(loss, {}, loss.scalar_type());
    double sum = more;
    for (int64_t b = 0; b < loss.numel(); ++b) sum += static_cast<double>(out.loss[b]);
    *data<T>(total) = static_cast<T>(
        reduction == Reduction::mean ? sum / static_cast<double>(loss.numel()) : sum);
    return total;
  }

  LossResult forward(Reduction reduction, Tensor grad_user_rows, double more = 0) const {
    return {reduced(reduction, more), unit_loss, grad_user_rows, grad_items, grad_tau,
            grad_positive_tau,        grad_log_q};
  }
  Gradients backward(Tensor grad_user_rows) const {
    return {grad_user_rows, grad_items, grad_tau, grad_positive_tau, grad_log_q};
  }

 private:
  Tensor reduced_by_torch(Reduction reduction) const {
    if (reduction == Reduction::sum) return torch::stable::sum(loss);
    std::array<StableIValue, 2> stack{torch::stable::detail::from(loss),
                                      torch::stable::detail::from(std::nullopt)};
    STABLE_TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("aten::mean", "", stack.data(), TORCH_ABI_VERSION));
    return torch::stable::detail::to<Tensor>(stack[0]);
  }
};

// dL/d(loss_b) when the loss itself is the output; empty if no gradients are wanted.
inline Tensor reduction_weight(const Tensor& like, const Matrix& users, Reduction reduction,
                               int64_t n_rows, int64_t gradients) {
  if (gradients != 0 && reduction == Reduction::none)
    fail(
        "gradients together with the loss need reduction \"mean\" or \"sum\", got \"none\"; "
        "call the backward operator instead");
  const int64_t n = gradients != 0 ? n_rows : 0;
  const Tensor weight = empty_like_compute(like, users, {n});
  if (n > 0)
    torch::stable::fill_(weight,
                         reduction == Reduction::mean ? 1.0 / static_cast<double>(n_rows) : 1.0);
  return weight;
}

}  // namespace adaptau
