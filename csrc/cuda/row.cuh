// A row of embeddings held by a group of lanes, 16 bytes a lane and chunk, and its length.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "../core/problem.h"

namespace adaptau::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

// Sum over groups of `Lanes` neighbouring lanes; each lane gets its group's.
template <int Lanes>
__device__ __forceinline__ float sum_lanes(float x) {
#pragma unroll
  for (int mask = Lanes / 2; mask > 0; mask /= 2) x += __shfl_xor_sync(kAllLanes, x, mask);
  return x;
}
template <int Lanes>
__device__ __forceinline__ float max_lanes(float x) {
#pragma unroll
  for (int mask = Lanes / 2; mask > 0; mask /= 2)
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, mask));
  return x;
}

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }

// 16 bytes of a row.
template <class E>
struct alignas(16) Chunk {
  static constexpr int kElements = 16 / static_cast<int>(sizeof(E));
  E element[kElements];
  __device__ __forceinline__ float operator[](int k) const { return to_float(element[k]); }
};

// Rows that can be read in chunks where they lie, or element by element where their strides or
// their address forbid it.
struct RowTable {
  const void* data;
  int64_t row_stride, col_stride;
  int d;
  bool in_chunks;
};

template <class E>
RowTable row_table(const Matrix& m) {
  constexpr int64_t n = Chunk<E>::kElements;
  const bool in_chunks = m.col_stride == 1 && m.cols % n == 0 && m.row_stride % n == 0 &&
                         reinterpret_cast<uintptr_t>(m.data) % 16 == 0;
  return {m.data, m.row_stride, m.col_stride, static_cast<int>(m.cols), in_chunks};
}

// Elements [column, column + kElements) of a row, zero from column d on.
template <class E>
__device__ __forceinline__ Chunk<E> load_chunk(const RowTable& t, int64_t row, int column) {
  Chunk<E> chunk{};
  if (column >= t.d) return chunk;
  const E* at = static_cast<const E*>(t.data) + row * t.row_stride + column * t.col_stride;
  if (t.in_chunks) {
    *reinterpret_cast<uint4*>(&chunk) = __ldg(reinterpret_cast<const uint4*>(at));
  } else {
#pragma unroll
    for (int k = 0; k < Chunk<E>::kElements; ++k)
      if (column + k < t.d) chunk.element[k] = at[k * t.col_stride];
  }
  return chunk;
}

// The unit row is (x * scale) * inverse: scale is a power of two, 1 but for rows whose square sum
// leaves float32's range. A zero row has inverse 0; one that is not finite has no direction: NaN.
struct UnitScale {
  float scale, inverse;
  __device__ float inverse_norm() const { return fminf(scale * inverse, 3.402823466e38f); }
};

__device__ __forceinline__ bool is_safe_square(float square) {
  return square >= 0x1p-80f && square <= 0x1p80f;
}

// For a row whose square sum is not safe: brings the largest entry near 1.
__device__ inline float rescue_scale(float largest) {
  const int exponent = static_cast<int>(__float_as_uint(largest) >> 23);  // biased, of |x|
  return __uint_as_float(static_cast<unsigned>(max(254 - exponent, 1)) << 23);
}

// square_of(scale): the row's square sum with entries multiplied by scale; largest(): of |x|. Both
// are computed by all lanes of a group together.
template <class Square, class Largest>
__device__ __forceinline__ UnitScale unit_scale(Square square_of, Largest largest) {
  float square = square_of(1.0f);
  UnitScale unit{1, 0};
  if (!is_safe_square(square) && !isnan(square)) {
    const float top = largest();
    if (top == 0) return unit;
    if (isinf(top)) {
      square = __int_as_float(0x7fffffff);
    } else {
      unit.scale = rescue_scale(top);
      square = square_of(unit.scale);
    }
  }
  unit.inverse = rsqrtf(square);
  return unit;
}

}  // namespace adaptau::cuda
