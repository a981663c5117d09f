// Rows and ids on a GPU. As in operators.h: device pointers, work queued on a stream, the first
// error of the launches returned.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../core/problem.h"

namespace adaptau::cuda {

// unit_rows.cu: out[rows, cols] contiguous, the rows of m divided by their norms; a zero row stays
// zero.
cudaError_t unit_rows(const Matrix& m, float* out, cudaStream_t stream);

// dropout.cu: out[rows, cols] contiguous.
cudaError_t dropout(const DropoutProblem& problem, float* out, cudaStream_t stream);

// draw.cu: the ids of core/philox.h, [n_rows, n_negatives] contiguous, as int32_t or int64_t.
template <class Id>
cudaError_t draw_negatives(uint64_t seed, uint32_t n_items, int64_t n_rows, int64_t n_negatives,
                           Id* ids, cudaStream_t stream);

}  // namespace adaptau::cuda
