#include "row_table.h"

namespace adaptau::cuda {
namespace {

constexpr int kThreads = 256;

int64_t element_size(const Matrix& m) {
  return m.dtype == DType::bf16 || m.dtype == DType::f16 ? 2 : 4;
}
int64_t padded_columns(const Matrix& m) {
  const int64_t chunk = 16 / element_size(m);
  return m.cols == 0 ? chunk : (m.cols + chunk - 1) / chunk * chunk;
}

template <class Bits>
__global__ void __launch_bounds__(kThreads)
    pack_rows_kernel(const Bits* from, int64_t rows, int64_t cols, int64_t row_stride,
                     int64_t col_stride, int64_t padded, Bits* to) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= rows * padded) return;
  const int64_t row = at / padded, column = at % padded;
  to[at] = column < cols ? from[row * row_stride + column * col_stride] : Bits{0};
}

template <class Bits>
void launch(const Matrix& m, void* copy, cudaStream_t stream) {
  const int64_t padded = padded_columns(m), blocks = (m.rows * padded + kThreads - 1) / kThreads;
  pack_rows_kernel<Bits><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(
      static_cast<const Bits*>(m.data), m.rows, m.cols, m.row_stride, m.col_stride, padded,
      static_cast<Bits*>(copy));
}

}  // namespace

int64_t packed_bytes(const Matrix& m) {
  const int64_t size = element_size(m), chunk = 16 / size;
  const bool as_it_is = m.cols > 0 && m.col_stride == 1 && m.cols % chunk == 0 &&
                        m.row_stride % chunk == 0 && m.row_stride * size <= INT32_MAX &&
                        reinterpret_cast<uintptr_t>(m.data) % 16 == 0;
  return as_it_is ? 0 : m.rows * padded_columns(m) * size;
}

RowTable row_table(const Matrix& m, const void* copy) {
  const int64_t columns = padded_columns(m);
  const bool packed = packed_bytes(m) > 0;
  return {static_cast<const char*>(packed ? copy : m.data),
          static_cast<int32_t>((packed ? columns : m.row_stride) * element_size(m)),
          static_cast<int>(columns)};
}

cudaError_t pack_rows(const Matrix& m, void* copy, cudaStream_t stream) {
  if (packed_bytes(m) == 0) return cudaSuccess;
  if (element_size(m) == 2) {
    launch<uint16_t>(m, copy, stream);
  } else {
    launch<uint32_t>(m, copy, stream);
  }
  return cudaGetLastError();
}

}  // namespace adaptau::cuda
