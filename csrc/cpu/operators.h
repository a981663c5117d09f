// The operators on the CPU. Each documents its algorithm in its own file.
#pragma once

#include <cstdint>
#include <vector>

#include "../core/parallel.h"
#include "../core/problem.h"

namespace adaptau {

// softmax.cpp. Scratch beyond [B, d] and the outputs stays below workspace_bytes.
template <class T>
void fused_softmax(const SoftmaxProblem<T>& problem, const SoftmaxOutput<T>& out,
                   const Parallel& parallel, int64_t workspace_bytes);

// sampled.cpp
template <class T>
void sampled_softmax(const SampledProblem<T>& problem, const SoftmaxOutput<T>& out,
                     const Parallel& parallel);

// sampled_scores.cpp: scores [B, N] of listed items, and from dL/dscores [B, N] the gradients [B, d]
// and [M, d]; nullptr: not wanted.
template <class T>
void sampled_scores(const ScoresProblem& problem, T* scores, const Parallel& parallel);
template <class T>
void sampled_scores_backward(const ScoresProblem& problem, const T* grad, T* grad_users,
                             T* grad_items, const Parallel& parallel);

// topk.cpp: scores [B, k], ids [B, k]. Every user must have at least k candidates left. packed: the
// items' bytes of pack_items (quantized.h), or nullptr.
struct PackedItems;
template <class T>
void topk(const TopkProblem& problem, const PackedItems* packed, T* scores, int64_t* ids,
          const Parallel& parallel);

// ranks.cpp: ranks [nnz of targets], 1-based.
template <class T>
void ranks(const RanksProblem& problem, int64_t* ranks, const Parallel& parallel);
// Scores of the targets, [nnz]: what ranks compares.
template <class T>
void target_scores(const RanksProblem& problem, T* scores, const Parallel& parallel);

// propagate.cpp: out[side] is [wanted nodes, d] contiguous, or [n_layers + 1, wanted nodes, d].
template <class T>
void propagate(const PropagationProblem& problem, T* const (&out)[2], const Parallel& parallel);

// dropout.cpp: out[rows, d] contiguous.
template <class T>
void dropout(const DropoutProblem& problem, T* out, const Parallel& parallel);

// adam.cpp
template <class T>
void adam_rows(const AdamProblem<T>& problem, const Parallel& parallel);

// masks.cpp: the candidates that leave each user's denominator, as positions in i, the positive
// itself excepted: those whose id is excluded for the user, and those that carry the positive's id.
struct MaskedCandidates {
  std::vector<int64_t> indptr, indices;
  Csr csr() const { return {indptr.data(), indices.data()}; }
};
MaskedCandidates masked_candidates(int64_t n_users, int64_t n_items, const int64_t* target,
                                   const int64_t* item_ids, const Csr& excluded_ids);

}  // namespace adaptau
