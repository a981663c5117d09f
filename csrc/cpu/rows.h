// Rows of a strided matrix of any dtype, brought into the kernels' form: compute type T,
// contiguous, padded with zeros, normalised on request.
#pragma once

#include <cstdint>
#include <cstring>

#include "../core/problem.h"
#include "kernels.h"
#include "scratch.h"

namespace adaptau {

inline float bf16_to_f32(uint16_t x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

inline float f16_to_f32(uint16_t x) {
  // Move exponent and mantissa into place, then fix the bias by a multiplication, which also
  // normalises subnormals; inf and NaN keep an all-ones exponent.
  const uint32_t sign = static_cast<uint32_t>(x & 0x8000u) << 16, magnitude = x & 0x7fffu;
  uint32_t bits = magnitude << 13;
  float f;
  std::memcpy(&f, &bits, sizeof f);
  f *= 0x1p112f;
  std::memcpy(&bits, &f, sizeof bits);
  if (magnitude >= 0x7c00u) bits |= 0x7f800000u;
  bits |= sign;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

// Row `index` of m into out[0, ld), zero beyond m.cols.
template <class T>
void read_row(const Matrix& m, int64_t index, T* out, int64_t ld);

// Rows [first, first + n) into out[n, ld]; with `normalise`, unit rows and their 1 / |x|, otherwise
// inverse_norm is filled with ones. inverse_norm may be nullptr.
template <class T>
void read_rows(const Matrix& m, int64_t first, int64_t n, bool normalise, const Kernels<T>& kernels,
               T* out, int64_t ld, T* inverse_norm);

// True when rows of m can be handed to the kernels where they lie.
template <class T>
bool readable_in_place(const Matrix& m) {
  return m.dtype == (sizeof(T) == 4 ? DType::f32 : DType::f64) &&
         (m.col_stride == 1 || m.cols <= 1);
}
template <class T>
const T* row_in_place(const Matrix& m, int64_t index) {
  return static_cast<const T*>(m.data) + index * m.row_stride;
}

// A group of up to 48 rows x[rows, ld], scaled by scale[row] (nullptr: 1), into out[ld][48]:
// users as lanes. Missing lanes are zero.
template <class T>
void pack_group(const T* x, int64_t rows, int64_t ld, const T* scale, T* out) {
  for (int64_t k = 0; k < ld; ++k)
    for (int64_t l = 0; l < kTile; ++l)
      out[k * kTile + l] = l < rows ? x[l * ld + k] * (scale != nullptr ? scale[l] : T(1)) : T(0);
}

// Lanes the kernels must compute for a group of `rows` users: whole vectors of any level.
template <class T>
int64_t active_lanes(int64_t rows) {
  constexpr int64_t step = 64 / static_cast<int64_t>(sizeof(T));
  const int64_t lanes = (rows + step - 1) / step * step;
  return lanes < kTile ? lanes : kTile;
}

}  // namespace adaptau
