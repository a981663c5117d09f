// The kernels of top-k, as their launcher and each type's instances see them.
#pragma once

#include "order.cuh"
#include "tile_rows.h"

namespace adaptau::cuda {

struct TopkLists {
  WalkTables<float> tables;
  const float* user_scale;
  int splits, k, capacity;
  CandidateKey* keys;  // [users, splits, capacity]
  int* counts;         // [users, splits]
};

// Room for a tile of columns beyond k, and for as many again that a cut is rare.
inline int list_capacity(int64_t k) { return static_cast<int>((2 * k + 64 + 31) / 32 * 32); }

template <class Shape>
cudaError_t launch_topk_lists(const TopkLists& lists, cudaStream_t stream);

}  // namespace adaptau::cuda
