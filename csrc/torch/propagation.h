// propagate and its like for any device: arguments checked, problem described, a kernel called.
#pragma once

#include <algorithm>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "random.h"

namespace adaptau {

inline const int32_t* int32_ids(const Arguments& given, const std::string& name, const char* shape,
                                const Tensor& ids) {
  given.check_device(name.c_str(), ids);
  if (ids.scalar_type() != ScalarType::Int || ids.dim() != 1 || !ids.is_contiguous())
    fail(name, " must be int32, contiguous, of shape ", shape, ", got ", name_of(ids.scalar_type()),
         " of shape ", shape_of(ids), "; use the tensors of a BipartiteGraph");
  return static_cast<const int32_t*>(ids.const_data_ptr());
}

// What each node of a side is outside the graph, on the CPU, and the inverse.
struct NodeOrder {
  const int32_t* order = nullptr;
  std::vector<int32_t> inverse;
  const int32_t* place() const { return order != nullptr ? inverse.data() : nullptr; }
};

inline NodeOrder node_order(const Arguments& given, const char* name, const OptionalTensor& order,
                            int64_t rows) {
  if (!order) return {};
  if (!given.on_cpu()) fail(name, " is of graphs on the CPU; use the tensors of a BipartiteGraph");
  NodeOrder nodes{int32_ids(given, name, "[nodes]", *order),
                  std::vector<int32_t>(static_cast<size_t>(rows), -1)};
  bool once = order->numel() == rows;
  for (int64_t r = 0; once && r < rows; ++r) {
    const int32_t node = nodes.order[r];
    once = node >= 0 && node < rows && nodes.inverse[static_cast<size_t>(node)] < 0;
    if (once) nodes.inverse[static_cast<size_t>(node)] = static_cast<int32_t>(r);
  }
  if (!once)
    fail(name, " must have each of the ", rows, " nodes once; use the tensors of a BipartiteGraph");
  return nodes;
}

// One side of a graph. On the CPU ranges are checked again at every call, in a small part of a
// hop's time: a wrong index would read anybody's memory. Kernels elsewhere assert every index.
inline Adjacency adjacency(const Arguments& given, const std::string& name, const Tensor& indptr,
                           const Tensor& indices, int64_t n_neighbours) {
  const std::string indptr_name = name + "_indptr", indices_name = name + "_indices";
  const int32_t* j = int32_ids(given, indices_name, "[nnz]", indices);
  const int64_t nnz = indices.numel(), rows = std::max<int64_t>(indptr.numel() - 1, 0);
  const int64_t* p = given.ids(indptr_name.c_str(), indptr, rows + 1, 0, nnz + 1);
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

inline void check_rows(const char* name, const Matrix& x, const Selection& given, int64_t x_layers,
                       const char* side) {
  if (x.rows != x_layers * given.count)
    fail(name, " must have a row for each of the ", given.count, " ", side,
         x_layers > 1 ? " and layers" : "", ", got ", x.rows, " rows");
}

constexpr int64_t kMostLayers = 65536;  // whose rows are counted without overflow

// The tensors of a BipartiteGraph.
struct GraphTensors {
  Tensor user_indptr, user_indices, item_indptr, item_indices;
  OptionalTensor user_order, item_order;
};

// Rows that come in, and of which nodes; of which nodes results are.
struct PropagationTensors {
  Tensor x_users, x_items;
  OptionalTensor given_users, given_items, users, items;
};

// Device::propagate(tensors, problem, out) runs the kernels; results of `every` have a row for each
// layer and node.
template <class Device>
std::tuple<Tensor, Tensor> run_propagation(const PropagationTensors& tensors,
                                           const GraphTensors& graph, int64_t n_layers,
                                           Layers layers, const Dropout& dropout) {
  const bool is_sum = layers == Layers::sum, is_every = layers == Layers::every;
  const char* names[2] = {is_sum ? "grad_users" : "x_users", is_sum ? "grad_items" : "x_items"};
  if (n_layers < (layers == Layers::last ? 1 : 0))
    fail("n_layers must be >= ", layers == Layers::last ? 1 : 0, ", got ", n_layers);
  if ((is_sum || is_every) && n_layers > kMostLayers)
    fail("n_layers must be <= ", kMostLayers, ", got ", n_layers);
  const Arguments given(tensors.x_users);
  PropagationProblem p{};
  p.x[0] = given.matrix(names[0], tensors.x_users);
  p.x[1] = given.matrix(names[1], tensors.x_items);
  check_pair(names[0], p.x[0], names[1], p.x[1]);
  p.side[0] = adjacency(given, "user", graph.user_indptr, graph.user_indices,
                        graph.item_indptr.numel() - 1);
  p.side[1] = adjacency(given, "item", graph.item_indptr, graph.item_indices, p.side[0].rows);
  const NodeOrder orders[2] = {node_order(given, "user_order", graph.user_order, p.side[0].rows),
                               node_order(given, "item_order", graph.item_order, p.side[1].rows)};
  for (int s : {0, 1}) p.order[s] = orders[s].order, p.place[s] = orders[s].place();
  p.given[0] =
      selection(given, is_sum ? "users" : "given_users", tensors.given_users, p.side[0].rows);
  p.given[1] =
      selection(given, is_sum ? "items" : "given_items", tensors.given_items, p.side[1].rows);
  p.wanted[0] = selection(given, "users", tensors.users, p.side[0].rows);
  p.wanted[1] = selection(given, "items", tensors.items, p.side[1].rows);
  p.n_layers = n_layers;
  p.layers = layers;
  p.dropout = dropout;
  check_rows(names[0], p.x[0], p.given[0], is_sum ? n_layers + 1 : 1, "users");
  check_rows(names[1], p.x[1], p.given[1], is_sum ? n_layers + 1 : 1, "items");
  const int64_t d = p.x[0].cols, of_a_node = is_every ? n_layers + 1 : 1;
  for (const Selection& wanted : p.wanted)
    if (of_a_node * wanted.count > std::numeric_limits<int32_t>::max())
      fail("n_layers + 1 times the rows wanted must be fewer than 2^31, got ", of_a_node, " times ",
           wanted.count, "; take fewer rows at a time");
  Tensor out[2] = {empty_like_compute(tensors.x_users, p.x[0], {of_a_node * p.wanted[0].count, d}),
                   empty_like_compute(tensors.x_users, p.x[0], {of_a_node * p.wanted[1].count, d})};
  Device::with_compute_type(p.x[0], [&](auto zero) {
    using T = decltype(zero);
    T* const rows[2] = {data<T>(out[0]), data<T>(out[1])};
    Device::propagate(tensors, p, rows);
  });
  return {out[0], out[1]};
}

template <class Device>
std::tuple<Tensor, Tensor> propagate_embeddings(
    Tensor x_users, Tensor x_items, Tensor user_indptr, Tensor user_indices, Tensor item_indptr,
    Tensor item_indices, OptionalTensor user_order, OptionalTensor item_order, int64_t n_layers,
    bool mean, OptionalTensor users, OptionalTensor items, OptionalTensor given_users,
    OptionalTensor given_items, int64_t dropout, int64_t seed) {
  if (dropout != 0 && (mean || n_layers != 1))
    fail("dropout is of one layer without mean, got n_layers=", n_layers, ", mean=", mean);
  return run_propagation<Device>(
      {x_users, x_items, given_users, given_items, users, items},
      {user_indptr, user_indices, item_indptr, item_indices, user_order, item_order}, n_layers,
      mean ? Layers::mean : Layers::last, parse_dropout("dropout", dropout, seed));
}

template <class Device>
std::tuple<Tensor, Tensor> propagate_layers(Tensor x_users, Tensor x_items, Tensor user_indptr,
                                            Tensor user_indices, Tensor item_indptr,
                                            Tensor item_indices, OptionalTensor user_order,
                                            OptionalTensor item_order, int64_t n_layers,
                                            OptionalTensor users, OptionalTensor items,
                                            int64_t dropout, int64_t seed) {
  return run_propagation<Device>(
      {x_users, x_items, {}, {}, users, items},
      {user_indptr, user_indices, item_indptr, item_indices, user_order, item_order}, n_layers,
      Layers::every, parse_dropout("dropout", dropout, seed));
}

template <class Device>
std::tuple<Tensor, Tensor> propagate_layers_backward(
    Tensor grad_users, Tensor grad_items, Tensor user_indptr, Tensor user_indices,
    Tensor item_indptr, Tensor item_indices, OptionalTensor user_order, OptionalTensor item_order,
    int64_t n_layers, OptionalTensor users, OptionalTensor items, int64_t dropout, int64_t seed) {
  return run_propagation<Device>(
      {grad_users, grad_items, users, items, {}, {}},
      {user_indptr, user_indices, item_indptr, item_indices, user_order, item_order}, n_layers,
      Layers::sum, parse_dropout("dropout", dropout, seed));
}

}  // namespace adaptau
