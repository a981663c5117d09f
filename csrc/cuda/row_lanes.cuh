// Rows of embeddings held by lanes: a group of `Lanes` neighbouring lanes has one row in registers,
// 16 bytes a lane and chunk, so that a warp's loads are whole sectors and several rows at a time.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "row_table.h"

namespace adaptau::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kMaxSlices = 8;

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
  for (int mask = Lanes / 2; mask > 0; mask /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, mask));
  return x;
}

// Sums of N values over each group of `Lanes` lanes, with one exchange where N sums would take two:
// lanes trade halves of what they hold. Lane l of the group gets the sum of value l * N / Lanes.
template <int N, int Lanes>
__device__ __forceinline__ float sum_and_share(float (&value)[N]) {
  static_assert(N <= Lanes);
  int mask = Lanes / 2;
#pragma unroll
  for (int half = N / 2; half > 0; half /= 2, mask /= 2) {
    const bool upper = threadIdx.x & mask;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const float kept = upper ? value[i + half] : value[i];
      const float sent = upper ? value[i] : value[i + half];
      value[i] = kept + __shfl_xor_sync(kAllLanes, sent, mask);
    }
  }
  float sum = value[0];
#pragma unroll
  for (int rest = Lanes / N / 2; rest > 0; rest /= 2) sum += __shfl_xor_sync(kAllLanes, sum, rest);
  return sum;
}

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }

// 16 bytes of a row.
template <class E>
struct alignas(16) Chunk {
  static constexpr int kElements = 16 / static_cast<int>(sizeof(E));
  uint32_t word[4];

  __device__ __forceinline__ float operator[](int k) const {
    if constexpr (sizeof(E) == 4) {
      return __uint_as_float(word[k]);
    } else if constexpr (std::is_same_v<E, __nv_bfloat16>) {  // the upper half of a float
      return __uint_as_float(k % 2 ? word[k / 2] & 0xffff0000u : word[k / 2] << 16);
    } else {
      const __half2 pair = *reinterpret_cast<const __half2*>(&word[k / 2]);
      return k % 2 ? __high2float(pair) : __low2float(pair);
    }
  }
  __device__ __forceinline__ void multiply(float scale) {
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      if constexpr (sizeof(E) == 4) {
        word[w] = __float_as_uint((*this)[w] * scale);
      } else {
        const float low = (*this)[2 * w] * scale, high = (*this)[2 * w + 1] * scale;
        if constexpr (std::is_same_v<E, __nv_bfloat16>) {
          *reinterpret_cast<__nv_bfloat162*>(&word[w]) = __floats2bfloat162_rn(low, high);
        } else {
          *reinterpret_cast<__half2*>(&word[w]) = __floats2half2_rn(low, high);
        }
      }
    }
  }
};

// How the columns of a row lie over the lanes: chunk c of lane l of a group holds those from
// (c * Lanes + l) * kElements on. `Sliced`: the warps of a block hold a slice of the columns each,
// and what lanes sum up is summed over the warps too. Otherwise every warp has whole rows.
template <class E_, int Lanes_, int Chunks_, bool Sliced_ = false>
struct RowShape {
  using E = E_;
  static constexpr int Lanes = Lanes_, Chunks = Chunks_;
  static constexpr bool Sliced = Sliced_;
  static constexpr int kElements = Chunk<E>::kElements;
  static constexpr int kColumns = Lanes * Chunks * kElements;        // of a warp
  static constexpr int kGroups = 32 / Lanes;                         // rows a warp reads at a time
  static constexpr int kInFlight = Chunks * kElements < 16 ? 4 : 2;  // rows a group reads ahead
  static constexpr int kStep = kGroups * kInFlight;

  struct Row {
    Chunk<E> chunk[Chunks];
    // Exact where a row's length asks for it: powers of two.
    __device__ __forceinline__ void multiply(float scale) {
#pragma unroll
      for (int c = 0; c < Chunks; ++c) chunk[c].multiply(scale);
    }
    __device__ __forceinline__ float largest() const {
      float top = 0;
#pragma unroll
      for (int c = 0; c < Chunks; ++c)
#pragma unroll
        for (int k = 0; k < kElements; ++k) top = fmaxf(top, fabsf(chunk[c][k]));
      return top;
    }
  };

