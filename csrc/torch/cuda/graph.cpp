// Propagation over bipartite graphs on CUDA devices.
#include "../../cuda/propagate.h"

#include "../propagation.h"
#include "device.h"
#include "operators.h"
#include "sorting.h"

namespace adaptau {
namespace {

struct Cuda : Float32Only {
  static void propagate(const PropagationTensors& tensors, const PropagationProblem& problem,
                        float* const (&out)[2]) {
    const DeviceScope device(tensors.x_users);
    std::optional<Sorted> sorted[2];
    cuda::PropagationCall call{problem, {}, {out[0], out[1]}};
    const OptionalTensor* const given[2] = {&tensors.given_users, &tensors.given_items};
    for (int s : {0, 1}) {
      if (!*given[s]) continue;
      sorted[s] = sort_ascending(**given[s]);
      call.given[s] = {data<int64_t>(sorted[s]->values), data<int64_t>(sorted[s]->order)};
    }
    const Tensor workspace = device.scratch(cuda::propagate_workspace(call), ScalarType::Byte);
    check_launches("propagate", cuda::propagate(call, data<void>(workspace), device.stream()));
  }
};

}  // namespace

void register_graph(Library& m) { m.impl("propagate", TORCH_BOX(&propagate_embeddings<Cuda>)); }

}  // namespace adaptau
