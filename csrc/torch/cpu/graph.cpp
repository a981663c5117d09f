// Bipartite graphs on the CPU: built from interactions, and propagation over them.
#include <algorithm>
#include <limits>
#include <tuple>

#include "../../cpu/operators.h"
#include "../propagation.h"

namespace adaptau {
namespace {

using Graph = std::tuple<Tensor, Tensor, Tensor, Tensor>;

constexpr int64_t kMostNodes = std::numeric_limits<int32_t>::max();

// R and its transpose, indices as int32.
Graph bipartite_graph(Tensor indptr, Tensor indices, int64_t n_items) {
  const int64_t n_users = indptr.numel() - 1, nnz = indices.numel();
  if (n_items < 0 || n_items > kMostNodes) fail("n_items must be in [0, 2^31), got ", n_items);
  if (n_users < 0 || n_users > kMostNodes)
    fail("interactions indptr must have n_users + 1 entries, from 1 to 2^31, got ", n_users + 1);
  const Csr r = Arguments(indptr).csr("interactions", indptr, indices, n_users, n_items);
  auto make = [&](int64_t n, ScalarType type) {
    return torch::stable::new_empty(indptr, {n}, type);
  };
  Tensor user_indptr = make(n_users + 1, ScalarType::Long),
         user_indices = make(nnz, ScalarType::Int),
         item_indptr = make(n_items + 1, ScalarType::Long),
         item_indices = make(nnz, ScalarType::Int);
  std::copy_n(r.indptr, n_users + 1, data<int64_t>(user_indptr));
  std::copy_n(r.indices, nnz, data<int32_t>(user_indices));
  int64_t* starts = data<int64_t>(item_indptr);
  std::fill_n(starts, n_items + 1, int64_t{0});
  for (int64_t e = 0; e < nnz; ++e) ++starts[r.indices[e] + 1];
  for (int64_t i = 0; i < n_items; ++i) starts[i + 1] += starts[i];
  std::vector<int64_t> next(starts, starts + n_items);
  int32_t* users = data<int32_t>(item_indices);
  for (int64_t u = 0; u < n_users; ++u)
    for (int64_t e = r.indptr[u]; e < r.indptr[u + 1]; ++e)
      users[next[r.indices[e]]++] = static_cast<int32_t>(u);
  return {user_indptr, user_indices, item_indptr, item_indices};
}

// One side of a graph for nodes of which the r-th is order[r] of before, those of the other side
// other_order; lists keep their order.
std::tuple<Tensor, Tensor> renumber_side(Tensor indptr, Tensor indices, Tensor order,
                                         Tensor other_order) {
  const Arguments given(indptr);
  const Adjacency side = adjacency(given, "side", indptr, indices, other_order.numel());
  const NodeOrder nodes = node_order(given, "order", order, side.rows),
                  others = node_order(given, "other_order", other_order, other_order.numel());
  Tensor new_indptr = torch::stable::new_empty(indptr, {side.rows + 1}, ScalarType::Long),
         new_indices = torch::stable::new_empty(indices, {side.nnz}, ScalarType::Int);
  int64_t* starts = data<int64_t>(new_indptr);
  int32_t* list = data<int32_t>(new_indices);
  starts[0] = 0;
  for (int64_t r = 0; r < side.rows; ++r) {
    const int64_t from = side.indptr[nodes.order[r]], to = side.indptr[nodes.order[r] + 1];
    for (int64_t e = from; e < to; ++e) *list++ = others.place()[side.indices[e]];
    starts[r + 1] = starts[r] + (to - from);
  }
  return {new_indptr, new_indices};
}

struct Cpu : Float32AndFloat64 {
  template <class T>
  static void propagate(const PropagationTensors&, const PropagationProblem& problem,
                        T* const (&out)[2]) {
    adaptau::propagate<T>(problem, out, torch_threads());
  }
};

}  // namespace
}  // namespace adaptau

STABLE_TORCH_LIBRARY_IMPL(adaptau, CPU, m) {
  using namespace adaptau;
  m.impl("bipartite_graph", TORCH_BOX(&bipartite_graph));
  m.impl("renumber_side", TORCH_BOX(&renumber_side));
  m.impl("propagate", TORCH_BOX(&propagate_embeddings<Cpu>));
  m.impl("propagate_layers", TORCH_BOX(&propagate_layers<Cpu>));
  m.impl("propagate_layers_backward", TORCH_BOX(&propagate_layers_backward<Cpu>));
}
