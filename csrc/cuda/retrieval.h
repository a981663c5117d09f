// What top-k and ranks share: the tables, and their scales. A score is the product of the prepared
// rows, in the order of its elements, times the item's scale, then times the user's; both operators
// compute the same bits.
#pragma once

#include "prepare.h"
#include "tile_rows.h"

namespace adaptau::cuda {

struct RetrievalRows {
  PreparedRows users, items;
  float* item_scale;  // users.tile_scale serves as it is; this one is padded to a multiple of 64

  RetrievalRows(const Matrix& u, const Matrix& i, Normalize normalize, Workspace& w)
      : users(u, nullptr, normalize.user, tile_type(u.dtype, Precision::float32), w),
        items(i, nullptr, normalize.item, tile_type(i.dtype, Precision::float32), w) {
    item_scale = w.take<float>((i.rows + 63) / 64 * 64);
  }
  WalkTables<float> tables(const MaskBuckets& masks) const {
    return {users.tiles(), items.tiles(), item_scale, masks};
  }
};

// Fills everything that RetrievalRows names (retrieval.cu).
cudaError_t prepare(const RetrievalRows& rows, cudaStream_t stream);

// Equal parts of the items, for as many blocks as fill a GPU (retrieval.cu).
int retrieval_splits(int64_t users, int64_t items, int rows_a_block);

}  // namespace adaptau::cuda
