// The tables that tiles are cut from.
#pragma once

#include <cstdint>

#include "operators.h"

namespace adaptau::cuda {

// Rows as kernels read them: contiguous, `chunks` 16-byte chunks of each hold elements.
struct TileRows {
  const void* data;
  int64_t row_bytes;
  int count, chunks;
};

// A product of two tables, and `parameters` with one Parameter a column, padded with valid
// ones to a multiple of 64.
template <class Parameter>
struct WalkTables {
  TileRows rows, columns;
  const Parameter* parameters;
  MaskBuckets masks;
};

}  // namespace adaptau::cuda
