// Top-k and ranks on CUDA devices.
#include "../retrieval.h"

#include "../../cuda/operators.h"
#include "device.h"
#include "masks.h"
#include "operators.h"

namespace adaptau {
namespace {

cuda::MaskPairs exclusions(const Matrix& users, const Matrix& items, const Csr& excluded,
                           int64_t n_excluded) {
  return {users.rows, items.rows, false, nullptr, nullptr, nullptr, excluded, n_excluded};
}

struct Cuda : Float32Only {
  static void topk(const Tensor& like, const TopkProblem& problem, int64_t n_excluded,
                   const PackedTensors&, float* scores, int64_t* ids) {
    check_dimension(problem.users.cols);
    const DeviceScope device(like);
    const Masks masks("topk", device,
                      exclusions(problem.users, problem.items, problem.excluded, n_excluded));
    const cuda::TopkCall call{problem, masks.buckets(), scores, ids};
    const Tensor workspace = device.scratch(cuda::topk_workspace(call), ScalarType::Byte);
    check_launches("topk", cuda::topk(call, data<void>(workspace), device.stream()));
  }

  template <class T>
  static void ranks(const Tensor& like, const RanksProblem& problem, int64_t n_excluded,
                    const Tensor& out) {
    check_dimension(problem.users.cols);
    const DeviceScope device(like);
    const Masks masks("ranks", device,
                      exclusions(problem.users, problem.items, problem.excluded, n_excluded));
    const cuda::RanksCall call{problem, out.numel(), masks.buckets(), nullptr, data<int64_t>(out)};
    const Tensor workspace = device.scratch(cuda::ranks_workspace(call), ScalarType::Byte);
    check_launches("ranks", cuda::ranks(call, data<void>(workspace), device.stream()));
  }

  template <class T>
  static void target_scores(const Tensor& like, const RanksProblem& problem, const Tensor& out) {
    check_dimension(problem.users.cols);
    const DeviceScope device(like);
    const cuda::RanksCall call{problem, out.numel(), {}, data<float>(out), nullptr};
    const Tensor workspace = device.scratch(cuda::ranks_workspace(call), ScalarType::Byte);
    check_launches("target_scores", cuda::ranks(call, data<void>(workspace), device.stream()));
  }
};

}  // namespace

void register_retrieval(Library& m) {
  m.impl("topk", TORCH_BOX(&topk_items<Cuda>));
  m.impl("ranks", TORCH_BOX(&ranks_of_targets<Cuda>));
  m.impl("target_scores", TORCH_BOX(&scores_of_targets<Cuda>));
}

}  // namespace adaptau
