// Ranks: the targets' scores, then the items before each (ranks.cuh).
#include "ranks.h"

#include "retrieval.h"
#include "shapes.h"

namespace adaptau::cuda {
namespace {

struct Buffers {
  RetrievalRows rows;
  RankCounts counts;

  Buffers(const RanksCall& c, Workspace& w)
      : rows(c.problem.users, c.problem.items, c.problem.normalize, w) {
    const int rows_a_block = with_exact_shape(rows.users.type, c.problem.users.cols,
                                              [](auto shape) { return decltype(shape)::kRows; });
    counts.tables = rows.tables(c.masks);
    counts.user_scale = rows.users.tile_scale;
    counts.item_scale = rows.item_scale;
    counts.targets = c.problem.targets;
    counts.n_targets = c.n_targets;
    counts.splits = retrieval_splits(c.problem.users.rows, c.problem.items.rows, rows_a_block);
    counts.first_item = c.problem.first_item;
    counts.target_scores = static_cast<const float*>(c.problem.target_scores);
    counts.scored = nullptr;
    if (counts.target_scores == nullptr)
      counts.target_scores = counts.scored =
          c.target_scores != nullptr ? c.target_scores : w.take<float>(c.n_targets);
    counts.ranks = c.ranks;
  }
};

}  // namespace

int64_t ranks_workspace(const RanksCall& call) {
  Workspace measure;
  Buffers(call, measure);
  return measure.used();
}

cudaError_t ranks(const RanksCall& call, void* workspace, cudaStream_t stream) {
  Workspace memory(workspace);
  const Buffers b(call, memory);
  if (call.n_targets == 0) return cudaSuccess;
  const cudaError_t error = prepare(b.rows, stream);
  if (error != cudaSuccess) return error;
  return with_exact_shape(b.rows.users.type, call.problem.users.cols, [&](auto shape) {
    const cudaError_t scored = launch_target_scores<decltype(shape)>(b.counts, stream);
    if (scored != cudaSuccess || b.counts.ranks == nullptr) return scored;
    return launch_count_before<decltype(shape)>(b.counts, stream);
  });
}

}  // namespace adaptau::cuda