  // Reads rows of a table. Lanes beyond its last column read the last chunk again: a load that
  // nothing guards is one instruction, and where it matters the extra chunk counts as zero.
  class Reader {
   public:
    __device__ __forceinline__ explicit Reader(const RowTable& t) : row_bytes_(t.row_bytes) {
#pragma unroll
      for (int c = 0; c < Chunks; ++c) {
        inside_[c] = column(c) < t.columns;
        base_[c] = t.data + min(column(c), t.columns - kElements) * static_cast<int>(sizeof(E));
      }
    }
    __device__ __forceinline__ Row read(int32_t row) const {
      Row result;
#pragma unroll
      for (int c = 0; c < Chunks; ++c)
        *reinterpret_cast<uint4*>(&result.chunk[c]) = __ldg(
            reinterpret_cast<const uint4*>(base_[c] + static_cast<int64_t>(row) * row_bytes_));
      return result;
    }
    // With zeros beyond the last column.
    __device__ __forceinline__ Row read_whole(int32_t row) const {
      Row result = read(row);
#pragma unroll
      for (int c = 0; c < Chunks; ++c)
        if (!inside_[c]) result.chunk[c] = {};
      return result;
    }
    // This lane's part of a row's square sum.
    __device__ __forceinline__ float square(const Row& row) const {
      float sum = 0;
#pragma unroll
      for (int c = 0; c < Chunks; ++c) {
        float part = 0;
#pragma unroll
        for (int k = 0; k < kElements; ++k) part = fmaf(row.chunk[c][k], row.chunk[c][k], part);
        sum += inside_[c] ? part : 0;
      }
      return sum;
    }

   private:
    const char* base_[Chunks];
    int32_t row_bytes_;
    bool inside_[Chunks];
  };

  // The same columns in float32.
  struct Floats {
    static constexpr int kSize = Chunks * kElements;
    float x[kSize];
    __device__ __forceinline__ void clear() {
#pragma unroll
      for (int k = 0; k < kSize; ++k) x[k] = 0;
    }
    __device__ __forceinline__ void multiply(float factor) {
#pragma unroll
      for (int k = 0; k < kSize; ++k) x[k] *= factor;
    }
    __device__ __forceinline__ void add(float weight, const Row& row) {
#pragma unroll
      for (int c = 0; c < Chunks; ++c)
#pragma unroll
        for (int k = 0; k < kElements; ++k)
          x[c * kElements + k] = fmaf(weight, row.chunk[c][k], x[c * kElements + k]);
    }
    __device__ __forceinline__ void add(float weight, const Floats& other) {
#pragma unroll
      for (int k = 0; k < kSize; ++k) x[k] = fmaf(weight, other.x[k], x[k]);
    }
    __device__ __forceinline__ float dot(const Row& row) const {
      float sum = 0;
#pragma unroll
      for (int c = 0; c < Chunks; ++c)
#pragma unroll
        for (int k = 0; k < kElements; ++k) sum = fmaf(x[c * kElements + k], row.chunk[c][k], sum);
      return sum;
    }
    __device__ __forceinline__ float dot(const Floats& other) const {
      float sum = 0;
#pragma unroll
      for (int k = 0; k < kSize; ++k) sum = fmaf(x[k], other.x[k], sum);
      return sum;
    }
    // Over the groups of a warp, which then hold the same.
    __device__ __forceinline__ void sum_groups() {
#pragma unroll
      for (int k = 0; k < kSize; ++k)
#pragma unroll
        for (int mask = Lanes; mask < 32; mask *= 2) x[k] += __shfl_xor_sync(kAllLanes, x[k], mask);
    }
    // To a contiguous float32 row of d columns; by one group of a warp.
    __device__ __forceinline__ void store(float* row, int d) const {
      if (threadIdx.x % 32 >= Lanes) return;
#pragma unroll
      for (int c = 0; c < Chunks; ++c) {
        const float* from = x + c * kElements;
        float* to = row + column(c);
#pragma unroll
        for (int k = 0; k < kElements; k += 4) {
          if (d % 4 == 0) {
            if (column(c) + k < d)
              *reinterpret_cast<float4*>(to + k) =
                  make_float4(from[k], from[k + 1], from[k + 2], from[k + 3]);
          } else {
#pragma unroll
            for (int i = k; i < k + 4; ++i)
              if (column(c) + i < d) to[i] = from[i];
          }
        }
      }
    }
    __device__ __forceinline__ void load(const float* row, int d) {
#pragma unroll
      for (int c = 0; c < Chunks; ++c)
#pragma unroll
        for (int k = 0; k < kElements; ++k)
          x[c * kElements + k] = column(c) + k < d ? row[column(c) + k] : 0;
    }
  };

