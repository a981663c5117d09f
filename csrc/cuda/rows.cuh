// One row of a strided matrix, read by one warp: elements, norms and dot products in float32.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "../core/problem.h"

namespace adaptau::cuda {

// Norms of rows that are normalised: the raw products of two rows must be numbers of float32.
// Below, a row counts as zero; above, as not finite.
constexpr float kSmallestNorm = 0x1p-60f, kLargestNorm = 0x1p60f;

__device__ __forceinline__ float element(const Matrix& m, int64_t row, int64_t column) {
  const int64_t at = row * m.row_stride + column * m.col_stride;
  switch (m.dtype) {
    case DType::bf16: return __bfloat162float(static_cast<const __nv_bfloat16*>(m.data)[at]);
    case DType::f16: return __half2float(static_cast<const __half*>(m.data)[at]);
    default: return static_cast<const float*>(m.data)[at];
  }
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(~0u, x, lanes);
  return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, lanes));
  return x;
}

// Length of a row, NaN where it is not finite, whatever its size: 2^exponent times the length of
// the row divided by it.
struct Norm {
  float length;  // of the scaled row, in [1, 2 sqrt(d)); 0 of a zero row
  int exponent;
  __device__ float value() const { return ldexpf(length, exponent); }
};

__device__ inline Norm row_norm(const Matrix& m, int64_t row) {
  const int lane = threadIdx.x % 32;
  float largest = 0;
  bool finite = true;
  for (int64_t k = lane; k < m.cols; k += 32) {
    const float x = fabsf(element(m, row, k));
    finite &= x <= 3.4028234663852886e38f;
    largest = fmaxf(largest, x);
  }
  if (!__all_sync(~0u, finite)) return {__int_as_float(0x7fffffff), 0};
  largest = warp_max(largest);
  if (largest == 0) return {0, 0};
  const int exponent = ilogbf(largest);
  float square = 0;
  for (int64_t k = lane; k < m.cols; k += 32) {
    const float x = ldexpf(element(m, row, k), -exponent);
    square += x * x;
  }
  return {sqrtf(warp_sum(square)), exponent};
}

}  // namespace adaptau::cuda
