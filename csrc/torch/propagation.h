// propagate for any device: arguments checked, problem described, a kernel called.
#pragma once

#include <algorithm>
#include <string>
#include <tuple>

#include "random.h"

namespace adaptau {

// One side of a graph. On the CPU ranges are checked again at every call, in a small part of a
// hop's time: a wrong index would read anybody's memory. Kernels elsewhere assert every index.
inline Adjacency adjacency(const Arguments& given, const std::string& name, const Tensor& indptr,
                           const Tensor& indices, int64_t n_neighbours) {
  const std::string indptr_name = name + "_indptr", indices_name = name + "_indices";
  given.check_device(indices_name.c_str(), indices);
  if (indices.scalar_type() != ScalarType::Int || indices.dim() != 1 || !indices.is_contiguous())
    fail(indices_name, " must be int32, contiguous, of shape [nnz], got ",
         name_of(indices.scalar_type()), " of shape ", shape_of(indices),
         "; use the tensors of a BipartiteGraph");
  const int64_t nnz = indices.numel(), rows = std::max<int64_t>(indptr.numel() - 1, 0);
  const int64_t* p = given.ids(indptr_name.c_str(), indptr, rows + 1, 0, nnz + 1);
  const int32_t* j = static_cast<const int32_t*>(indices.const_data_ptr());
  if (!given.on_cpu()) return {rows, p, j, nnz};
  if (p[0] != 0 || p[rows] != nnz || !std::is_sorted(p, p + rows + 1))
    fail(indptr_name, " must ascend from 0 to len(", indices_name, ") = ", nnz,
         "; use the tensors of a BipartiteGraph");
  // Negative ones are larger than any other; the first one outside is looked for where there is
  // one.
  const auto end = static_cast<uint32_t>(std::min(n_neighbours, int64_t{1} << 31));
  const auto is_outside = [end](int32_t index) { return static_cast<uint32_t>(index) >= end; };
  uint32_t outside = 0;
  for (int64_t e = 0; e < nnz; ++e) outside |= is_outside(j[e]);
  if (outside != 0)
    fail(indices_name, " must lie in [0, ", n_neighbours, "), got ",
         *std::find_if(j, j + nnz, is_outside), "; use the tensors of a BipartiteGraph");
  return {rows, p, j, nnz};
}

inline Selection selection(const Arguments& given, const char* name, const OptionalTensor& nodes,
                           int64_t n_nodes) {
  if (!nodes) return {nullptr, n_nodes};
  const int64_t* chosen = given.ids(name, *nodes, -1, 0, n_nodes);
  static const int64_t nobody = 0;  // an empty selection is one all the same
  return {nodes->numel() > 0 ? chosen : &nobody, nodes->numel()};
}

inline void check_rows(const char* name, const Matrix& x, const Selection& given,
                       const char* side) {
  if (x.rows != given.count)
    fail(name, " must have a row for each of the ", given.count, " ", side, ", got ", x.rows,
         " rows");
}

struct PropagationTensors {
  const Tensor& x_users;
  const OptionalTensor &given_users, &given_items;
};

// Device::propagate(tensors, problem, out) runs the kernels.
template <class Device>
std::tuple<Tensor, Tensor> propagate_embeddings(
    Tensor x_users, Tensor x_items, Tensor user_indptr, Tensor user_indices, Tensor item_indptr,
    Tensor item_indices, int64_t n_layers, bool mean, OptionalTensor users, OptionalTensor items,
    OptionalTensor given_users, OptionalTensor given_items, int64_t dropout, int64_t seed) {
  if (n_layers < (mean ? 0 : 1)) fail("n_layers must be >= ", mean ? 0 : 1, ", got ", n_layers);
  if (dropout != 0 && (mean || n_layers != 1))
    fail("dropout is of one layer without mean, got n_layers=", n_layers, ", mean=", mean);
  const Arguments given(x_users);
  PropagationProblem p{};
  p.x[0] = given.matrix("x_users", x_users);
  p.x[1] = given.matrix("x_items", x_items);
  check_pair("x_users", p.x[0], "x_items", p.x[1]);
  p.side[0] = adjacency(given, "user", user_indptr, user_indices, item_indptr.numel() - 1);
  p.side[1] = adjacency(given, "item", item_indptr, item_indices, p.side[0].rows);
  p.given[0] = selection(given, "given_users", given_users, p.side[0].rows);
  p.given[1] = selection(given, "given_items", given_items, p.side[1].rows);
  p.wanted[0] = selection(given, "users", users, p.side[0].rows);
  p.wanted[1] = selection(given, "items", items, p.side[1].rows);
  p.n_layers = n_layers;
  p.mean = mean;
  p.dropout = parse_dropout("dropout", dropout, seed);
  check_rows("x_users", p.x[0], p.given[0], "users");
  check_rows("x_items", p.x[1], p.given[1], "items");
  const int64_t d = p.x[0].cols;
  Tensor out_users = empty_like_compute(x_users, p.x[0], {p.wanted[0].count, d});
  Tensor out_items = empty_like_compute(x_users, p.x[0], {p.wanted[1].count, d});
  Device::with_compute_type(p.x[0], [&](auto zero) {
    using T = decltype(zero);
    T* const out[2] = {data<T>(out_users), data<T>(out_items)};
    Device::propagate(PropagationTensors{x_users, given_users, given_items}, p, out);
  });
  return {out_users, out_items};
}

}  // namespace adaptau
