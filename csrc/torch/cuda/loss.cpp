// The dense loss on CUDA devices.
#include "../../cuda/operators.h"
#include "../fused.h"
#include "device.h"
#include "masks.h"
#include "operators.h"
#include "sorting.h"

namespace adaptau {
namespace {

struct Cuda : Float32Only {
  static void softmax(const FusedArguments& given, const FusedCall<float>& call,
                      const SoftmaxOutput<float>& out) {
    const SoftmaxProblem<float>& p = call.problem;
    check_dimension(p.users.cols);
    const DeviceScope device(given.u);
    std::optional<Sorted> by_id, by_target;
    if (given.item_ids) by_id = sort_ascending(*given.item_ids);
    if (given.target && (out.grad_items != nullptr || out.grad_log_q != nullptr))
      by_target = sort_ascending(*given.target);
    const Masks masks(
        "fused_adaptive_softmax", device,
        {p.users.rows, p.items.rows, true, p.target, call.item_ids,
         by_id ? data<int64_t>(by_id->values) : nullptr, call.excluded, call.excluded.nnz});
    const cuda::SoftmaxCall launch{p,
                                   masks.buckets(),
                                   by_id ? data<int64_t>(by_id->order) : nullptr,
                                   out,
                                   by_target ? data<int64_t>(by_target->values) : nullptr,
                                   by_target ? data<int64_t>(by_target->order) : nullptr};
    const Tensor workspace = device.scratch(cuda::softmax_workspace(launch), ScalarType::Byte);
    check_launches("fused_adaptive_softmax",
                   cuda::softmax(launch, data<void>(workspace), device.stream()));
  }
};

}  // namespace

void register_loss(Library& m) {
  m.impl("fused_adaptive_softmax", TORCH_BOX(&fused_adaptive_softmax<Cuda>));
  m.impl("fused_adaptive_softmax_backward", TORCH_BOX(&fused_adaptive_softmax_backward<Cuda>));
}

}  // namespace adaptau
