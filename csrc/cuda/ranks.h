// The kernels of ranks, as their launcher and each type's instances see them.
#pragma once

#include "tile_rows.h"

namespace adaptau::cuda {

struct RankCounts {
  WalkTables<float> tables;
  const float* user_scale;
  const float* item_scale;
  Csr targets;
  int64_t n_targets;
  int splits;
  int64_t first_item;          // of the catalogue that targets are items of
  const float* target_scores;  // [n_targets]
  float* scored;               // the same to be written, or nullptr where they are given
  int64_t* ranks;              // [n_targets], or nullptr
};

// scored, and ranks = 1.
template <class Shape>
cudaError_t launch_target_scores(const RankCounts& counts, cudaStream_t stream);
// ranks += the items before each target.
template <class Shape>
cudaError_t launch_count_before(const RankCounts& counts, cudaStream_t stream);

}  // namespace adaptau::cuda
