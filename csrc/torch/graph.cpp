// Bipartite graphs on the CPU: built from interactions, and propagation over them.
#include <algorithm>
#include <limits>
#include <tuple>

#include "../cpu/operators.h"
#include "tensors.h"

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
  const Csr r = csr("interactions", indptr, indices, n_users, n_items);
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

// One side of a graph. Ranges are checked again at every call, in a small part of a hop's time:
// a wrong index would read anybody's memory.
Adjacency adjacency(const std::string& name, const Tensor& indptr, const Tensor& indices,
                    int64_t n_neighbours) {
  const std::string indptr_name = name + "_indptr", indices_name = name + "_indices";
  if (indices.scalar_type() != ScalarType::Int || indices.dim() != 1 || !indices.is_contiguous() ||
      !indices.is_cpu())
    fail(indices_name, " must be int32, contiguous, of shape [nnz] and on the CPU, got ",
         name_of(indices.scalar_type()), " of shape ", shape_of(indices),
         "; use the tensors of a BipartiteGraph");
  const int64_t nnz = indices.numel(), rows = std::max<int64_t>(indptr.numel() - 1, 0);
  const int64_t* p = ids(indptr_name.c_str(), indptr, rows + 1, 0, nnz + 1);
  if (p[0] != 0 || p[rows] != nnz || !std::is_sorted(p, p + rows + 1))
    fail(indptr_name, " must ascend from 0 to len(", indices_name, ") = ", nnz,
         "; use the tensors of a BipartiteGraph");
  const int32_t* j = static_cast<const int32_t*>(indices.const_data_ptr());
  uint32_t largest = 0;  // negative ones are larger than any other
  for (int64_t e = 0; e < nnz; ++e) largest = std::max(largest, static_cast<uint32_t>(j[e]));
  if (nnz > 0 && largest >= n_neighbours)
    fail(indices_name, " must lie in [0, ", n_neighbours, "), got ", static_cast<int32_t>(largest),
         "; use the tensors of a BipartiteGraph");
  return {rows, p, j};
}

Selection selection(const char* name, const OptionalTensor& nodes, int64_t n_nodes) {
  if (!nodes) return {nullptr, n_nodes};
  const int64_t* chosen = ids(name, *nodes, -1, 0, n_nodes);
  static const int64_t nobody = 0;  // an empty selection is one all the same
  return {nodes->numel() > 0 ? chosen : &nobody, nodes->numel()};
}

void check_rows(const char* name, const Matrix& x, const Selection& given, const char* side) {
  if (x.rows != given.count)
    fail(name, " must have a row for each of the ", given.count, " ", side, ", got ", x.rows,
         " rows");
}

template <class T>
void run(const PropagationProblem& problem, const Tensor& users, const Tensor& items) {
  T* const out[2] = {data<T>(users), data<T>(items)};
  propagate<T>(problem, out, torch_threads());
}

std::tuple<Tensor, Tensor> propagate_cpu(Tensor x_users, Tensor x_items, Tensor user_indptr,
                                         Tensor user_indices, Tensor item_indptr,
                                         Tensor item_indices, int64_t n_layers, bool mean,
                                         OptionalTensor users, OptionalTensor items,
                                         OptionalTensor given_users, OptionalTensor given_items) {
  if (n_layers < (mean ? 0 : 1)) fail("n_layers must be >= ", mean ? 0 : 1, ", got ", n_layers);
  PropagationProblem p{};
  p.x[0] = matrix("x_users", x_users);
  p.x[1] = matrix("x_items", x_items);
  check_pair("x_users", p.x[0], "x_items", p.x[1]);
  p.side[0] = adjacency("user", user_indptr, user_indices, item_indptr.numel() - 1);
  p.side[1] = adjacency("item", item_indptr, item_indices, p.side[0].rows);
  p.given[0] = selection("given_users", given_users, p.side[0].rows);
  p.given[1] = selection("given_items", given_items, p.side[1].rows);
  p.wanted[0] = selection("users", users, p.side[0].rows);
  p.wanted[1] = selection("items", items, p.side[1].rows);
  p.n_layers = n_layers;
  p.mean = mean;
  check_rows("x_users", p.x[0], p.given[0], "users");
  check_rows("x_items", p.x[1], p.given[1], "items");
  const int64_t d = p.x[0].cols;
  Tensor out_users = empty_like_compute(x_users, p.x[0], {p.wanted[0].count, d});
  Tensor out_items = empty_like_compute(x_users, p.x[0], {p.wanted[1].count, d});
  if (p.x[0].dtype == DType::f64) {
    run<double>(p, out_users, out_items);
  } else {
    run<float>(p, out_users, out_items);
  }
  return {out_users, out_items};
}

}  // namespace
}  // namespace adaptau

STABLE_TORCH_LIBRARY_IMPL(adaptau, CPU, m) {
  using namespace adaptau;
  m.impl("bipartite_graph", TORCH_BOX(&bipartite_graph));
  m.impl("propagate", TORCH_BOX(&propagate_cpu));
}
