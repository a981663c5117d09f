// The sampled loss and sampled_scores on CUDA devices.
#include "../../cuda/sampled.h"

#include "../sampled.h"
#include "../scores.h"
#include "device.h"
#include "operators.h"
#include "sorting.h"

namespace adaptau {
namespace {

constexpr const char *kLoss = "sampled_adaptive_softmax", *kScores = "sampled_scores";

void check_size(const SampledProblem<float>& p) {
  if (p.item_table.cols > cuda::kMaxSampledDimension)
    fail("embeddings must have at most ", cuda::kMaxSampledDimension,
         " columns on this device, got ", p.item_table.cols, "; compute on the CPU");
  if (p.n_rows > 0 && cuda::row_entries(p) >= (int64_t{1} << 31) / p.n_rows)
    fail("batch rows x items of a row must be below 2^31 on this device (they are sorted), got ",
         p.n_rows, " x ", cuda::row_entries(p), "; use smaller batches");
}

// The passes of one operator over its samples, and the memory that they share.
class Passes {
 public:
  // items: whether an item pass follows.
  Passes(const char* name, const Tensor& like, const SampledProblem<float>& p,
         const SoftmaxOutput<float>& out, bool items)
      : name_(name),
        device_(like),
        packed_users_(bytes(cuda::packed_bytes(p.user_table))),
        packed_items_(bytes(cuda::packed_bytes(p.item_table))),
        ids_(device_.scratch(p.n_rows * cuda::row_entries(p), ScalarType::Int)),
        rows_(bytes(items ? p.n_rows * static_cast<int64_t>(sizeof(cuda::SampledRow)) : 0)),
        call_{p,
              cuda::row_table(p.user_table, data<void>(packed_users_)),
              cuda::row_table(p.item_table, data<void>(packed_items_)),
              out,
              data<int32_t>(ids_),
              nullptr,
              nullptr,
              data<cuda::SampledRow>(rows_)} {
    launch(cuda::pack_rows(p.user_table, data<void>(packed_users_), device_.stream()));
    launch(cuda::pack_rows(p.item_table, data<void>(packed_items_), device_.stream()));
    launch(cuda::sampled_ids(call_, device_.stream()));
  }

  void loss(bool items) {
    const SampledProblem<float>& p = call_.problem;
    const Tensor sums = bytes(p.n_rows * static_cast<int64_t>(sizeof(cuda::NegativeSums))),
                 logits = device_.scratch(items ? p.n_rows * p.n_negatives : 0, ScalarType::Float);
    call_.sums = data<cuda::NegativeSums>(sums);
    call_.logits = data<float>(logits);
    launch(cuda::sampled_rows(call_, device_.stream()));
    if (items) gradients_of_items();
  }

  void scores(float* scores) {
    call_.logits = scores;
    launch(cuda::sampled_scores(call_, device_.stream()));
  }

  void scores_backward(const float* grad, bool items) {
    call_.weights = grad;
    launch(cuda::sampled_scores(call_, device_.stream()));
    if (items) gradients_of_items();
  }

 private:
  Tensor bytes(int64_t n) const { return device_.scratch(n, ScalarType::Byte); }
  void launch(cudaError_t error) const { check_launches(name_, error); }

  void gradients_of_items() {
    const Sorted sorted = sort_ascending(ids_);
    const Tensor workspace = bytes(cuda::sampled_items_workspace(call_));
    launch(cuda::sampled_items(call_, {data<int32_t>(sorted.values), data<int64_t>(sorted.order)},
                               data<void>(workspace), device_.stream()));
  }

  const char* name_;
  DeviceScope device_;
  Tensor packed_users_, packed_items_, ids_, rows_;
  cuda::SampledCall call_;
};

SampledProblem<float> without_positives(const ScoresProblem& p) {
  SampledProblem<float> sampled{};
  sampled.user_table = p.users;
  sampled.item_table = p.items;
  sampled.negatives = p.listed;
  sampled.n_rows = p.users.rows;
  sampled.n_negatives = p.n_listed;
  sampled.terms.normalize = p.normalize;
  return sampled;
}

struct Cuda : Float32Only {
  static void sampled_softmax(const Tensor& like, const SampledProblem<float>& p,
                              const SoftmaxOutput<float>& out) {
    check_size(p);
    const bool items =
        out.weight != nullptr && (out.grad_items != nullptr || out.grad_log_q != nullptr);
    Passes(kLoss, like, p, out, items).loss(items);
  }

  static void sampled_scores(const Tensor& like, const ScoresProblem& problem, float* scores) {
    const SampledProblem<float> p = without_positives(problem);
    check_size(p);
    Passes(kScores, like, p, {}, false).scores(scores);
  }

  static void sampled_scores_backward(const Tensor& like, const ScoresProblem& problem,
                                      const float* grad, float* grad_users, float* grad_items) {
    const SampledProblem<float> p = without_positives(problem);
    check_size(p);
    SoftmaxOutput<float> out{};
    out.grad_users = grad_users;
    out.grad_items = grad_items;
    const bool items = grad_items != nullptr;
    Passes(kScores, like, p, out, items).scores_backward(grad, items);
  }

  template <class T>
  static void scatter_users(const SampledArguments& a, const Tensor& rows, const Tensor& table) {
    const DeviceScope device(rows);
    const Sorted users = sort_ascending(*a.users);
    check_launches(
        kLoss,
        cuda::scatter_rows(data<int64_t>(users.values), data<int64_t>(users.order), rows.size(0),
                           data<float>(rows), rows.size(1), data<float>(table), device.stream()));
  }
};

}  // namespace

void register_sampled(Library& m) {
  m.impl("sampled_adaptive_softmax", TORCH_BOX(&sampled_adaptive_softmax<Cuda>));
  m.impl("sampled_adaptive_softmax_backward", TORCH_BOX(&sampled_adaptive_softmax_backward<Cuda>));
  m.impl("sampled_scores", TORCH_BOX(&scores_of_listed<Cuda>));
  m.impl("sampled_scores_backward", TORCH_BOX(&scores_of_listed_backward<Cuda>));
}

}  // namespace adaptau
