// The four operators written naively in double: what every kernel is compared with in the C++
// tests. Dense arrays, no blocking, no shift but the true maximum. Reads like the definition in
// problem.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "problem.h"

namespace adaptau::oracle {

using Rows = std::vector<std::vector<double>>;

inline std::vector<double> unit(std::vector<double> x, bool normalise) {
  double scale = 0, square = 0;
  for (double v : x) scale = std::max(scale, std::abs(v));
  if (!normalise || scale == 0) return x;
  for (double v : x) square += (v / scale) * (v / scale);
  for (double& v : x) v = v / scale / std::sqrt(square);
  return x;
}

inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double s = 0;
  for (size_t k = 0; k < a.size(); ++k) s += a[k] * b[k];
  return s;
}

inline double norm(const std::vector<double>& x) { return std::sqrt(dot(x, x)); }

// dL/dx from dL/dx^ through x^ = x / |x|; zero for a zero row.
inline std::vector<double> unit_backward(const std::vector<double>& x, const std::vector<double>& g,
                                         bool normalise) {
  if (!normalise) return g;
  const double length = norm(x);
  std::vector<double> out(x.size(), 0.0);
  if (length == 0) return out;
  const auto u = unit(x, true);
  const double along = dot(g, u);
  for (size_t k = 0; k < x.size(); ++k) out[k] = (g[k] - along * u[k]) / length;
  return out;
}

struct Loss {
  std::vector<double> loss, unit_loss, grad_tau, grad_positive_tau, grad_log_q;
  Rows grad_users, grad_items;  // one user row a batch row
};

// candidates[b]: the items of row b's denominator besides the positive, repeated where drawn twice.
// Gradients are of sum_b weight[b] * loss[b].
inline Loss softmax(const Rows& users, const Rows& items, const std::vector<int64_t>& positive,
                    const std::vector<std::vector<int64_t>>& candidates,
                    const SoftmaxTerms<double>& terms, const std::vector<double>& weight) {
  const size_t B = users.size(), M = items.size(), d = M == 0 ? 0 : items[0].size();
  const bool all = terms.denominator == Denominator::all;
  Loss out;
  out.grad_items.assign(M, std::vector<double>(d, 0.0));
  out.grad_log_q.assign(M, 0.0);
  Rows unit_items;
  for (const auto& i : items) unit_items.push_back(unit(i, terms.normalize.item));
  for (size_t b = 0; b < B; ++b) {
    const auto u = unit(users[b], terms.normalize.user);
    const int64_t t = positive[b];
    const double tau = terms.tau[b];
    const double positive_tau = terms.positive_tau != nullptr ? terms.positive_tau[b] : tau;
    auto log_q = [&](int64_t j) { return terms.log_q != nullptr ? terms.log_q[j] : 0.0; };
    const double s_positive = dot(u, unit_items[t]);
    const double z_positive = s_positive / positive_tau - (all ? log_q(t) : 0);
    auto log_sum = [&](auto logit, double extra) {
      double top = all ? extra : -std::numeric_limits<double>::infinity(), sum = 0;
      for (int64_t j : candidates[b]) top = std::max(top, logit(j));
      for (int64_t j : candidates[b]) sum += std::exp(logit(j) - top);
      if (all) sum += std::exp(extra - top);
      return top + std::log(sum);
    };
    auto logit = [&](int64_t j) { return dot(u, unit_items[j]) / tau - log_q(j); };
    const double lse = log_sum(logit, z_positive);
    out.loss.push_back(lse - z_positive);
    out.unit_loss.push_back(log_sum([&](int64_t j) { return dot(u, unit_items[j]); }, s_positive) -
                            s_positive);

    std::vector<double> gu(d, 0.0);
    double gtau = 0;
    for (int64_t j : candidates[b]) {
      const double g = weight[b] * std::exp(logit(j) - lse);
      gtau -= g * dot(u, unit_items[j]) / (tau * tau);
      out.grad_log_q[j] -= g;
      for (size_t k = 0; k < d; ++k) {
        gu[k] += g / tau * unit_items[j][k];
        out.grad_items[j][k] += g / tau * u[k];
      }
    }
    const double g = weight[b] * ((all ? std::exp(z_positive - lse) : 0) - 1);
    const double g_positive_tau = -g * s_positive / (positive_tau * positive_tau);
    if (all) out.grad_log_q[t] -= g;
    for (size_t k = 0; k < d; ++k) {
      gu[k] += g / positive_tau * unit_items[t][k];
      out.grad_items[t][k] += g / positive_tau * u[k];
    }
    const bool own = terms.positive_tau != nullptr;
    out.grad_tau.push_back(own ? gtau : gtau + g_positive_tau);
    out.grad_positive_tau.push_back(own ? g_positive_tau : 0);
    out.grad_users.push_back(unit_backward(users[b], gu, terms.normalize.user));
  }
  for (size_t j = 0; j < M; ++j)
    out.grad_items[j] = unit_backward(items[j], out.grad_items[j], terms.normalize.item);
  return out;
}

}  // namespace adaptau::oracle
