// The sampled loss and sampled_scores but for their passes over the samples: ids, where each item's
// begin in their order, and what follows from the dtype.
#include <cassert>

#include "../core/philox.h"
#include "rows.h"
#include "sampled_items.cuh"
#include "workspace.h"

namespace adaptau::cuda {

template <class E>
cudaError_t sampled_rows_of(const SampledCall& call, cudaStream_t stream);
template <class E>
cudaError_t sampled_scores_of(const SampledCall& call, cudaStream_t stream);
template <class E>
cudaError_t sampled_items_of(const ItemPass& pass, cudaStream_t stream);

namespace {

constexpr int kThreads = 256;

unsigned threads(int64_t n) { return static_cast<unsigned>((n + kThreads - 1) / kThreads); }
__device__ int64_t this_thread() {
  return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

// Ids as int32, which is what sorting takes half the time for.
__global__ void __launch_bounds__(kThreads)
    check_ids_kernel(const int64_t* from, int64_t n, int64_t n_items, int32_t* to) {
  const int64_t at = this_thread();
  if (at >= n) return;
  const int64_t id = from[at];
  assert(id >= 0 && id < n_items && "ids of items must lie in [0, n_items)");
  to[at] = static_cast<int32_t>(id);
}

void check_ids(const int64_t* from, int64_t n, int64_t n_items, int32_t* to, cudaStream_t stream) {
  if (n > 0) check_ids_kernel<<<threads(n), kThreads, 0, stream>>>(from, n, n_items, to);
}

// starts[i]: the first entry of an item that is not smaller than i, by bisection: it costs the same
// however the entries are spread over the items.
__global__ void __launch_bounds__(kThreads)
    starts_kernel(const int32_t* ids, int64_t n, int64_t n_items, int64_t* starts) {
  const int64_t item = this_thread();
  if (item > n_items) return;
  int64_t low = 0, high = n;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (ids[middle] < item) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  starts[item] = low;
}

// A thread an element of the rows: the first of equal ids adds up all of them.
__global__ void __launch_bounds__(kThreads)
    scatter_rows_kernel(const int64_t* ids, const int64_t* order, int64_t n, const float* rows,
                        int64_t d, float* table) {
  const int64_t at = this_thread();
  if (at >= n * d) return;
  const int64_t first = at / d, column = at % d, id = ids[first];
  if (first > 0 && ids[first - 1] == id) return;
  float sum = 0;
  for (int64_t p = first; p < n && ids[p] == id; ++p) sum += rows[order[p] * d + column];
  table[id * d + column] = sum;
}

int64_t n_entries(const SampledCall& call) {
  return call.problem.n_rows * row_entries(call.problem);
}

// launch(E{}) for the type of the tables.
template <class Launch>
cudaError_t with_dtype(const SampledCall& call, Launch&& launch) {
  switch (call.problem.item_table.dtype) {
    case DType::bf16: return launch(__nv_bfloat16{});
    case DType::f16: return launch(__half{});
    default: return launch(float{});
  }
}

ItemPass item_pass(const SampledCall& call, const SortedIds& sorted, Workspace& workspace) {
  const int64_t n = n_entries(call), pieces = (n + kPiece - 1) / kPiece;
  ItemPass pass{call, sorted, nullptr, nullptr, nullptr, n};
  pass.starts = workspace.take<int64_t>(call.problem.item_table.rows + 1);
  pass.pieces = workspace.take<ItemSums>(pieces);
  pass.piece_rows = workspace.take<float>(pieces * call.problem.item_table.cols);
  return pass;
}

}  // namespace

cudaError_t sampled_ids(const SampledCall& call, cudaStream_t stream) {
  const SampledProblem<float>& p = call.problem;
  const int64_t n = p.n_rows * p.n_negatives, n_items = p.item_table.rows;
  if (p.negatives != nullptr) {
    check_ids(p.negatives, n, n_items, call.ids, stream);
  } else {
    draw_negatives(p.seed, static_cast<uint32_t>(n_items), p.n_rows, p.n_negatives, call.ids,
                   stream);
  }
  if (p.positives != nullptr) check_ids(p.positives, p.n_rows, n_items, call.ids + n, stream);
  return cudaGetLastError();
}

cudaError_t sampled_rows(const SampledCall& call, cudaStream_t stream) {
  if (call.problem.n_rows == 0) return cudaSuccess;
  return with_dtype(call, [&](auto zero) { return sampled_rows_of<decltype(zero)>(call, stream); });
}

cudaError_t sampled_scores(const SampledCall& call, cudaStream_t stream) {
  if (call.problem.n_rows == 0) return cudaSuccess;
  return with_dtype(call,
                    [&](auto zero) { return sampled_scores_of<decltype(zero)>(call, stream); });
}

int64_t sampled_items_workspace(const SampledCall& call) {
  Workspace workspace;
  item_pass(call, {}, workspace);
  return workspace.used();
}

cudaError_t sampled_items(const SampledCall& call, const SortedIds& sorted, void* memory,
                          cudaStream_t stream) {
  const int64_t n_items = call.problem.item_table.rows;
  if (n_items == 0) return cudaSuccess;
  Workspace workspace(memory);
  const ItemPass pass = item_pass(call, sorted, workspace);
  starts_kernel<<<threads(n_items + 1), kThreads, 0, stream>>>(sorted.ids, pass.n_entries, n_items,
                                                               pass.starts);
  return with_dtype(call,
                    [&](auto zero) { return sampled_items_of<decltype(zero)>(pass, stream); });
}

cudaError_t scatter_rows(const int64_t* ids, const int64_t* order, int64_t n, const float* rows,
                         int64_t d, float* table, cudaStream_t stream) {
  if (n * d > 0)
    scatter_rows_kernel<<<threads(n * d), kThreads, 0, stream>>>(ids, order, n, rows, d, table);
  return cudaGetLastError();
}

}  // namespace adaptau::cuda
