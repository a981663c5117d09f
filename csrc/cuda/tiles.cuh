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
// chunks. Neighbouring threads copy neighbouring chunks.
template <class S, int kCount>
__device__ __forceinline__ void load_tile(unsigned char* tile, const TileRows& rows, int first) {
  constexpr int kAcross = S::kThreads < S::kChunks ? S::kThreads : S::kChunks;
  constexpr int kDown = S::kThreads / kAcross;  // rows at once
  static_assert(kCount % kDown == 0 && S::kChunks % kAcross == 0);
  const int row = static_cast<int>(threadIdx.x) / kAcross;
  const int chunk = static_cast<int>(threadIdx.x) % kAcross;
#pragma unroll
  for (int c = 0; c < S::kChunks; c += kAcross) {
    const char* source = static_cast<const char*>(rows.data) +
                         int64_t{first + row} * rows.row_bytes + (chunk + c) * 16;
    const int rows_left = chunk + c < rows.chunks ? rows.count - first - row : 0;
#pragma unroll 4
    for (int r = 0; r < kCount; r += kDown) {
      copy_async(tile + chunk_offset<S>(row + r, chunk + c), source, r < rows_left);
      source += kDown * rows.row_bytes;
    }
  }
}

// Where a lane finds its chunk of a row's first step of 32 bytes: the first or second half. Tiles
// start at multiples of 128 bytes.
template <class S>
__device__ __forceinline__ uint32_t half_step_address(const unsigned char* tile, int row,
                                                      int half) {
  return shared_address(tile) + chunk_offset<S>(row, half);
}
// The same of a later step: chunk numbers are swizzled by eights, which are 128 bytes.
__device__ __forceinline__ uint32_t at_step(uint32_t half_step_address, int step) {
  return (half_step_address ^ step % 4 * 32) + step / 4 * 128;
}

// Of how many steps the row fragments can stay in registers, beside a tile's scores and `kOthers`
// other registers of a lane. Exact float32 needs them for the parts of its factors.
template <class S, int kOthers>
constexpr int kept_steps() {
  if (std::is_same_v<typename S::Type, F32>) return 0;
  const int free = 200 - S::kHeight * S::kColumnTiles * 4 - kOthers;
  const int kept = free / (4 * S::kHeight);
  if (kept >= S::kSteps) return S::kSteps;
  return S::kSteps - kept <= 8 ? kept : kept / 8 * 8;  // the others in a loop, eight at once
}

// The warp's rows as left factors: the first kKept steps from registers, the others from the tile
// each time.
template <class S, int kKept>
struct RowFragments {
  uint32_t address;
  FragmentA kept[S::kHeight][kKept == 0 ? 1 : kKept];

  __device__ __forceinline__ RowFragments(const unsigned char* tile, int first_row) {
    const int lane = threadIdx.x % 32;
    address = half_step_address<S>(tile, first_row + lane % 16, lane / 16);
  }
  // Once the tile has arrived.
  __device__ __forceinline__ void load() {
#pragma unroll
    for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
      for (int step = 0; step < kKept; ++step) kept[m][step] = read(m, step);
  }
  __device__ __forceinline__ FragmentA operator()(int m, int step) const {
    return step < kKept ? kept[m][step] : read(m, step);
  }

 private:
  __device__ __forceinline__ FragmentA read(int m, int step) const {
    FragmentA a;
    load_matrices(a.x, at_step(address, step) + m * 16 * S::kRowBytes);
    return a;
  }
};

// A warp's part of the scores: kHeight times 16 rows, all columns of the tile.
template <class S>
using Scores = float[S::kHeight][S::kColumnTiles][4];

// scores = rows . columns, each sum in the order of its elements.
template <class S, int kKept>
__device__ __forceinline__ void multiply_rows(const RowFragments<S, kKept>& rows,
                                              const unsigned char* columns, Scores<S>& scores) {
  const int lane = threadIdx.x % 32;
  const uint32_t address = half_step_address<S>(columns, lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
  for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
    for (int n = 0; n < S::kColumnTiles; ++n)
      for (int e = 0; e < 4; ++e) scores[m][n][e] = 0;
  auto multiply = [&](int step) {
    FragmentA a[S::kHeight];
#pragma unroll
    for (int m = 0; m < S::kHeight; ++m) a[m] = rows(m, step);
#pragma unroll
    for (int n = 0; n < S::kColumnTiles; n += 2) {
      uint32_t x[4];
      load_matrices(x, at_step(address, step) + n * 8 * S::kRowBytes);
      const FragmentB b0{{x[0], x[1]}}, b1{{x[2], x[3]}};
#pragma unroll
      for (int m = 0; m < S::kHeight; ++m) {
        S::Type::multiply(scores[m][n], a[m], b0);
        S::Type::multiply(scores[m][n + 1], a[m], b1);
      }
    }
  };
#pragma unroll
  for (int step = 0; step < kKept; ++step) multiply(step);
#pragma unroll 8  // more loads in flight than registers hold, otherwise
  for (int step = kKept; step < S::kSteps; ++step) multiply(step);
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
    const uint32_t address = half_step_address<S>(columns, lane % 16, lane / 16);
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
        load_matrices_transposed(x, at_step(address, d / 2) + n * 8 * S::kRowBytes);
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
    const uint32_t even = half_step_address<S>(columns, 2 * t, g / 4) + g % 4 * 4;
    const uint32_t odd = half_step_address<S>(columns, 2 * t + 1, g / 4) + g % 4 * 4;
#pragma unroll
    for (int n = 0; n < S::kColumnTiles; ++n) {
      FragmentA a[S::kHeight];
#pragma unroll
      for (int m = 0; m < S::kHeight; ++m) {
        const float (&w)[4] = weights[m][n];
        a[m] = {{__float_as_uint(w[0]), __float_as_uint(w[2]), __float_as_uint(w[1]),
                 __float_as_uint(w[3])}};
      }
#pragma unroll
      for (int d = 0; d < S::kSums / 8; ++d) {
        const FragmentB b{{load_shared(at_step(even, d) + n * 8 * S::kRowBytes),
                           load_shared(at_step(odd, d) + n * 8 * S::kRowBytes)}};
#pragma unroll
        for (int m = 0; m < S::kHeight; ++m) S::Type::multiply(sums[m][d], a[m], b);
      }
    }
  }
}

}  // namespace adaptau::cuda
