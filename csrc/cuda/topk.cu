// Top-k: lists by block (topk.cuh), then one block a user merges its lists and sorts the k best.
#include "topk.h"

#include <algorithm>
#include <cassert>

#include "retrieval.h"
#include "selection.cuh"
#include "shapes.h"

namespace adaptau::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kSharedKeys = 2048;          // sorted in shared memory
constexpr int64_t kItemsPerResult = 4;     // of a split: else most of its items would be kept
constexpr int64_t kListBytes = 256 << 20;  // beyond one list a user

int64_t power_of_two(int64_t n) {
  int64_t p = 1;
  while (p < n) p *= 2;
  return p;
}

struct Buffers {
  RetrievalRows rows;
  TopkLists lists;
  CandidateKey* sorted;  // [B, power of two >= k], where shared memory is too small

  Buffers(const TopkCall& c, Workspace& w)
      : rows(c.problem.users, c.problem.items, c.problem.normalize, w), sorted(nullptr) {
    const int64_t B = c.problem.users.rows, M = c.problem.items.rows, k = c.problem.k;
    lists.capacity = list_capacity(k);
    const int64_t list_bytes = std::max<int64_t>(B * lists.capacity * 8, 1);
    const int rows_a_block = with_exact_shape(rows.users.type, c.problem.users.cols,
                                              [](auto shape) { return decltype(shape)::kRows; });
    lists.splits = static_cast<int>(
        std::max<int64_t>(1, std::min({int64_t{retrieval_splits(B, M, rows_a_block)},
                                       M / (kItemsPerResult * k), kListBytes / list_bytes})));
    lists.k = static_cast<int>(k);
    lists.tables = rows.tables(c.masks);
    lists.user_scale = rows.users.tile_scale;
    lists.keys = w.take<CandidateKey>(B * lists.splits * lists.capacity);
    lists.counts = w.take<int>(B * lists.splits);
    if (power_of_two(k) > kSharedKeys) sorted = w.take<CandidateKey>(B * power_of_two(k));
  }
};

__device__ int block_sum(int x) {
  __shared__ int partial[kThreads / 32];
  x = static_cast<int>(__reduce_add_sync(~0u, x));
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  int sum = 0;
  for (int w = 0; w < kThreads / 32; ++w) sum += partial[w];
  __syncthreads();  // before the next sum
  return sum;
}

// Descending; n is a power of two.
__device__ void sort_keys(CandidateKey* keys, int n) {
  for (int size = 2; size <= n; size *= 2)
    for (int stride = size / 2; stride > 0; stride /= 2) {
      __syncthreads();
      for (int pair = threadIdx.x; pair < n / 2; pair += kThreads) {
        const int low = pair / stride * 2 * stride + pair % stride, high = low + stride;
        const CandidateKey a = keys[low], b = keys[high];
        if ((a < b) == ((low & size) == 0)) {
          keys[low] = b;
          keys[high] = a;
        }
      }
    }
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads)
    merge_kernel(TopkLists lists, CandidateKey* sorted, int padded, float* scores, int64_t* ids) {
  __shared__ CandidateKey shared[kSharedKeys];
  __shared__ int kept;
  const int64_t user = blockIdx.x;
  const int* counts = lists.counts + user * lists.splits;
  const CandidateKey* keys = lists.keys + user * lists.splits * lists.capacity;
  CandidateKey* best = sorted != nullptr ? sorted + user * padded : shared;
  if (threadIdx.x == 0) kept = 0;
  int total = 0;
  for (int s = 0; s < lists.splits; ++s) total += counts[s];
  assert(total >= lists.k && "k must be at most the items that exclusions leave each user");

  // The lists in one: kth_largest over all of them.
  CandidateKey bound = 0;
  for (int bit = 63; bit >= 0 && total > lists.k; --bit) {
    const CandidateKey tried = bound | CandidateKey{1} << bit;
    int above = 0;
    for (int s = 0; s < lists.splits; ++s)
      for (int at = threadIdx.x; at < counts[s]; at += kThreads)
        above += keys[int64_t{s} * lists.capacity + at] >= tried;
    above = block_sum(above);
    if (above >= lists.k) bound = tried;
    if (above == lists.k) break;
  }
  for (int at = lists.k + threadIdx.x; at < padded; at += kThreads) best[at] = 0;
  __syncthreads();  // kept is zero
  for (int s = 0; s < lists.splits; ++s)
    for (int at = threadIdx.x; at < counts[s]; at += kThreads) {
      const CandidateKey key = keys[int64_t{s} * lists.capacity + at];
      if (key >= bound) best[atomicAdd(&kept, 1)] = key;
    }
  sort_keys(best, padded);
  for (int at = threadIdx.x; at < lists.k; at += kThreads) {
    scores[user * lists.k + at] = key_score(best[at]);
    ids[user * lists.k + at] = key_id(best[at]);
  }
}

}  // namespace

int64_t topk_workspace(const TopkCall& call) {
  Workspace measure;
  Buffers(call, measure);
  return measure.used();
}

cudaError_t topk(const TopkCall& call, void* workspace, cudaStream_t stream) {
  Workspace memory(workspace);
  const Buffers b(call, memory);
  const int64_t B = call.problem.users.rows;
  if (B == 0) return cudaSuccess;
  cudaError_t error = prepare(b.rows, stream);
  if (error != cudaSuccess) return error;
  error = with_exact_shape(b.rows.users.type, call.problem.users.cols, [&](auto shape) {
    return launch_topk_lists<decltype(shape)>(b.lists, stream);
  });
  if (error != cudaSuccess) return error;
  merge_kernel<<<static_cast<unsigned>(B), kThreads, 0, stream>>>(
      b.lists, b.sorted, static_cast<int>(power_of_two(call.problem.k)), call.scores, call.ids);
  return cudaGetLastError();
}

}  // namespace adaptau::cuda
