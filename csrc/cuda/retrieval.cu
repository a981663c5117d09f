#include "retrieval.h"

#include <algorithm>

namespace adaptau::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kBlocks = 2 * 132;        // fill the largest GPU we plan for
constexpr int64_t kItemsPerSplit = 8 * 64;  // at least

__global__ void __launch_bounds__(kThreads) item_scales_kernel(RetrievalRows rows, int64_t padded) {
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (item < padded)
    rows.item_scale[item] = item < rows.items.matrix.rows ? rows.items.tile_scale[item] : 1;
}

}  // namespace

cudaError_t prepare(const RetrievalRows& rows, cudaStream_t stream) {
  cudaError_t error;
  if ((error = prepare(rows.users, stream)) != cudaSuccess) return error;
  if ((error = prepare(rows.items, stream)) != cudaSuccess) return error;
  const int64_t padded = (rows.items.matrix.rows + 63) / 64 * 64;
  if (padded > 0)
    item_scales_kernel<<<static_cast<unsigned>((padded + kThreads - 1) / kThreads), kThreads, 0,
                         stream>>>(rows, padded);
  return cudaGetLastError();
}

int retrieval_splits(int64_t users, int64_t items, int rows_a_block) {
  const int64_t blocks = std::max<int64_t>((users + rows_a_block - 1) / rows_a_block, 1);
  return static_cast<int>(
      std::clamp<int64_t>(kBlocks / blocks, 1, std::max<int64_t>(items / kItemsPerSplit, 1)));
}

}  // namespace adaptau::cuda
