// A block's walk: its rows against one tile of columns after the other, loaded ahead.
#pragma once

#include "tile_masks.cuh"
#include "tiles.cuh"

namespace adaptau::cuda {

// kRegisters: what the visitor of a tile keeps in a lane's registers meanwhile.
template <class S, bool kUsersAreRows, class Parameter, int kRegisters>
class TileWalk {
 public:
  using Masks = TileMasks<S, kUsersAreRows>;
  static constexpr int kParameterBytes = S::kColumns * static_cast<int>(sizeof(Parameter));
  static constexpr int kBytes =
      S::kRowTileBytes + S::kStages * (S::kColumnTileBytes + kParameterBytes) + Masks::kBytes;
  static_assert(kParameterBytes % 16 == 0);

  // Walks over the columns of one of `splits` equal parts. memory: kBytes of shared memory.
  __device__ TileWalk(const WalkTables<Parameter>& tables, unsigned char* memory, int first_row,
                      int split, int splits)
      : tables_(tables),
        row_tile_(memory),
        column_tiles_(memory + S::kRowTileBytes),
        parameters_(column_tiles_ + S::kStages * S::kColumnTileBytes),
        first_row_(first_row),
        masks_(tables.masks,
               reinterpret_cast<uint32_t*>(parameters_ + S::kStages * kParameterBytes), first_row) {
    const int64_t tiles = (tables.columns.count + S::kColumns - 1) / S::kColumns;
    begin_ = static_cast<int>(tiles * split / splits);
    end_ = static_cast<int>(tiles * (split + 1) / splits);
  }

  __device__ int first_column() const { return begin_ * S::kColumns; }

  // First row of the calling warp, within the block's tile.
  static __device__ int warp_row() {
    return static_cast<int>(threadIdx.x) / 32 * (16 * S::kHeight);
  }

  // visit(scores, first column, columns of the tile that exist, tile, its parameters, masks) for
  // every tile. All threads of the block take part.
  template <class Visit>
  __device__ __forceinline__ void run(Visit&& visit) {
    load_tile<S, S::kRows>(row_tile_, tables_.rows, first_row_);
#pragma unroll
    for (int ahead = 0; ahead < S::kStages - 1; ++ahead) load_columns(begin_ + ahead, ahead);
    if (S::kStages == 1) commit_copies();
    __syncthreads();  // the masks' bits are cleared
    masks_.fill(begin_ * S::kColumns, begin_ < end_);

    RowFragments<S, kept_steps<S, kRegisters>()> rows(row_tile_, warp_row());
    int stage = 0;  // buffer of the tile
    for (int tile = begin_; tile < end_; ++tile) {
      if (S::kStages == 1) {
        __syncthreads();  // the tile before is read no more
        load_columns(tile, 0);
      }
      wait_copies<S::kStages == 1 ? 0 : S::kStages - 2>();
      __syncthreads();  // the tile is there for all, the one before is read no more
      if (S::kStages > 1)
        load_columns(tile + S::kStages - 1, stage == 0 ? S::kStages - 1 : stage - 1);
      masks_.next();
      if (tile == begin_) rows.load();

      const unsigned char* column_tile = column_tiles_ + stage * S::kColumnTileBytes;
      Scores<S> scores;
      multiply_rows(rows, column_tile, scores);
      visit(scores, tile * S::kColumns, tables_.columns.count - tile * S::kColumns, column_tile,
            reinterpret_cast<const Parameter*>(parameters_ + stage * kParameterBytes), masks_);
      masks_.fill((tile + 1) * S::kColumns, tile + 1 < end_);
      stage = stage == S::kStages - 1 ? 0 : stage + 1;
    }
    wait_copies<0>();
  }

 private:
  __device__ __forceinline__ void load_columns(int tile, int stage) {
    if (tile < end_) {
      load_tile<S, S::kColumns>(column_tiles_ + stage * S::kColumnTileBytes, tables_.columns,
                                tile * S::kColumns);
      if (threadIdx.x < kParameterBytes / 16)
        copy_async(parameters_ + stage * kParameterBytes + threadIdx.x * 16,
                   reinterpret_cast<const char*>(tables_.parameters + int64_t{tile} * S::kColumns) +
                       threadIdx.x * 16,
                   true);
    }
    commit_copies();  // a group of its own even when empty, so that they can be counted
  }

  const WalkTables<Parameter>& tables_;
  unsigned char *row_tile_, *column_tiles_, *parameters_;
  int first_row_, begin_, end_;
  Masks masks_;
};

}  // namespace adaptau::cuda
