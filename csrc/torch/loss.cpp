// The two losses on the CPU: arguments checked, problem described, kernels called.
#include <limits>
#include <tuple>

#include "../cpu/operators.h"
#include "tensors.h"

namespace adaptau {
namespace {

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;
using FusedResult = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
using SampledResult = FusedResult;

template <class F>
auto with_compute_type(const Matrix& m, F&& f) {
  return m.dtype == DType::f64 ? f(double{}) : f(float{});
}

template <class T>
SoftmaxTerms<T> soft_max_terms(const Tensor& tau, const OptionalTensor& positive_tau,
                               const OptionalTensor& log_q, const std::string& denominator,
                               const std::string& normalize, int64_t n_rows, int64_t n_items) {
  return {temperatures<T>("tau", tau, n_rows),
          positive_tau ? temperatures<T>("positive_tau", *positive_tau, n_rows) : nullptr,
          log_q ? values<T>("log_q", *log_q, n_items) : nullptr, parse_denominator(denominator),
          parse_normalize(normalize)};
}

// Buffers for one call's results, and the raw pointers the kernels write through.
template <class T>
struct Results {
  Tensor loss, unit_loss, grad_users, grad_items, grad_tau, grad_positive_tau, grad_log_q;
  std::vector<T> weight;
  SoftmaxOutput<T> out{};

  // weight: per-row dL/d(loss_b); empty for none
  Results(const Tensor& like, const Matrix& users, int64_t n_rows, const Matrix& items,
          bool want_unit_loss, int64_t gradients, std::vector<T> row_weight)
      : weight(std::move(row_weight)) {
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
    out.weight = gradients != 0 ? weight.data() : nullptr;
    static T no_rows;  // an empty batch has gradients, of nothing
    if (gradients != 0 && weight.empty()) out.weight = &no_rows;
  }

