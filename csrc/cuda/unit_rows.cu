// A warp a row: read for its length, read again (from the first-level cache) and written.
#include "row_lanes.cuh"
#include "rows.h"

namespace adaptau::cuda {
namespace {

constexpr int kThreads = 256, kRowsABlock = kThreads / 32;

template <class E>
__global__ void __launch_bounds__(kThreads) unit_rows_kernel(Matrix m, float* out) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRowsABlock + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= m.rows) return;
  const E* x = static_cast<const E*>(m.data) + row * m.row_stride;
  auto element = [&](int64_t k) { return to_float(x[k * m.col_stride]); };
  auto square_of = [&](float scale) {
    float square = 0;
    for (int64_t k = lane; k < m.cols; k += 32) {
      const float v = element(k) * scale;
      square += v * v;
    }
    return sum_lanes<32>(square);
  };
  auto largest = [&] {
    float top = 0;
    for (int64_t k = lane; k < m.cols; k += 32) top = fmaxf(top, fabsf(element(k)));
    return max_lanes<32>(top);
  };
  const UnitScale unit = unit_scale(square_of(1), largest, square_of);
  for (int64_t k = lane; k < m.cols; k += 32)
    out[row * m.cols + k] = element(k) * unit.scale * unit.inverse;
}

template <class E>
cudaError_t launch(const Matrix& m, float* out, cudaStream_t stream) {
  const int64_t blocks = (m.rows + kRowsABlock - 1) / kRowsABlock;
  if (blocks > 0 && m.cols > 0)
    unit_rows_kernel<E><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(m, out);
  return cudaGetLastError();
}

}  // namespace

cudaError_t unit_rows(const Matrix& m, float* out, cudaStream_t stream) {
  switch (m.dtype) {
    case DType::bf16: return launch<__nv_bfloat16>(m, out, stream);
    case DType::f16: return launch<__half>(m, out, stream);
    default: return launch<float>(m, out, stream);
  }
}

}  // namespace adaptau::cuda
