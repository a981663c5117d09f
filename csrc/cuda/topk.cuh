// Exact top-k without scores in memory: a product of tiles, and a list a row.
//
// A block walks over one part of the items. A score that beats its row's threshold joins the row's
// list; a list about to be full is cut to its k best and the threshold raised, all by the warp that
// owns the row. Items come by ascending id, so an equal score never displaces one that is there.
// Lists end up in any order; the keys in them do not depend on it.
#pragma once

#include "order.cuh"
#include "selection.cuh"
#include "tile_walk.cuh"
#include "topk.h"

namespace adaptau::cuda {

template <class S>
using TopkWalk = TileWalk<S, true, float, 0>;

template <class S>
constexpr int kTopkBytes = TopkWalk<S>::kBytes + S::kRows * 4;

// What a lane knows of its rows: a candidate must reach the bound. The score of the key below it
// decides in one comparison; NaN lets every score through.
template <class S>
struct RowBounds {
  float scale[S::kHeight][2], threshold[S::kHeight][2];
  CandidateKey bound[S::kHeight][2];

  __device__ RowBounds(const TopkLists& p, int first_row) {
#pragma unroll
    for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = first_row + 16 * m + 8 * h + static_cast<int>(threadIdx.x) % 32 / 4;
        scale[m][h] = row < p.tables.rows.count ? p.user_scale[row] : 1;
        threshold[m][h] = __int_as_float(0x7fffffff);
        bound[m][h] = 0;
      }
  }
  __device__ void raise(int row, CandidateKey to) {
#pragma unroll
    for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h)
        if (row == 16 * m + 8 * h + static_cast<int>(threadIdx.x) % 32 / 4) {
          bound[m][h] = to;
          threshold[m][h] = key_score(to - 1);
        }
  }
};

template <class S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks) topk_lists_kernel(const TopkLists p) {
  extern __shared__ __align__(128) unsigned char memory[];
  using Walk = TopkWalk<S>;
  const int block_row = static_cast<int>(blockIdx.x) * S::kRows;
  const int lane = threadIdx.x % 32, warp_row = Walk::warp_row();
  const int first_row = block_row + warp_row, split = static_cast<int>(blockIdx.y);
  int* counts = reinterpret_cast<int*>(memory + Walk::kBytes) + warp_row;  // of the warp's lists
  if (lane < 16 * S::kHeight) counts[lane] = 0;
  const bool has_row = lane < 16 * S::kHeight && first_row + lane < p.tables.rows.count;
  RowBounds<S> rows(p, first_row);
  auto list = [&](int row) {
    return p.keys + (int64_t{first_row + row} * p.splits + split) * p.capacity;
  };

  Walk walk(p.tables, memory, block_row, split, p.splits);
  walk.run([&](Scores<S>& scores, int first_column, int columns_left, const unsigned char*,
               const float* item_scales, const typename Walk::Masks& masks) {
    const int g = lane / 4, t2 = lane % 4 * 2;
    // scores proper, and whether any of a row's may pass
    bool passes[S::kHeight][2] = {};
#pragma unroll
    for (int n = 0; n < S::kColumnTiles; ++n)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float item_scale = item_scales[n * 8 + t2 + e];
#pragma unroll
        for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            float& score = scores[m][n][2 * h + e];
            score = score * item_scale * rows.scale[m][h];
            passes[m][h] |= !(score <= rows.threshold[m][h]);
          }
      }
    bool offered = false;
#pragma unroll
    for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = 16 * m + 8 * h + g;
        const float threshold = rows.threshold[m][h];
        bool any = passes[m][h];
        any &= first_row + row < p.tables.rows.count;
        if (!__any_sync(~0u, any)) continue;
        offered = true;
        uint32_t hidden[Walk::Masks::kWords];
#pragma unroll
        for (int w = 0; w < Walk::Masks::kWords; ++w)
          hidden[w] = masks.any() ? masks.word(warp_row + row, w) : 0;
#pragma unroll
        for (int n = 0; n < S::kColumnTiles; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const float score = scores[m][n][2 * h + e];
            const int column = n * 8 + t2 + e;
            if (!any || score <= threshold || column >= columns_left ||
                hidden[n / 4] >> (column % 32) & 1)
              continue;
            const CandidateKey key = candidate_key(score, first_column + column);
            if (key >= rows.bound[m][h]) list(row)[atomicAdd(counts + row, 1)] = key;
          }
      }
    if (!offered) return;
    __syncwarp();  // the lists are whole
    const bool full = has_row && counts[lane] > p.capacity - S::kColumns;
    for (unsigned left = __ballot_sync(~0u, full); left != 0; left &= left - 1) {
      const int row = __ffs(static_cast<int>(left)) - 1;
      rows.raise(row, keep_best(list(row), counts[row], p.k));
      __syncwarp();  // counted by all before it changes
      if (lane == 0) counts[row] = p.k;
    }
    __syncwarp();  // counts are those of the lists
  });
  if (has_row) p.counts[int64_t{first_row + lane} * p.splits + split] = counts[lane];
}

template <class S>
cudaError_t launch_topk_lists(const TopkLists& p, cudaStream_t stream) {
  const cudaError_t error = cudaFuncSetAttribute(
      topk_lists_kernel<S>, cudaFuncAttributeMaxDynamicSharedMemorySize, kTopkBytes<S>);
  if (error != cudaSuccess) return error;
  const dim3 grid(static_cast<unsigned>((p.tables.rows.count + S::kRows - 1) / S::kRows),
                  static_cast<unsigned>(p.splits));
  topk_lists_kernel<S><<<grid, S::kThreads, kTopkBytes<S>, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace adaptau::cuda