  __device__ __forceinline__ static int column(int c) {
    const int slice = Sliced ? static_cast<int>(threadIdx.x) / 32 * kColumns : 0;
    return slice + (c * Lanes + static_cast<int>(threadIdx.x) % Lanes) * kElements;
  }

  // A row has a warp, of `Warps` in a block, or a block where columns are sliced.
  static constexpr int max_threads(int warps) { return 32 * (Sliced ? kMaxSlices : warps); }
  static unsigned block(int warps, int64_t d) {
    return 32 * static_cast<unsigned>(Sliced ? (d + kColumns - 1) / kColumns : warps);
  }
  static unsigned grid(int warps, int64_t rows) {
    return static_cast<unsigned>(Sliced ? rows : (rows + warps - 1) / warps);
  }
  template <int Warps>
  __device__ __forceinline__ static int64_t owner() {
    return Sliced ? blockIdx.x : static_cast<int64_t>(blockIdx.x) * Warps + threadIdx.x / 32;
  }
  // One lane of those that own a row.
  __device__ __forceinline__ static bool writes() {
    return threadIdx.x % (Sliced ? 1024 : 32) == 0;
  }

  // What each lane holds, summed over the warps that hold slices; for all warps at once.
  __device__ __forceinline__ static float sum_slices(float x) {
    if constexpr (Sliced) {
      __shared__ float part[kMaxSlices][32];
      __syncthreads();  // the last sum has been read
      part[threadIdx.x / 32][threadIdx.x % 32] = x;
      __syncthreads();
      x = 0;
      for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) x += part[warp][threadIdx.x % 32];
    }
    return x;
  }
  __device__ __forceinline__ static float max_slices(float x) {
    if constexpr (Sliced) {
      __shared__ float part[kMaxSlices][32];
      __syncthreads();
      part[threadIdx.x / 32][threadIdx.x % 32] = x;
      __syncthreads();
      for (unsigned warp = 0; warp < blockDim.x / 32; ++warp)
        x = fmaxf(x, part[warp][threadIdx.x % 32]);
    }
    return x;
  }
  // Over the row: its lanes, and its slices.
  __device__ __forceinline__ static float sum(float x) { return sum_slices(sum_lanes<Lanes>(x)); }
  __device__ __forceinline__ static float max(float x) { return max_slices(max_lanes<Lanes>(x)); }
};

// The unit row is (x * scale) * inverse: scale is a power of two, 1 but for rows whose square sum
// leaves float32's range. A zero row has inverse 0; one that is not finite has no direction: NaN.
struct UnitScale {
  float scale, inverse;
  __device__ float inverse_norm() const { return fminf(scale * inverse, 3.402823466e38f); }
};

__device__ __forceinline__ bool is_safe_square(float square) {
  return square >= 0x1p-80f && square <= 0x1p80f;
}

// For a row whose square sum is not safe: brings its largest entry near 1.
__device__ __forceinline__ float rescue_scale(float largest) {
  const int exponent = static_cast<int>(__float_as_uint(largest) >> 23);  // biased
  return __uint_as_float(static_cast<unsigned>(::max(254 - exponent, 1)) << 23);
}

// Of a row that is as safe as it gets: the square is infinite because an entry is.
__device__ __forceinline__ float inverse_length(float square) {
  if (square == 0) return 0;
  return isinf(square) ? __int_as_float(0x7fffffff) : rsqrtf(square);
}

// square: the row's square sum; largest(): of its entries; square_of(scale): the square sum of the
// row times scale. The functions are called where the square is not safe, by all lanes alike.
template <class Largest, class Square>
__device__ __forceinline__ UnitScale unit_scale(float square, Largest largest, Square square_of) {
  float scale = 1;
  if (!is_safe_square(square) && !isnan(square)) {
    scale = rescue_scale(largest());
    square = square_of(scale);
  }
  return {scale, inverse_length(square)};
}

// Of a row that a group holds, the same row in all groups of a warp; multiplies the row by scale.
template <class Shape>
__device__ __forceinline__ UnitScale make_unit(const typename Shape::Reader& reader,
                                               typename Shape::Row& row, float square) {
  return unit_scale(
      square, [&] { return Shape::max(row.largest()); },
      [&](float scale) {
        row.multiply(scale);
        return Shape::sum(reader.square(row));
      });
}

}  // namespace adaptau::cuda
