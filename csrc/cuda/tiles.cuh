// Tiles of rows in shared memory, and the product of a row tile with a column tile.
//
// A block owns kRows rows of one table and walks over the rows of the other ("columns", because
// they are columns of the matrix of scores), kColumns at a time, through kStages buffers that
// cp.async fills ahead. A warp owns 16 kHeight rows, so that a fragment of columns read from shared
// memory is used kHeight times. Rows are D elements long, zero beyond the table's own d, and
// 16-byte chunk c of row r lies at chunk c ^ (r % 8): then neither the eight rows of an ldmatrix
// nor the scattered reads of a float32 column meet in a bank.
#pragma once

#include <cuda_runtime.h>

#include "mma.cuh"
#include "shapes.h"
#include "tile_rows.h"

namespace adaptau::cuda {

__device__ __forceinline__ void copy_async(void* shared, const void* global, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(there ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// All but the newest `kPending` groups of this thread have arrived.
template <int kPending>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Byte of a tile at which a chunk lies.
template <class S>
__device__ __forceinline__ int chunk_offset(int row, int chunk) {
  return row * S::kRowBytes + ((chunk ^ (row & 7)) << 4);
}

// Starts the copy of rows first .. first + kCount - 1; zeros beyond the table and beyond its
// chunks.
template <class S, int kCount>
__device__ __forceinline__ void load_tile(unsigned char* tile, const TileRows& rows, int first) {
  static_assert(kCount * S::kChunks % S::kThreads == 0);
#pragma unroll 4  // more would keep as many addresses in registers
  for (int n = 0; n < kCount * S::kChunks / S::kThreads; ++n) {
    const int at = n * S::kThreads + static_cast<int>(threadIdx.x);
    const int row = at / S::kChunks, chunk = at % S::kChunks;
    const bool there = first + row < rows.count && chunk < rows.chunks;
    const char* source = static_cast<const char*>(rows.data) +
                         (there ? int64_t{first + row} * rows.row_bytes + chunk * 16 : 0);
    copy_async(tile + chunk_offset<S>(row, chunk), source, there);
  }
}

// The warp's rows as left factors: from registers where they fit, else from the tile each time.
template <class S, bool kInRegisters = S::kRowsInRegisters>
struct RowFragments {
  uint32_t address;  // of the lane's row and half step
  int swizzle, half;

  __device__ __forceinline__ RowFragments(const unsigned char* tile, int first_row) {
    const int lane = threadIdx.x % 32, row = first_row + lane % 16;
    address = shared_address(tile) + row * S::kRowBytes;
    swizzle = row & 7;
    half = lane / 16;
  }
  __device__ __forceinline__ void load() {}  // once the tile has arrived
  __device__ __forceinline__ FragmentA operator()(int m, int step) const {
    FragmentA a;
    load_matrices(a.x, address + m * 16 * S::kRowBytes + (((2 * step + half) ^ swizzle) << 4));
    return a;
  }
};

template <class S>
struct RowFragments<S, true> {
  RowFragments<S, false> source;
  FragmentA kept[S::kHeight][S::kSteps];

  __device__ __forceinline__ RowFragments(const unsigned char* tile, int first_row)
      : source(tile, first_row) {}
  __device__ __forceinline__ void load() {
#pragma unroll
    for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
      for (int step = 0; step < S::kSteps; ++step) kept[m][step] = source(m, step);
  }
  __device__ __forceinline__ FragmentA operator()(int m, int step) const { return kept[m][step]; }
};

// A warp's part of the scores: kHeight times 16 rows, all columns of the tile.
template <class S>
using Scores = float[S::kHeight][S::kColumnTiles][4];

// scores = rows . columns, each sum in the order of its elements.
template <class S>
__device__ __forceinline__ void multiply_rows(const RowFragments<S>& rows,
                                              const unsigned char* columns, Scores<S>& scores) {
  const int lane = threadIdx.x % 32;
  const int row = lane % 8 + lane / 16 * 8, half = lane / 8 % 2;
  const uint32_t address = shared_address(columns) + row * S::kRowBytes;
#pragma unroll
  for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
    for (int n = 0; n < S::kColumnTiles; ++n)
      for (int e = 0; e < 4; ++e) scores[m][n][e] = 0;
#pragma unroll 8  // more loads in flight than registers hold, otherwise
  for (int step = 0; step < S::kSteps; ++step) {
    FragmentA a[S::kHeight];
#pragma unroll
    for (int m = 0; m < S::kHeight; ++m) a[m] = rows(m, step);
#pragma unroll
    for (int n = 0; n < S::kColumnTiles; n += 2) {
      uint32_t x[4];
      load_matrices(x, address + n * 8 * S::kRowBytes + (((2 * step + half) ^ (row & 7)) << 4));
      const FragmentB b0{{x[0], x[1]}}, b1{{x[2], x[3]}};
#pragma unroll
      for (int m = 0; m < S::kHeight; ++m) {
        S::Type::multiply(scores[m][n], a[m], b0);
        S::Type::multiply(scores[m][n + 1], a[m], b1);
      }
    }
  }
}

// Sums over a tile's columns: kHeight times 16 rows of kSums elements.
template <class S>
using Sums = float[S::kHeight][S::kSums / 8][4];

// sums += weights . columns, with the weights where multiply_rows left the scores. `columns` points
// to the first of the kSums elements.
template <class S>
__device__ __forceinline__ void accumulate_columns(const Scores<S>& weights,
                                                   const unsigned char* columns, Sums<S>& sums) {
  const int lane = threadIdx.x % 32;
  if constexpr (kHalfWidth<typename S::Type>) {
    const int row = lane % 16, half = lane / 16;
    const uint32_t address = shared_address(columns) + row * S::kRowBytes;
#pragma unroll
    for (int n = 0; n < S::kColumnTiles; n += 2) {
      FragmentA a[S::kHeight];
#pragma unroll
      for (int m = 0; m < S::kHeight; ++m) {
        const float (&low)[4] = weights[m][n], (&high)[4] = weights[m][n + 1];
        a[m] = {{S::Type::pack(low[0], low[1]), S::Type::pack(low[2], low[3]),
                 S::Type::pack(high[0], high[1]), S::Type::pack(high[2], high[3])}};
      }
#pragma unroll
      for (int d = 0; d < S::kSums / 8; d += 2) {
        uint32_t x[4];
        load_matrices_transposed(x,
                                 address + n * 8 * S::kRowBytes + (((d + half) ^ (row & 7)) << 4));
        const FragmentB b0{{x[0], x[1]}}, b1{{x[2], x[3]}};
#pragma unroll
        for (int m = 0; m < S::kHeight; ++m) {
          S::Type::multiply(sums[m][d], a[m], b0);
          S::Type::multiply(sums[m][d + 1], a[m], b1);
        }
      }
    }
  } else {
    // Columns 2t and 2t + 1 of a lane stand for steps t and t + 4 of the product.
    const int t = lane % 4, g = lane / 4;
#pragma unroll
    for (int n = 0; n < S::kColumnTiles; ++n) {
      FragmentA a[S::kHeight];
#pragma unroll
      for (int m = 0; m < S::kHeight; ++m) {
        const float (&w)[4] = weights[m][n];
        a[m] = {{__float_as_uint(w[0]), __float_as_uint(w[2]), __float_as_uint(w[1]),
                 __float_as_uint(w[3])}};
      }
      const int even = n * 8 + 2 * t, odd = even + 1;
#pragma unroll
      for (int d = 0; d < S::kSums / 8; ++d) {
        const int chunk = d * 2 + g / 4, byte = g % 4 * 4;
        const FragmentB b{
            {*reinterpret_cast<const uint32_t*>(columns + chunk_offset<S>(even, chunk) + byte),
             *reinterpret_cast<const uint32_t*>(columns + chunk_offset<S>(odd, chunk) + byte)}};
#pragma unroll
        for (int m = 0; m < S::kHeight; ++m) S::Type::multiply(sums[m][d], a[m], b);
      }
    }
  }
}

}  // namespace adaptau::cuda
