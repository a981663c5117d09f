// Dropout by the counter generator: a thread computes one Philox block, eight columns of a row.
#include <cassert>

#include "../core/philox.h"
#include "rows.cuh"
#include "rows.h"

namespace adaptau::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    dropout_kernel(DropoutProblem p, float factor, float* out) {
  const int64_t blocks = (p.x.cols + kDropoutColumns - 1) / kDropoutColumns;
  const int64_t task = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (task >= p.x.rows * blocks) return;
  const int64_t row = task / blocks, first = task % blocks * kDropoutColumns;
  const int64_t table_row = p.first_row + (p.ids != nullptr ? p.ids[row] : row);
  const PhiloxWords words =
      draw_words(p.dropout.seed, table_row, static_cast<uint32_t>(first / kDropoutColumns), 0);
#pragma unroll
  for (uint32_t c = 0; c < kDropoutColumns; ++c) {
    if (first + c >= p.x.cols) break;
    const bool kept = dropout_bits(words, c) >= p.dropout.steps;
    out[row * p.x.cols + first + c] = kept ? element(p.x, row, first + c) * factor : 0;
  }
}

}  // namespace

cudaError_t dropout(const DropoutProblem& p, float* out, cudaStream_t stream) {
  const int64_t tasks = p.x.rows * ((p.x.cols + kDropoutColumns - 1) / kDropoutColumns);
  if (tasks > 0)
    dropout_kernel<<<static_cast<unsigned>((tasks + kThreads - 1) / kThreads), kThreads, 0,
                     stream>>>(p, static_cast<float>(p.dropout.factor()), out);
  return cudaGetLastError();
}

}  // namespace adaptau::cuda
