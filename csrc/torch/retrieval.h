// topk and ranks for any device: arguments checked, problem described, a kernel called.
#pragma once

#include <string>
#include <tuple>

#include "tensors.h"

namespace adaptau {

// What pack_items returned for i, or nothing.
struct PackedTensors {
  const OptionalTensor &bytes, &meta, &centre;
  bool given() const { return bytes || meta || centre; }
};

// Device::topk(like, problem, n_excluded, packed, scores, ids) runs the kernels; like: a tensor to
// allocate scratch from.
template <class Device>
std::tuple<Tensor, Tensor> topk_items(Tensor u, Tensor i, int64_t k, OptionalTensor exclude_indptr,
                                      OptionalTensor exclude_indices, Text normalize,
                                      OptionalTensor item_bytes, OptionalTensor item_meta,
                                      OptionalTensor item_centre) {
  const Arguments given(u);
  const Matrix users = given.matrix("u", u), items = given.matrix("i", i);
  check_pair("u", users, "i", items);
  if (k < 1 || k > items.rows) fail("k must be in [1, n_items = ", items.rows, "], got ", k);
  const SizedCsr excluded =
      given.csr("exclude", exclude_indptr, exclude_indices, users.rows, items.rows);
  const bool look = given.on_cpu() && excluded.indptr != nullptr;
  for (int64_t b = 0; look && b < users.rows; ++b) {
    const int64_t gone = excluded.indptr[b + 1] - excluded.indptr[b];
    if (items.rows - gone < k)
      fail("k = ", k, " is more than the ", items.rows - gone, " items that row ", b,
           " has left after ", gone, " exclusions; lower k to at most ", items.rows - gone);
  }
  const TopkProblem problem{users, items, excluded, parse_normalize(normalize), k};
  const PackedTensors packed{item_bytes, item_meta, item_centre};
  if (packed.given() && problem.normalize.item)
    fail("normalize must be \"user\" or \"none\" with packed items, got \"", normalize,
         "\"; normalise i before packing it");
  Tensor scores = empty_like_compute(u, users, {users.rows, k});
  Tensor ids = torch::stable::new_empty(u, {users.rows, k}, ScalarType::Long);
  Device::with_compute_type(users, [&](auto zero) {
    using T = decltype(zero);
    Device::topk(u, problem, excluded.nnz, packed, data<T>(scores), data<int64_t>(ids));
  });
  return {scores, ids};
}

// The scores that ranks compares: Device::target_scores<T>(like, problem, scores) runs the kernels.
template <class Device>
Tensor scores_of_targets(Tensor u, Tensor i, Tensor target_indptr, Tensor target_indices,
                         Text normalize) {
  const Arguments given(u);
  const Matrix users = given.matrix("u", u), items = given.matrix("i", i);
  check_pair("u", users, "i", items);
  const SizedCsr targets =
      given.csr("targets", target_indptr, target_indices, users.rows, items.rows);
  const RanksProblem problem{users, items, targets, {}, parse_normalize(normalize)};
  Tensor out = empty_like_compute(u, users, {target_indices.numel()});
  Device::with_compute_type(
      users, [&](auto zero) { Device::template target_scores<decltype(zero)>(u, problem, out); });
  return out;
}

// Device::ranks<T>(like, problem, n_excluded, ranks) runs the kernels with compute type T.
template <class Device>
Tensor ranks_of_targets(Tensor u, Tensor i, Tensor target_indptr, Tensor target_indices,
                        OptionalTensor exclude_indptr, OptionalTensor exclude_indices,
                        Text normalize, OptionalTensor target_scores, int64_t first_item) {
  constexpr int64_t anywhere = int64_t{1} << 31;  // in a catalogue of which i is a part
  const Arguments given(u);
  const Matrix users = given.matrix("u", u), items = given.matrix("i", i);
  check_pair("u", users, "i", items);
  const SizedCsr targets = given.csr("targets", target_indptr, target_indices, users.rows,
                                     target_scores ? anywhere : items.rows);
  const SizedCsr excluded =
      given.csr("exclude", exclude_indptr, exclude_indices, users.rows, items.rows);
  if (first_item < 0 || (first_item > 0 && !target_scores))
    fail("first_item must be >= 0, and 0 without target_scores, got ", first_item);
  RanksProblem problem{users, items, targets, excluded, parse_normalize(normalize)};
  problem.first_item = first_item;
  Tensor out = torch::stable::new_empty(u, {target_indices.numel()}, ScalarType::Long);
  Device::with_compute_type(users, [&](auto zero) {
    using T = decltype(zero);
    if (target_scores)
      problem.target_scores =
          given.values<T>("target_scores", *target_scores, target_indices.numel());
    Device::template ranks<T>(u, problem, excluded.nnz, out);
  });
  return out;
}

}  // namespace adaptau
