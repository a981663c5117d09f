// The kernel of weighted_sums.h.
#pragma once

#include "exp2.cuh"
#include "tile_walk.cuh"
#include "weighted_sums.h"

namespace adaptau::cuda {

// A row's place in a running sum of exponentials: moved when x exceeds it by more than 8. Returns
// the factor for what was summed up before.
__device__ __forceinline__ float raise(float& max, float x) {
  const float before = max;
  if (!(x > max + 8)) return 1;
  max = x;
  return exp2_approx(before - x);
}

__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

// In registers: sums, and what RowState and weigh() hold of each 16 rows. With less set aside for
// users, whose state has unit sums too, ptxas spills.
template <class S, bool kUsersAreRows>
constexpr int kHeld = S::kHeight * (S::kSums / 2 + (kUsersAreRows ? 24 : 12));

template <class S, bool kUsersAreRows>
using WeightedSumsWalk = TileWalk<S, kUsersAreRows, Column, kHeld<S, kUsersAreRows>>;

template <class S>
constexpr int kWeightedSumsBytes = WeightedSumsWalk<S, true>::kBytes + S::kRows * 4;

// What a lane knows of its rows; their scales lie in shared memory.
template <class S>
struct RowState {
  const float* scale;  // of the lane's first row
  float max[S::kHeight][2], total[S::kHeight][2];
  float unit_max[S::kHeight][2], unit_total[S::kHeight][2];

  explicit __device__ RowState(const float* scale) : scale(scale) {
#pragma unroll
    for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        max[m][h] = unit_max[m][h] = -INFINITY;
        total[m][h] = unit_total[m][h] = 0;
      }
  }
};

// Adds exp2(score scale_c unit_scale_r) to the rows' unit totals.
template <class S>
__device__ __forceinline__ void add_units(const Column* mine, const WeightedSums& p,
                                          const Scores<S>& scores, RowState<S>& state) {
  // computed anew: kept over the walk, it would take a register that the products need
  const int row = static_cast<int>(blockIdx.x) * S::kRows + WeightedSumsWalk<S, true>::warp_row() +
                  static_cast<int>(threadIdx.x) % 32 / 4;
#pragma unroll
  for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float unit_scale = p.unit_scale[min(row + 16 * m + 8 * h, p.tables.rows.count - 1)];
      auto unit = [&](int n, int e) {
        return scores[m][n][2 * h + e] * mine[n * 8 + e].scale * unit_scale;
      };
      float top = -INFINITY;
#pragma unroll
      for (int n = 0; n < S::kColumnTiles; ++n) top = fmaxf(top, fmaxf(unit(n, 0), unit(n, 1)));
      float& max = state.unit_max[m][h];
      state.unit_total[m][h] *= raise(max, quad_max(top));
      const float from = max == -INFINITY ? 0 : max;
#pragma unroll
      for (int n = 0; n < S::kColumnTiles; ++n)
        state.unit_total[m][h] += exp2_approx(unit(n, 0) - from) + exp2_approx(unit(n, 1) - from);
    }
}

// Scores -> weights, in place; totals and, when the maximum moves, sums are brought along.
template <class S, bool kUsersAreRows>
__device__ __forceinline__ void weigh(const Column* columns, const WeightedSums& p,
                                      Scores<S>& scores, RowState<S>& state, Sums<S>& sums) {
  const Column* mine = columns + threadIdx.x % 4 * 2;
  if (kUsersAreRows && p.unit_scale != nullptr) add_units<S>(mine, p, scores, state);

  // Columns outside, rows inside: a column's parameters are in registers for as long as needed.
  float top[S::kHeight][2], scale[S::kHeight][2];
#pragma unroll
  for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      top[m][h] = -INFINITY;
      scale[m][h] = state.scale[16 * m + 8 * h];
    }
#pragma unroll
  for (int n = 0; n < S::kColumnTiles; ++n)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const float column_scale = mine[n * 8 + e].scale, bias = mine[n * 8 + e].bias;
#pragma unroll
      for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          float& score = scores[m][n][2 * h + e];
          score = fmaf(score * column_scale, scale[m][h], bias);
          top[m][h] = fmaxf(top[m][h], score);
        }
    }

  bool higher = false;
#pragma unroll
  for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      top[m][h] = quad_max(top[m][h]);
      higher |= top[m][h] > state.max[m][h] + 8;
    }
  if (__any_sync(~0u, higher)) {
#pragma unroll
    for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float factor = raise(state.max[m][h], top[m][h]);
        state.total[m][h] *= factor;
#pragma unroll
        for (int d = 0; d < S::kSums / 8; ++d)
#pragma unroll
          for (int e = 0; e < 2; ++e) sums[m][d][2 * h + e] *= factor;
      }
  }

#pragma unroll
  for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float from = state.max[m][h] == -INFINITY ? 0 : state.max[m][h];
