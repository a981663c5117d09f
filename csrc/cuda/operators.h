// The operators on CUDA devices: launchers without tensors. Pointers in problems and results are
// the device's, scratch comes from the caller, kernels are queued on `stream` and nothing waits.
// Each documents its algorithm in its own file. The caller looks for launch errors.
//
// Values that only the device can see (ids, temperatures) are asserted there.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../core/problem.h"

namespace adaptau::cuda {

// rows.cu: out[rows, cols] contiguous, the rows of m divided by their norms; zero rows stay zero.
void unit_rows(const Matrix& m, float* out, cudaStream_t stream);

// draw.cu: the ids of core/philox.h, [n_rows, n_negatives] contiguous.
void draw_negatives(uint64_t seed, uint32_t n_items, int64_t n_rows, int64_t n_negatives,
                    int64_t* ids, cudaStream_t stream);

}  // namespace adaptau::cuda
