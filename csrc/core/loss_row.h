// From one row's totals to its loss and the coefficients of its gradient; the dense and the sampled
// loss differ only in how they come by the totals. In double: there are few rows. The same on CPU
// and GPU.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "host_device.h"
#include "problem.h"

namespace adaptau {

constexpr double kLog2e = 1.44269504088896340736, kLn2 = 0.69314718055994530942;

// Largest 1 / tau for which the logits need no running maximum when both sides are normalised: a sum
// of exponentials is exp(-2 / tau) at least, and 1 / (sum * tau) times a weight of up to 10^9 is a
// number of type T.
template <class T>
constexpr double max_bounded_inv_tau() {
  return sizeof(T) == 4 ? 32.0 : 340.0;
}

template <class T>
bool logits_are_bounded(const SoftmaxTerms<T>& terms, int64_t n_rows) {
  if (!terms.normalize.user || !terms.normalize.item || terms.log_q != nullptr) return false;
  for (int64_t b = 0; b < n_rows; ++b)
    if (!(1 / static_cast<double>(terms.tau[b]) <= max_bounded_inv_tau<T>())) return false;
  return true;
}

// sum_j exp(z_j) = sum * exp(shift) over the row's negatives, and the same at temperature 1.
struct RowTotals {
  double shift, sum, unit_shift, unit_sum;
  double positive_score;
};

struct RowTerms {
  double inv_tau, inv_positive_tau;
  double coefficient;  // dL/dz_j = coefficient * (the e_j that went into sum)
  double positive;     // dL/dz+ = p+ - 1 for "all", -1 for "negatives", times the weight
};

// As a positive's score, infinity would end in a loss of zero; the operators promise NaN.
inline double finite_or_nan(double score) { return score + (score - score); }

ADAPTAU_HOST_DEVICE inline double softplus(double x) {
  return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
}

// Writes loss and unit_loss of row b with positive t; returns the gradient's coefficients. Without
// a positive, t < 0 and its score zero, the loss is the negatives' log-sum-exp.
template <class T>
ADAPTAU_HOST_DEVICE RowTerms finish_losses(const SoftmaxTerms<T>& terms, int64_t b, int64_t t,
                                           const RowTotals& totals, const SoftmaxOutput<T>& out) {
  const bool all = t >= 0 && terms.denominator == Denominator::all;
  RowTerms row;
  row.inv_tau = 1.0 / terms.tau[b];
  row.inv_positive_tau = terms.positive_tau != nullptr ? 1.0 / terms.positive_tau[b] : row.inv_tau;
  const double log_q = all && terms.log_q != nullptr ? terms.log_q[t] : 0;
  const double s = totals.positive_score;
  double positive = row.inv_positive_tau * s - log_q;
  if (all && positive == INFINITY) positive = NAN;  // infinity would end in a loss of zero
  // log of the negatives' sum over the positive's term
  const double gap = totals.shift + std::log(totals.sum) - positive;
  const double unit_gap = totals.unit_shift + std::log(totals.unit_sum) - s;
  if (out.loss != nullptr) out.loss[b] = static_cast<T>(all ? softplus(gap) : gap);
  if (out.unit_loss != nullptr)
    out.unit_loss[b] = static_cast<T>(all ? softplus(unit_gap) : unit_gap);
  // The negatives' share of the denominator: 1 - p+ without the cancellation.
  const double share = all ? 1 / (1 + std::exp(-gap)) : 1;
  const double weight = out.weight != nullptr ? out.weight[b] : 0;
  row.coefficient = totals.sum == 0 ? 0 : weight * share / totals.sum;
  row.positive = -weight * share;
  return row;
}

// Gradients of the temperatures; user_dot_o = <u^, sum_j e_j i^_j>.
template <class T>
ADAPTAU_HOST_DEVICE void finish_temperatures(const SoftmaxTerms<T>& terms, int64_t b,
                                             const RowTerms& row, double user_dot_o,
                                             double positive_score, const SoftmaxOutput<T>& out) {
  const double from_negatives = -row.inv_tau * row.inv_tau * row.coefficient * user_dot_o;
  const double from_positive =
      -row.inv_positive_tau * row.inv_positive_tau * row.positive * positive_score;
  const bool own = terms.positive_tau != nullptr;
  if (out.grad_tau != nullptr)
    out.grad_tau[b] = static_cast<T>(own ? from_negatives : from_negatives + from_positive);
  if (out.grad_positive_tau != nullptr)
    out.grad_positive_tau[b] = static_cast<T>(own ? from_positive : 0);
}

}  // namespace adaptau