#pragma unroll
      for (int n = 0; n < S::kColumnTiles; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& weight = scores[m][n][2 * h + e];
          weight = exp2_approx(weight - from);
        }
    }
#pragma unroll
  for (int n = 0; n < S::kColumnTiles; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e)
#pragma unroll
      for (int m = 0; m < S::kHeight; ++m)
        state.total[m][e / 2] =
            fmaf(scores[m][n][e], mine[n * 8 + e % 2].value, state.total[m][e / 2]);

  if (!kUsersAreRows) {  // hardly ever: a gradient of a loss is seldom negative
    bool negative = false;
    for (int c = threadIdx.x % 32; c < S::kColumns; c += 32) negative |= columns[c].value < 0;
    if (__any_sync(~0u, negative)) {
#pragma unroll
      for (int n = 0; n < S::kColumnTiles; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e)
#pragma unroll
          for (int m = 0; m < S::kHeight; ++m)
            if (mine[n * 8 + e % 2].value < 0) scores[m][n][e] = -scores[m][n][e];
    }
  }
}

// The warp's sums and totals, to where they belong.
template <class S>
__device__ __forceinline__ void store_sums(const WeightedSums& p, int first_row, int split,
                                           int first_d, const RowState<S>& state,
                                           const Sums<S>& sums) {
  const int lane = threadIdx.x % 32, g = lane / 4, t2 = lane % 4 * 2;
  float* out = split == 0 ? p.sums : p.more_sums + int64_t{split - 1} * p.tables.rows.count * p.d;
#pragma unroll
  for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = first_row + 16 * m + 8 * h + g;
      const float total = quad_sum(state.total[m][h]);
      const float unit_total = quad_sum(state.unit_total[m][h]);
      if (row >= p.tables.rows.count) continue;
      if (lane % 4 == 0 && first_d == 0)
        p.row_sums[int64_t{split} * p.tables.rows.count + row] = {state.max[m][h], total,
                                                                  state.unit_max[m][h], unit_total};
      if (p.sums == nullptr) continue;
#pragma unroll
      for (int n = 0; n < S::kSums / 8; ++n) {
        const int d = first_d + n * 8 + t2;
        float* at = out + int64_t{row} * p.d + d;
        const float low = sums[m][n][2 * h], high = sums[m][n][2 * h + 1];
        if (p.d % 2 == 0) {
          if (d < p.d) *reinterpret_cast<float2*>(at) = make_float2(low, high);
        } else {
          if (d < p.d) at[0] = low;
          if (d + 1 < p.d) at[1] = high;
        }
      }
    }
}

template <class S, bool kUsersAreRows>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks)
    weighted_sums_kernel(const WeightedSums p) {
  extern __shared__ __align__(128) unsigned char memory[];
  using Walk = WeightedSumsWalk<S, kUsersAreRows>;
  float* row_scales = reinterpret_cast<float*>(memory + Walk::kBytes);
  const int block_row = static_cast<int>(blockIdx.x) * S::kRows;
  const int warp_row = Walk::warp_row(), split = static_cast<int>(blockIdx.y);
  const int first_d = static_cast<int>(blockIdx.z) * S::kSums;
  // read after the walk's first barrier
  for (int r = threadIdx.x; r < S::kRows; r += S::kThreads)
    row_scales[r] = block_row + r < p.tables.rows.count ? p.row_scale[block_row + r] : 1;

  RowState<S> state(row_scales + warp_row + static_cast<int>(threadIdx.x) % 32 / 4);
  Sums<S> sums = {};
  Walk walk(p.tables, memory, block_row, split, p.splits);
  walk.run([&](Scores<S>& scores, int, int columns_left, const unsigned char* tile,
               const Column* columns, const typename Walk::Masks& masks) {
    hide_masked<S>(masks, warp_row, columns_left, -INFINITY, scores);
    weigh<S, kUsersAreRows>(columns, p, scores, state, sums);
    if (p.sums != nullptr)
      accumulate_columns<S>(scores, tile + first_d * (S::kRowBytes / S::D), sums);
  });
  store_sums<S>(p, block_row + warp_row, split, first_d, state, sums);
}

template <class S>
cudaError_t launch_weighted_sums(const WeightedSums& p, cudaStream_t stream) {
  const auto kernel =
      p.users_are_rows ? weighted_sums_kernel<S, true> : weighted_sums_kernel<S, false>;
  const cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kWeightedSumsBytes<S>);
  if (error != cudaSuccess) return error;
  const dim3 grid(
      static_cast<unsigned>((p.tables.rows.count + S::kRows - 1) / S::kRows),
      static_cast<unsigned>(p.splits),
      p.sums == nullptr || p.d == 0 ? 1 : static_cast<unsigned>((p.d + S::kSums - 1) / S::kSums));
  kernel<<<grid, S::kThreads, kWeightedSumsBytes<S>, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace adaptau::cuda
