// A warp a row: its norm, the two scales, and a copy where tiles cannot be read from the matrix.
#include "prepare.h"
#include "rows.cuh"

namespace adaptau::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) prepare_kernel(PreparedRows p) {
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / 32;
  const int lane = threadIdx.x % 32;
  if (at >= p.matrix.rows) return;
  const int64_t row = p.order != nullptr ? p.order[at] : at;
  const Norm norm = row_norm(p.matrix, row);
  const float length = norm.value();

  // The copy is the row times 2^-exponent.
  const int exponent = p.scaled() && norm.length > 0 ? norm.exponent : 0;
  float tile_scale = ldexpf(1.0f, exponent), unit_scale = 1;
  if (isnan(norm.length)) {
    tile_scale = unit_scale = norm.length;
  } else if (p.normalize) {
    const bool zero = norm.length == 0 || (!p.scaled() && length < kSmallestNorm);
    const bool huge = !p.scaled() && length > kLargestNorm;
    if (huge) {
      tile_scale = unit_scale = __int_as_float(0x7fffffff);
    } else if (zero) {
      tile_scale = 1;
      unit_scale = 0;
    } else {
      tile_scale = ldexpf(1 / norm.length, exponent - norm.exponent);
      unit_scale = ldexpf(1 / norm.length, -norm.exponent);
    }
  }
  if (lane == 0) {
    p.tile_scale[at] = tile_scale;
    p.unit_scale[row] = unit_scale;
  }
  if (p.copy == nullptr) return;
  char* copy = static_cast<char*>(p.copy) + at * p.row_bytes();
  const int64_t padded = p.row_bytes() / element_bytes(p.type);
  for (int64_t k = lane; k < padded; k += 32) {
    const float x = k < p.matrix.cols ? ldexpf(element(p.matrix, row, k), -exponent) : 0;
    switch (p.type) {
      case TileType::bf16:
        reinterpret_cast<__nv_bfloat16*>(copy)[k] = __float2bfloat16_rn(x);
        break;
      case TileType::f16: reinterpret_cast<__half*>(copy)[k] = __float2half_rn(x); break;
      default: reinterpret_cast<float*>(copy)[k] = x;
    }
  }
}

}  // namespace

cudaError_t prepare(const PreparedRows& rows, cudaStream_t stream) {
  const int64_t blocks = (rows.matrix.rows * 32 + kThreads - 1) / kThreads;
  if (blocks > 0) prepare_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(rows);
  return cudaGetLastError();
}

}  // namespace adaptau::cuda
