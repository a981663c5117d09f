// The sampled loss on CUDA devices.
#include "../../cuda/sampled.h"

#include "../sampled.h"
#include "device.h"
#include "operators.h"
#include "sorting.h"

namespace adaptau {
namespace {

constexpr const char* kName = "sampled_adaptive_softmax";

void check_size(const SampledProblem<float>& p) {
  const int64_t d = p.item_table.cols;
  if (d > cuda::kMaxSampledDimension)
    fail("user_table and item_table must have at most ", cuda::kMaxSampledDimension,
         " columns on this device, got ", d, "; compute on the CPU");
  if (p.n_rows > 0 && p.n_negatives >= (int64_t{1} << 31) / p.n_rows)
    fail("batch rows x (n_negatives + 1) must be below 2^31 on this device (they are sorted), got ",
         p.n_rows, " x ", p.n_negatives + 1, "; use smaller batches");
}

struct Cuda : Float32Only {
  static void sampled_softmax(const Tensor& like, const SampledProblem<float>& p,
                              const SoftmaxOutput<float>& out) {
    check_size(p);
    const DeviceScope device(like);
    const bool items =
        out.weight != nullptr && (out.grad_items != nullptr || out.grad_log_q != nullptr);
    const int64_t samples = p.n_rows * p.n_negatives;
    auto bytes = [&](int64_t n) { return device.scratch(n, ScalarType::Byte); };
    const Tensor packed_users = bytes(cuda::packed_bytes(p.user_table)),
                 packed_items = bytes(cuda::packed_bytes(p.item_table)),
                 ids = device.scratch(samples + p.n_rows, ScalarType::Int),
                 sums = bytes(p.n_rows * static_cast<int64_t>(sizeof(cuda::NegativeSums))),
                 logits = device.scratch(items ? samples : 0, ScalarType::Float),
                 rows =
                     bytes(items ? p.n_rows * static_cast<int64_t>(sizeof(cuda::SampledRow)) : 0);
    const cuda::SampledCall call{p,
                                 cuda::row_table(p.user_table, data<void>(packed_users)),
                                 cuda::row_table(p.item_table, data<void>(packed_items)),
                                 out,
                                 data<int32_t>(ids),
                                 data<cuda::NegativeSums>(sums),
                                 data<float>(logits),
                                 data<cuda::SampledRow>(rows)};
    check_launches(kName, cuda::pack_rows(p.user_table, data<void>(packed_users), device.stream()));
    check_launches(kName, cuda::pack_rows(p.item_table, data<void>(packed_items), device.stream()));
    check_launches(kName, cuda::sampled_ids(call, device.stream()));
    check_launches(kName, cuda::sampled_rows(call, device.stream()));
    if (!items) return;
    const Sorted sorted = sort_ascending(ids);
    const Tensor workspace = bytes(cuda::sampled_items_workspace(call));
    check_launches(kName, cuda::sampled_items(
                              call, {data<int32_t>(sorted.values), data<int64_t>(sorted.order)},
                              data<void>(workspace), device.stream()));
  }

  template <class T>
  static void scatter_users(const SampledArguments& a, const Tensor& rows, const Tensor& table) {
    const DeviceScope device(rows);
    const Sorted users = sort_ascending(*a.users);
    check_launches(
        kName,
        cuda::scatter_rows(data<int64_t>(users.values), data<int64_t>(users.order), rows.size(0),
                           data<float>(rows), rows.size(1), data<float>(table), device.stream()));
  }
};

}  // namespace

void register_sampled(Library& m) {
  m.impl("sampled_adaptive_softmax", TORCH_BOX(&sampled_adaptive_softmax<Cuda>));
  m.impl("sampled_adaptive_softmax_backward", TORCH_BOX(&sampled_adaptive_softmax_backward<Cuda>));
}

}  // namespace adaptau
