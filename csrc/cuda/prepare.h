// Rows as the tensor cores want them, and the factor between a row so prepared and the row that the
// operator means: unit row, or the row itself.
#pragma once

#include <cuda_runtime.h>

#include "operators.h"
#include "tile_rows.h"
#include "workspace.h"

namespace adaptau::cuda {

enum class TileType { f32, tf32, bf16, f16 };

__host__ __device__ inline int element_bytes(TileType type) {
  return type == TileType::f32 || type == TileType::tf32 ? 4 : 2;
}

// What the products of these rows are made of. 16-bit factors of float32 rows are float16, of rows
// scaled by powers of two: eight times closer than bfloat16.
inline TileType tile_type(DType dtype, Precision precision) {
  switch (dtype) {
    case DType::bf16: return TileType::bf16;
    case DType::f16: return TileType::f16;
    default:
      return precision == Precision::bfloat16 ? TileType::f16
             : precision == Precision::tf32   ? TileType::tf32
                                              : TileType::f32;
  }
}

// One side of an operator. tile_scale[p] times prepared row p is the row meant; unit_scale[r] times
// row r of the matrix is, too, but 0 for a zero row that should be normalised.
struct PreparedRows {
  Matrix matrix;
  const int64_t* order;  // prepared row p is row order[p] of the matrix, or nullptr
  bool normalize;
  TileType type;
  void* copy;  // nullptr: the matrix serves as it is
  float *tile_scale, *unit_scale;

  PreparedRows(const Matrix& m, const int64_t* order, bool normalize, TileType type,
               Workspace& workspace)
      : matrix(m), order(order), normalize(normalize), type(type), copy(nullptr) {
    tile_scale = workspace.take<float>(m.rows);
    unit_scale = workspace.take<float>(m.rows);
    if (copied()) copy = workspace.take<char>(m.rows * row_bytes());
  }

  __host__ __device__ int64_t row_bytes() const {
    return (matrix.cols * element_bytes(type) + 15) / 16 * 16;
  }
  // float16 rows are scaled, so that no weight of theirs leaves float16's narrow range.
  __host__ __device__ bool scaled() const {
    return type == TileType::f16 && (normalize || matrix.dtype != DType::f16);
  }
  bool copied() const {
    const int bytes = element_bytes(type);
    const bool same =
        matrix.dtype == DType::f16 || matrix.dtype == DType::bf16 ? bytes == 2 : bytes == 4;
    return scaled() || order != nullptr || !same || matrix.col_stride != 1 ||
           matrix.cols * bytes % 16 != 0 || matrix.row_stride * bytes % 16 != 0 ||
           reinterpret_cast<uintptr_t>(matrix.data) % 16 != 0;
  }
  TileRows tiles() const {
    const int bytes = element_bytes(type);
    return {copied() ? copy : matrix.data, copied() ? row_bytes() : matrix.row_stride * bytes,
            static_cast<int>(matrix.rows), static_cast<int>(row_bytes() / 16)};
  }
};

// prepare.cu
cudaError_t prepare(const PreparedRows& rows, cudaStream_t stream);

}  // namespace adaptau::cuda
