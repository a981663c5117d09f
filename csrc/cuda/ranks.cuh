// Exact ranks by counting: a product of tiles, and every score compared with its row's targets.
//
// Targets are scored first, by the same tensor-core instructions in the same order, so that an
// item's own score and its twin's compare equal. Then a block walks over its part of the items once
// for every few targets of its longest row, with their counts in registers. An item before the
// target by id must reach its score, one after it exceed it: that is one comparison with a limit
// for the tiles on either side. In the target's own tile, and for targets that are NaN, the order
// is followed item by item.
#pragma once

#include <cassert>
#include <climits>

#include "order.cuh"
#include "ranks.h"
#include "tile_walk.cuh"

namespace adaptau::cuda {

template <class S>
constexpr int kTargetsAtOnce = 8 / S::kHeight;

template <class S>
using RanksWalk = TileWalk<S, true, float, 6 * kTargetsAtOnce<S> * S::kHeight>;

// 8 pairs of a user and a target a warp: the diagonal of a product of their rows.
template <class S>
__global__ void __launch_bounds__(128) target_scores_kernel(const RankCounts p) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * 128 + threadIdx.x) / 32 * 8;
  if (first >= p.n_targets) return;
  const int64_t pair = first + g;
  if (t == 0 && pair < p.n_targets && p.ranks != nullptr) p.ranks[pair] = 1;
  if (p.scored == nullptr) return;
  int64_t user = 0, item = 0;
  if (pair < p.n_targets) {
    int64_t users = p.tables.rows.count;  // the last whose list starts at or before the pair
    for (int64_t low = 0, high = users; low < high;) {
      const int64_t middle = (low + high) / 2;
      if (p.targets.indptr[middle + 1] <= pair) {
        low = middle + 1;
      } else {
        high = middle;
      }
      user = low;
    }
    assert(user < users && "targets indptr must end at the number of indices");
    item = p.targets.indices[pair];
    assert(item >= 0 && item < p.tables.columns.count && "targets must hold items");
  }
  const char* user_row =
      static_cast<const char*>(p.tables.rows.data) + user * p.tables.rows.row_bytes;
  const char* item_row =
      static_cast<const char*>(p.tables.columns.data) + item * p.tables.columns.row_bytes;
  auto word = [&](const char* row, const TileRows& rows, int chunk) {
    return chunk < rows.chunks && pair < p.n_targets
               ? *reinterpret_cast<const uint32_t*>(row + chunk * 16 + t * 4)
               : 0;
  };
  float c[4] = {};
  for (int step = 0; step < S::kSteps; ++step) {
    FragmentA a{{word(user_row, p.tables.rows, 2 * step), 0,
                 word(user_row, p.tables.rows, 2 * step + 1), 0}};
    FragmentB b{{word(item_row, p.tables.columns, 2 * step),
                 word(item_row, p.tables.columns, 2 * step + 1)}};
    S::Type::multiply(c, a, b);
  }
  if (t == g / 2 && pair < p.n_targets)
    p.scored[pair] = (g % 2 == 0 ? c[0] : c[1]) * p.item_scale[item] * p.user_scale[user];
}

// The smallest score above; NaN above infinity and of NaN.
__device__ __forceinline__ float next_above(float score) {
  if (isnan(score)) return score;
  const int bits = __float_as_int(score + 0.0f);  // -0 -> +0
  return __int_as_float(bits >= 0 ? bits + 1 : bits - 1);
}

// A few targets of one of a lane's rows, and how many items before each the lane has met.
template <class S>
struct RowTargets {
  static constexpr int kNone = INT_MIN;
  float
      limit[kTargetsAtOnce<S>];  // to be reached in the tiles to come; NaN if that does not decide
  int item[kTargetsAtOnce<S>];   // kNone: none; negative: of an earlier part of the catalogue
  int before[kTargetsAtOnce<S>];

  RowTargets() = default;
  __device__ RowTargets(const RankCounts& p, int64_t begin, int count, int first_column) {
#pragma unroll
    for (int j = 0; j < kTargetsAtOnce<S>; ++j) {
      const bool there = j < count;
      limit[j] = there ? p.target_scores[begin + j] : INFINITY;
      item[j] = there ? static_cast<int>(p.targets.indices[begin + j] - p.first_item) : kNone;
      if (there && item[j] < first_column) limit[j] = next_above(limit[j]);
      before[j] = 0;
    }
  }
  // NaN also in the target's own tile.
  __device__ float limit_in(int j, int first_column) const {
    const auto column = static_cast<unsigned>(item[j] - first_column);
    return column < S::kColumns ? __int_as_float(0x7fc00000) : limit[j];
  }
};