  Tensor reduced(Reduction reduction, const Tensor& like, const Matrix& users) const {
    if (reduction == Reduction::none) return loss;
    Tensor total = empty_like_compute(like, users, {});
    double sum = 0;
    for (int64_t b = 0; b < loss.numel(); ++b) sum += static_cast<double>(out.loss[b]);
    *data<T>(total) = static_cast<T>(
        reduction == Reduction::mean ? sum / static_cast<double>(loss.numel()) : sum);
    return total;
  }
};

// dL/d(loss_b) when the loss itself is the output.
template <class T>
std::vector<T> reduction_weight(Reduction reduction, int64_t n_rows, int64_t gradients) {
  if (gradients == 0) return {};
  if (reduction == Reduction::none)
    fail(
        "gradients together with the loss need reduction \"mean\" or \"sum\", got \"none\"; "
        "call the backward operator instead");
  return std::vector<T>(n_rows,
                        reduction == Reduction::mean ? T(1) / static_cast<T>(n_rows) : T(1));
}

template <class T>
std::vector<T> given_weight(const Tensor& grad_loss, int64_t n_rows) {
  const T* w = values<T>("grad_loss", grad_loss, n_rows);
  return std::vector<T>(w, w + n_rows);
}

// "negatives" leaves an empty sum where nothing but the positive is left.
void check_denominator(Denominator denominator, const Csr& masked, int64_t n_rows,
                       int64_t n_items) {
  if (denominator == Denominator::all) return;
  for (int64_t b = 0; b < n_rows; ++b)
    if (n_items - 1 - (masked.indptr[b + 1] - masked.indptr[b]) <= 0)
      fail("denominator=\"negatives\" needs a candidate besides the positive, row ", b,
           " has none of ", n_items,
           " left; add candidates, exclude fewer, or use denominator=\"all\"");
}

struct FusedArguments {
  const Tensor &u, &i, &tau;
  const OptionalTensor &target, &positive_tau, &log_q, &item_ids, &exclude_indptr, &exclude_indices;
  const std::string &denominator, &normalize, &precision;
  int64_t workspace_mib;
};

template <class T>
void run_fused(const FusedArguments& a, const Matrix& users, const Matrix& items,
               Results<T>& results) {
  const int64_t B = users.rows, M = items.rows;
  const int64_t* target = nullptr;
  if (a.target) {
    target = ids("target", *a.target, B, 0, M);
  } else if (M < B) {
    fail(
        "target is needed when i has fewer rows than u (row b's positive is i[b] without it), got ",
        M, " and ", B);
  }
  const int64_t any_id = int64_t{1} << 31;
  const int64_t* item_ids = a.item_ids ? ids("item_ids", *a.item_ids, M, 0, any_id) : nullptr;
  const Csr excluded =
      csr("exclude", a.exclude_indptr, a.exclude_indices, B, item_ids ? any_id : M);
  const auto terms =
      soft_max_terms<T>(a.tau, a.positive_tau, a.log_q, a.denominator, a.normalize, B, M);
  MaskedCandidates masked;
  if (item_ids != nullptr || excluded.indptr != nullptr) {
    masked = masked_candidates(B, M, target, item_ids, excluded);
  } else {
    masked.indptr.assign(B + 1, 0);
  }
  check_denominator(terms.denominator, masked.csr(), B, M);
  const Csr no_mask{};
  const SoftmaxProblem<T> problem{users,  items,
                                  target, masked.indices.empty() ? no_mask : masked.csr(),
                                  terms,  parse_precision(a.precision)};
  if (a.workspace_mib < 0) fail("workspace_mib must be >= 0, got ", a.workspace_mib);
  fused_softmax<T>(problem, results.out, torch_threads(), a.workspace_mib << 20);
}

FusedResult fused_adaptive_softmax(Tensor u, Tensor i, Tensor tau, OptionalTensor target,
                                   OptionalTensor positive_tau, OptionalTensor log_q,
                                   OptionalTensor item_ids, OptionalTensor exclude_indptr,
                                   OptionalTensor exclude_indices, std::string denominator,
                                   std::string normalize, std::string precision,
                                   int64_t workspace_mib, std::string reduction, bool unit_loss,
                                   int64_t gradients) {
  const Matrix users = matrix("u", u), items = matrix("i", i);
  check_pair("u", users, "i", items);
  return with_compute_type(users, [&](auto zero) -> FusedResult {
    using T = decltype(zero);
    const Reduction reduce = parse_reduction(reduction);
    Results<T> r(u, users, users.rows, items, unit_loss, gradients,
                 reduction_weight<T>(reduce, users.rows, gradients));
    run_fused<T>({u, i, tau, target, positive_tau, log_q, item_ids, exclude_indptr, exclude_indices,
                  denominator, normalize, precision, workspace_mib},
                 users, items, r);
    return {r.reduced(reduce, u, users), r.unit_loss, r.grad_users, r.grad_items, r.grad_tau,
            r.grad_positive_tau,         r.grad_log_q};
  });
}

Gradients fused_adaptive_softmax_backward(Tensor grad_loss, Tensor u, Tensor i, Tensor tau,
                                          OptionalTensor target, OptionalTensor positive_tau,
                                          OptionalTensor log_q, OptionalTensor item_ids,
                                          OptionalTensor exclude_indptr,
                                          OptionalTensor exclude_indices, std::string denominator,
                                          std::string normalize, std::string precision,
                                          int64_t workspace_mib, int64_t gradients) {
  const Matrix users = matrix("u", u), items = matrix("i", i);
  check_pair("u", users, "i", items);
  return with_compute_type(users, [&](auto zero) -> Gradients {
    using T = decltype(zero);
    Results<T> r(u, users, users.rows, items, false, gradients,
                 given_weight<T>(grad_loss, users.rows));
    run_fused<T>({u, i, tau, target, positive_tau, log_q, item_ids, exclude_indptr, exclude_indices,
                  denominator, normalize, precision, workspace_mib},
                 users, items, r);
    return {r.grad_users, r.grad_items, r.grad_tau, r.grad_positive_tau, r.grad_log_q};
  });
}

struct SampledArguments {
  const Tensor &user_table, &item_table;
  const OptionalTensor& users;
  const Tensor &positives, &tau;
  const OptionalTensor &positive_tau, &negatives;
  int64_t n_negatives, seed;
  double item_l2;
  const OptionalTensor& log_q;
  const std::string &denominator, &normalize;
};

int64_t batch_rows(const SampledArguments& a, const Matrix& user_table) {
  return a.users ? a.users->numel() : user_table.rows;
}

template <class T>
void run_sampled(const SampledArguments& a, const Matrix& user_table, const Matrix& item_table,
                 Results<T>& results) {
  const int64_t B = batch_rows(a, user_table), M = item_table.rows;
  SampledProblem<T> problem{};
  problem.user_table = user_table;
  problem.item_table = item_table;
  problem.users = a.users ? ids("users", *a.users, B, 0, user_table.rows) : nullptr;
  problem.positives = ids("positives", a.positives, B, 0, M);
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
    const Tensor flat = torch::stable::flatten(negatives);
    problem.negatives = ids("negatives", flat, B * problem.n_negatives, 0, M);
  }
  if (problem.n_negatives < 0) fail("n_negatives must be >= 0, got ", problem.n_negatives);
  if (problem.n_negatives > 0 && B >= (int64_t{1} << 32) / problem.n_negatives)
    fail("batch rows x n_negatives must be below 2^32, got ", B, " x ", problem.n_negatives,
         "; use smaller batches");
  problem.terms =
      soft_max_terms<T>(a.tau, a.positive_tau, a.log_q, a.denominator, a.normalize, B, M);
  if (problem.terms.denominator == Denominator::negatives && problem.n_negatives == 0 && B > 0)
    fail("denominator=\"negatives\" needs n_negatives >= 1, got 0");
  sampled_softmax<T>(problem, results.out, torch_threads());
}

// Gradient rows of the batch -> gradient of the table, in the order of the batch.
template <class T>
Tensor scatter_users(const SampledArguments& a, const Matrix& user_table, const Results<T>& r,
                     int64_t gradients) {
  if (!(gradients & kGradUsers) || !a.users) return r.grad_users;
  Tensor table = torch::stable::new_zeros(a.user_table, {user_table.rows, user_table.cols},
                                          compute_type(user_table));
  const int64_t* users = static_cast<const int64_t*>(a.users->const_data_ptr());
  T* out = data<T>(table);
  for (int64_t b = 0; b < a.users->numel(); ++b)
    for (int64_t k = 0; k < user_table.cols; ++k)
      out[users[b] * user_table.cols + k] += r.out.grad_users[b * user_table.cols + k];
  return table;
}

SampledResult sampled_adaptive_softmax(Tensor user_table, Tensor item_table, OptionalTensor users,
                                       Tensor positives, Tensor tau, OptionalTensor positive_tau,
                                       OptionalTensor negatives, int64_t n_negatives, int64_t seed,
                                       double item_l2, OptionalTensor log_q,
                                       std::string denominator, std::string normalize,
                                       std::string reduction, bool unit_loss, int64_t gradients) {
  const Matrix u = matrix("user_table", user_table), i = matrix("item_table", item_table);
  check_pair("user_table", u, "item_table", i);
  const SampledArguments a{user_table,   item_table,  users,       positives, tau,
                           positive_tau, negatives,   n_negatives, seed,      item_l2,
                           log_q,        denominator, normalize};
  const int64_t B = batch_rows(a, u);
  return with_compute_type(u, [&](auto zero) -> SampledResult {
    using T = decltype(zero);
    const Reduction reduce = parse_reduction(reduction);
    Results<T> r(user_table, u, B, i, unit_loss, gradients,
                 reduction_weight<T>(reduce, B, gradients));
    run_sampled<T>(a, u, i, r);
    return {r.reduced(reduce, user_table, u),
            r.unit_loss,

            scatter_users(a, u, r, gradients),
            r.grad_items,
            r.grad_tau,
            r.grad_positive_tau,
            r.grad_log_q};
  });
}

Gradients sampled_adaptive_softmax_backward(Tensor grad_loss, Tensor user_table, Tensor item_table,
                                            OptionalTensor users, Tensor positives, Tensor tau,
                                            OptionalTensor positive_tau, OptionalTensor negatives,
                                            int64_t n_negatives, int64_t seed, double item_l2,
                                            OptionalTensor log_q, std::string denominator,
                                            std::string normalize, int64_t gradients) {
  const Matrix u = matrix("user_table", user_table), i = matrix("item_table", item_table);
  check_pair("user_table", u, "item_table", i);
  const SampledArguments a{user_table,   item_table,  users,       positives, tau,
                           positive_tau, negatives,   n_negatives, seed,      item_l2,
                           log_q,        denominator, normalize};
  const int64_t B = batch_rows(a, u);
  return with_compute_type(u, [&](auto zero) -> Gradients {
    using T = decltype(zero);
    Results<T> r(user_table, u, B, i, false, gradients, given_weight<T>(grad_loss, B));
    run_sampled<T>(a, u, i, r);
    return {scatter_users(a, u, r, gradients), r.grad_items, r.grad_tau, r.grad_positive_tau,
            r.grad_log_q};
  });
}

}  // namespace
}  // namespace adaptau

STABLE_TORCH_LIBRARY_IMPL(adaptau, CPU, m) {
  using namespace adaptau;
  m.impl("fused_adaptive_softmax", TORCH_BOX(&fused_adaptive_softmax));
  m.impl("fused_adaptive_softmax_backward", TORCH_BOX(&fused_adaptive_softmax_backward));
  m.impl("sampled_adaptive_softmax", TORCH_BOX(&sampled_adaptive_softmax));
  m.impl("sampled_adaptive_softmax_backward", TORCH_BOX(&sampled_adaptive_softmax_backward));
}
