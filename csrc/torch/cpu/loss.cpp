// The two losses on the CPU, and the scores that others are made of.
#include "../../cpu/operators.h"
#include "../fused.h"
#include "../sampled.h"
#include "../scores.h"

namespace adaptau {
namespace {

// "negatives" leaves an empty sum where nothing but the positive is left.
void check_denominator(Denominator denominator, const int64_t* target, const Csr& masked,
                       int64_t n_rows, int64_t n_items) {
  if (denominator == Denominator::all) return;
  for (int64_t b = 0; b < n_rows; ++b)
    if ((target == nullptr || target[b] >= 0) &&
        n_items - 1 - (masked.indptr[b + 1] - masked.indptr[b]) <= 0)
      fail("denominator=\"negatives\" needs a candidate besides the positive, row ", b,
           " has none of ", n_items,
           " left; add candidates, exclude fewer, or use denominator=\"all\"");
}

struct Cpu : Float32AndFloat64 {
  template <class T>
  static void softmax(const FusedArguments&, const FusedCall<T>& call,
                      const SoftmaxOutput<T>& out) {
    SoftmaxProblem<T> problem = call.problem;
    const int64_t B = problem.users.rows, M = problem.items.rows;
    MaskedCandidates masked;
    if (call.item_ids != nullptr || call.excluded.indptr != nullptr) {
      masked = masked_candidates(B, M, problem.target, call.item_ids, call.excluded);
    } else {
      masked.indptr.assign(B + 1, 0);
    }
    check_denominator(problem.terms.denominator, problem.target, masked.csr(), B, M);
    if (!masked.indices.empty()) problem.masked = masked.csr();
    fused_softmax<T>(problem, out, torch_threads(), call.workspace_bytes);
  }

  template <class T>
  static void sampled_softmax(const Tensor&, const SampledProblem<T>& problem,
                              const SoftmaxOutput<T>& out) {
    adaptau::sampled_softmax<T>(problem, out, torch_threads());
  }

  template <class T>
  static void sampled_scores(const Tensor&, const ScoresProblem& problem, T* scores) {
    adaptau::sampled_scores<T>(problem, scores, torch_threads());
  }
  template <class T>
  static void sampled_scores_backward(const Tensor&, const ScoresProblem& problem, const T* grad,
                                      T* grad_users, T* grad_items) {
    adaptau::sampled_scores_backward<T>(problem, grad, grad_users, grad_items, torch_threads());
  }

  // In the order of the batch.
  template <class T>
  static void scatter_users(const SampledArguments& a, const Tensor& rows, const Tensor& table) {
    const int64_t n = rows.size(0), d = rows.size(1);
    // NOLINTNEXTLINE(bugprone-unchecked-optional-access): who calls has looked
    const int64_t* users = static_cast<const int64_t*>(a.users->const_data_ptr());
    const T* from = data<T>(rows);
    T* to = data<T>(table);
    for (int64_t b = 0; b < n; ++b)
      for (int64_t k = 0; k < d; ++k) to[users[b] * d + k] += from[b * d + k];
  }
};

}  // namespace
}  // namespace adaptau

STABLE_TORCH_LIBRARY_IMPL(adaptau, CPU, m) {
  using namespace adaptau;
  m.impl("fused_adaptive_softmax", TORCH_BOX(&fused_adaptive_softmax<Cpu>));
  m.impl("fused_adaptive_softmax_backward", TORCH_BOX(&fused_adaptive_softmax_backward<Cpu>));
  m.impl("sampled_adaptive_softmax", TORCH_BOX(&sampled_adaptive_softmax<Cpu>));
  m.impl("sampled_adaptive_softmax_backward", TORCH_BOX(&sampled_adaptive_softmax_backward<Cpu>));
  m.impl("sampled_scores", TORCH_BOX(&scores_of_listed<Cpu>));
  m.impl("sampled_scores_backward", TORCH_BOX(&scores_of_listed_backward<Cpu>));
}
