// A warp a row: read for its length, read again (from the first-level cache) and written.
#include "row.cuh"
#include "rows.h"

namespace adaptau::cuda {
namespace {

constexpr int kThreads = 256, kRowsABlock = kThreads / 32;

template <class E>
__global__ void __launch_bounds__(kThreads)
    unit_rows_kernel(RowTable table, int64_t n_rows, float* out) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRowsABlock + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= n_rows) return;
  const E* x = static_cast<const E*>(table.data) + row * table.row_stride;
  auto element = [&](int k) { return to_float(x[k * table.col_stride]); };
  const UnitScale unit = unit_scale(
      [&](float scale) {
        float square = 0;
        for (int k = lane; k < table.d; k += 32) {
          const float v = element(k) * scale;
          square += v * v;
        }
        return sum_lanes<32>(square);
      },
      [&] {
        float largest = 0;
        for (int k = lane; k < table.d; k += 32) largest = fmaxf(largest, fabsf(element(k)));
        return max_lanes<32>(largest);
      });
  for (int k = lane; k < table.d; k += 32)
    out[row * table.d + k] = element(k) * unit.scale * unit.inverse;
}

template <class E>
cudaError_t launch(const Matrix& m, float* out, cudaStream_t stream) {
  const int64_t blocks = (m.rows + kRowsABlock - 1) / kRowsABlock;
  if (blocks > 0 && m.cols > 0)
    unit_rows_kernel<E>
        <<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(row_table<E>(m), m.rows, out);
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
