// The operators on a GPU, for host code that knows no tensors: device pointers in plain structs
// (core/problem.h), workspace from the caller, work queued on a stream, nothing waited for.
//
// Every function returns the first CUDA error of its launches. Values that only the device can see
// (an id out of range, a temperature that is not positive) stop the kernel with an assertion.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../core/problem.h"

namespace adaptau::cuda {

constexpr int64_t kMaxDimension = 512;

// ---- masks.cu: pairs of a user and a candidate that do not count

constexpr int kMaskTile = 128;  // users, and candidates, of a bucket

struct MaskBuckets {
  const int32_t* offsets = nullptr;  // [item_tiles * user_tiles] where each bucket ends; null: none
  const uint32_t* entries = nullptr;
  int64_t user_tiles = 0, item_tiles = 0;
};

// Candidates are in the order of their ids: candidate p is row order[p] of the items. Without
// item_ids a candidate's id is its row.
struct MaskPairs {
  int64_t n_users, n_items;
  bool positives;             // hide every user's positive, and what carries its id
  const int64_t* target;      // [n_users], or nullptr: row b
  const int64_t* item_ids;    // [n_items] or nullptr
  const int64_t* sorted_ids;  // [n_items] item_ids in ascending order, or nullptr
  Csr excluded;               // ids to hide
  int64_t n_excluded;
  bool any() const { return positives || n_excluded > 0; }
};

int64_t mask_buckets(const MaskPairs& pairs);
int64_t max_mask_entries(const MaskPairs& pairs);
// counts [mask_buckets], zero before.
cudaError_t count_masks(const MaskPairs& pairs, int32_t* counts, cudaStream_t stream);
// offsets: inclusive sums of counts, which is zero again afterwards.
cudaError_t fill_masks(const MaskPairs& pairs, int32_t* counts, const int32_t* offsets,
                       uint32_t* entries, cudaStream_t stream);

// ---- softmax.cu

struct SoftmaxCall {
  SoftmaxProblem<float> problem;  // `masked` is not read: masks are
  MaskBuckets masks;              // positives included
  const int64_t* order;           // of the candidates (MaskPairs), or nullptr
  SoftmaxOutput<float> out;
  // Rows of the batch in the order of their targets, and those targets; nullptr without target.
  const int64_t *sorted_target, *by_target;
};

int64_t softmax_workspace(const SoftmaxCall& call);
cudaError_t softmax(const SoftmaxCall& call, void* workspace, cudaStream_t stream);

// ---- topk.cu, ranks.cu: masks without positives

struct TopkCall {
  TopkProblem problem;  // `excluded` is not read: masks are
  MaskBuckets masks;
  float* scores;  // [B, k]
  int64_t* ids;   // [B, k]
};

int64_t topk_workspace(const TopkCall& call);
cudaError_t topk(const TopkCall& call, void* workspace, cudaStream_t stream);

struct RanksCall {
  RanksProblem problem;  // `excluded` is not read: masks are
  int64_t n_targets;
  MaskBuckets masks;
  float* target_scores;  // [n_targets] where they are wanted instead of ranks, or nullptr
  int64_t* ranks;        // [n_targets]
};

int64_t ranks_workspace(const RanksCall& call);
cudaError_t ranks(const RanksCall& call, void* workspace, cudaStream_t stream);

}  // namespace adaptau::cuda
