// Which pairs of a user and a candidate do not count: positives, exclusions and duplicates.
//
// The pairs are kept in buckets, one for each 128 users x 128 candidates, so that both passes of
// the loss, top-k and ranks find those of a tile at once. An entry is one user and a range of
// candidates of the bucket. Walking over tiles, a block turns a tile's entries into bits while it
// works on the tile before, in one of three buffers: one in use, one being filled, one being
// cleared.
#pragma once

#include <cstdint>

#include "operators.h"

namespace adaptau::cuda {

__host__ __device__ inline uint32_t mask_entry(int user, int first, int last) {
  return static_cast<uint32_t>(user | first << 8 | last << 16);
}

template <class S, bool kUsersAreRows>
class TileMasks {
 public:
  static constexpr int kWords = (S::kColumns + 31) / 32;
  static constexpr int kBufferWords = S::kRows * kWords;
  static constexpr int kBytes = 3 * kBufferWords * 4;

  __device__ TileMasks(const MaskBuckets& buckets, uint32_t* bits, int first_row)
      : buckets_(buckets), bits_(bits), first_row_(first_row) {
    for (int w = threadIdx.x; w < 3 * kBufferWords; w += S::kThreads) bits_[w] = 0;
  }

  // Once before the first tile (after a barrier), then after each tile for the next one.
  __device__ void fill(int first_column, bool exists) {
    filled_ = false;
    if (!exists || buckets_.offsets == nullptr) return;
    const int column_bucket = first_column / kMaskTile;
#pragma unroll
    for (int n = 0; n < (S::kRows + kMaskTile - 1) / kMaskTile; ++n) {
      const int row_bucket = first_row_ / kMaskTile + n;
      if (row_bucket >= (kUsersAreRows ? buckets_.user_tiles : buckets_.item_tiles)) break;
      const int64_t bucket = kUsersAreRows ? column_bucket * buckets_.user_tiles + row_bucket
                                           : row_bucket * buckets_.user_tiles + column_bucket;
      const int begin = bucket == 0 ? 0 : buckets_.offsets[bucket - 1];
      const int end = buckets_.offsets[bucket];
      filled_ |= begin < end;
      const int row_shift = row_bucket * kMaskTile - first_row_;
      const int column_shift = column_bucket * kMaskTile - first_column;
      for (int e = begin + threadIdx.x; e < end; e += S::kThreads) {
        const uint32_t entry = buckets_.entries[e];
        const int user = entry & 255, first = entry >> 8 & 255, last = entry >> 16;
        if (kUsersAreRows) {
          for (int c = first; c < last; ++c) set(user + row_shift, c + column_shift);
        } else {
          for (int r = first; r < last; ++r) set(r + row_shift, user + column_shift);
        }
      }
    }
  }

  // Before the tile is looked at, after the barrier that follows fill().
  __device__ void next() {
    in_use_ = current();
    has_any_ = filled_;
    filling_ = filling_ == 2 ? 0 : filling_ + 1;
    uint32_t* cleared = bits_ + (filling_ == 2 ? 0 : filling_ + 1) * kBufferWords;
    for (int w = threadIdx.x; w < kBufferWords; w += S::kThreads) cleared[w] = 0;
  }

  __device__ bool any() const { return has_any_; }
  // Bits of a row of the block's tile; columns 32 word .. 32 word + 31.
  __device__ uint32_t word(int row, int word) const { return in_use_[row * kWords + word]; }

 private:
  __device__ uint32_t* current() const { return bits_ + filling_ * kBufferWords; }
  __device__ void set(int row, int column) {
    if (row >= 0 && row < S::kRows && column >= 0 && column < S::kColumns)
      atomicOr(current() + row * kWords + column / 32, 1u << (column % 32));
  }

  MaskBuckets buckets_;
  uint32_t *bits_, *in_use_ = nullptr;
  int first_row_;
  int filling_ = 0;
  bool filled_ = false, has_any_ = false;
};

// Sets the scores of a warp that do not count, by the tile's masks or beyond the last column.
template <class S, class Masks>
__device__ __forceinline__ void hide_masked(const Masks& masks, int warp_row, int columns_left,
                                            float hidden,
                                            float (&scores)[S::kHeight][S::kColumnTiles][4]) {
  const int lane = threadIdx.x % 32, t2 = lane % 4 * 2;
  if (columns_left < S::kColumns) {
#pragma unroll
    for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
      for (int n = 0; n < S::kColumnTiles; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          if (n * 8 + t2 + e % 2 >= columns_left) scores[m][n][e] = hidden;
  }
  if (!masks.any()) return;
#pragma unroll
  for (int m = 0; m < S::kHeight; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
      for (int w = 0; w < Masks::kWords; ++w) {
        const uint32_t bits = masks.word(warp_row + 16 * m + 8 * h + lane / 4, w);
        if (__any_sync(~0u, bits != 0)) {
#pragma unroll
          for (int n = 0; n < (S::kColumnTiles < 4 ? S::kColumnTiles : 4); ++n)
#pragma unroll
            for (int e = 0; e < 2; ++e)
              if (bits >> (n * 8 + t2 + e) & 1) scores[m][4 * w + n][2 * h + e] = hidden;
        }
      }
}

}  // namespace adaptau::cuda
