// Negatives by the counter generator: a thread computes one Philox block, the ids of four columns.
// Nothing is read, so the kernel runs at the speed of writing ids.
#include "../core/philox.h"
#include "rows.h"

namespace adaptau::cuda {
namespace {

constexpr int kThreads = 256;

template <class Id>
__global__ void __launch_bounds__(kThreads)
    draw_kernel(uint64_t seed, uint32_t n_items, int64_t n_rows, int64_t n_negatives, Id* ids) {
  const int64_t blocks = (n_negatives + 3) / 4;
  const int64_t task = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (task >= n_rows * blocks) return;
  const int64_t row = task / blocks;
  const uint32_t first = static_cast<uint32_t>(task % blocks) * 4;
  const PhiloxWords words = draw_words(seed, row, first / 4, 0);
#pragma unroll
  for (uint32_t w = 0; w < 4; ++w)
    if (first + w < n_negatives)
      ids[row * n_negatives + first + w] =
          static_cast<Id>(draw_from_word(seed, row, first + w, n_items, words.word[w]));
}

}  // namespace

template <class Id>
cudaError_t draw_negatives(uint64_t seed, uint32_t n_items, int64_t n_rows, int64_t n_negatives,
                           Id* ids, cudaStream_t stream) {
  const int64_t blocks = (n_rows * ((n_negatives + 3) / 4) + kThreads - 1) / kThreads;
  if (blocks > 0)
    draw_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(seed, n_items, n_rows,
                                                                        n_negatives, ids);
  return cudaGetLastError();
}

template cudaError_t draw_negatives<int32_t>(uint64_t, uint32_t, int64_t, int64_t, int32_t*,
                                             cudaStream_t);
template cudaError_t draw_negatives<int64_t>(uint64_t, uint32_t, int64_t, int64_t, int64_t*,
                                             cudaStream_t);

}  // namespace adaptau::cuda