template <class S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks) count_before_kernel(const RankCounts p) {
  extern __shared__ __align__(128) unsigned char memory[];
  using Walk = RanksWalk<S>;
  const int block_row = static_cast<int>(blockIdx.x) * S::kRows;
  const int lane = threadIdx.x % 32, g = lane / 4, t2 = lane % 4 * 2;
  const int warp_row = Walk::warp_row();

  // This lane's rows, from user `first` on, every eighth.
  const int64_t users = p.tables.rows.count, first = block_row + warp_row + g;
  auto begin = [&](int m, int h) { return p.targets.indptr[min(first + 16 * m + 8 * h, users)]; };
  auto end = [&](int m, int h) { return p.targets.indptr[min(first + 16 * m + 8 * h + 1, users)]; };
  float scale[S::kHeight][2];
  int64_t longest = 0;
#pragma unroll
  for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int64_t user = first + 16 * m + 8 * h;
      scale[m][h] = user < users ? p.user_scale[user] : 1;
      longest = max(longest, end(m, h) - begin(m, h));
    }

  for (int64_t done = 0; __syncthreads_or(done < longest); done += kTargetsAtOnce<S>) {
    Walk walk(p.tables, memory, block_row, static_cast<int>(blockIdx.y), p.splits);
    RowTargets<S> targets[S::kHeight][2] = {};
#pragma unroll
    for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int64_t from = begin(m, h) + done;
        targets[m][h] = {p, from, static_cast<int>(max(end(m, h) - from, int64_t{0})),
                         walk.first_column()};
      }
    walk.run([&](Scores<S>& scores, int first_column, int columns_left, const unsigned char*,
                 const float* item_scales, const typename Walk::Masks& masks) {
#pragma unroll
      for (int n = 0; n < S::kColumnTiles; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const float item_scale = item_scales[n * 8 + t2 + e];
#pragma unroll
          for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
            for (int h = 0; h < 2; ++h)
              scores[m][n][2 * h + e] = scores[m][n][2 * h + e] * item_scale * scale[m][h];
        }
      hide_masked<S>(masks, warp_row, columns_left, __int_as_float(0x7fc00000), scores);
      bool undecided = false;
#pragma unroll
      for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h)
#pragma unroll
          for (int j = 0; j < kTargetsAtOnce<S>; ++j) {
            const float limit = targets[m][h].limit_in(j, first_column);
            undecided |= isnan(limit);
            float reached = 0;  // in float32: counting there takes half as long
#pragma unroll
            for (int n = 0; n < S::kColumnTiles; ++n)
#pragma unroll
              for (int e = 0; e < 2; ++e) reached += scores[m][n][2 * h + e] >= limit ? 1.0f : 0.0f;
            targets[m][h].before[j] += static_cast<int>(reached);
          }
      if (!undecided) return;
#pragma unroll
      for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h)
#pragma unroll
          for (int j = 0; j < kTargetsAtOnce<S>; ++j) {
            RowTargets<S>& row = targets[m][h];
            if (!isnan(row.limit_in(j, first_column))) continue;
            const float own = p.target_scores[begin(m, h) + done + j];
            const uint32_t target = score_bits(own);
#pragma unroll
            for (int n = 0; n < S::kColumnTiles; ++n)
#pragma unroll
              for (int e = 0; e < 2; ++e) {
                const int column = n * 8 + t2 + e;
                const uint32_t score = score_bits(scores[m][n][2 * h + e]);
                const bool hidden =
                    column >= columns_left ||
                    (masks.any() &&
                     masks.word(warp_row + 16 * m + 8 * h + g, column / 32) >> (column % 32) & 1);
                row.before[j] +=
                    !hidden &&
                    (score > target || (score == target && first_column + column < row.item[j]));
              }
            if (row.item[j] >= first_column && row.item[j] < first_column + S::kColumns)
              row.limit[j] = next_above(own);
          }
    });
#pragma unroll
    for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h)
#pragma unroll
        for (int j = 0; j < kTargetsAtOnce<S>; ++j) {
          int before = targets[m][h].before[j];
          before += __shfl_xor_sync(~0u, before, 1);
          before += __shfl_xor_sync(~0u, before, 2);
          if (lane % 4 == 0 && targets[m][h].item[j] != RowTargets<S>::kNone)
            atomicAdd(reinterpret_cast<unsigned long long*>(p.ranks + begin(m, h) + done + j),
                      static_cast<unsigned long long>(before));
        }
  }
}

template <class S>
cudaError_t launch_target_scores(const RankCounts& p, cudaStream_t stream) {
  const int64_t blocks = (p.n_targets + 31) / 32;
  target_scores_kernel<S><<<static_cast<unsigned>(blocks), 128, 0, stream>>>(p);
  return cudaGetLastError();
}

template <class S>
cudaError_t launch_count_before(const RankCounts& p, cudaStream_t stream) {
  constexpr int kBytes = RanksWalk<S>::kBytes;
  const cudaError_t error = cudaFuncSetAttribute(
      count_before_kernel<S>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  const dim3 grid(static_cast<unsigned>((p.tables.rows.count + S::kRows - 1) / S::kRows),
                  static_cast<unsigned>(p.splits));
  count_before_kernel<S><<<grid, S::kThreads, kBytes, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace adaptau::cuda
