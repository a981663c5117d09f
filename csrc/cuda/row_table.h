// Rows that kernels read 16 bytes at a time: a matrix where it lies, if it is laid out that way, or
// a copy of it whose rows are padded with zeros.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../core/problem.h"

namespace adaptau::cuda {

struct RowTable {
  const char* data;
  int32_t row_bytes;  // from one row to the next
  int columns;        // whole chunks of 16 bytes, at least one
};

// Size of the copy, 0 if none is needed.
int64_t packed_bytes(const Matrix& m);
// copy: packed_bytes of memory.
RowTable row_table(const Matrix& m, const void* copy);
// Fills the copy, if there is one.
cudaError_t pack_rows(const Matrix& m, void* copy, cudaStream_t stream);

}  // namespace adaptau::cuda
