// The sampled loss and sampled_scores on a GPU: see sampled_rows.cuh, sampled_scores.cuh and
// sampled_items.cuh for the algorithm. As in operators.h: device pointers, scratch from the caller,
// the first error of the launches returned.
//
//   sampled_ids      draws (or checks) negatives, positives after them: [B N + B] ids
//   sampled_rows     each row's sums over its negatives, then its loss and the gradients of its
//   user
//                    and temperatures; keeps the logits for the items' pass
//   sampled_scores   instead, each row's scores, or from their gradients that of its user; then
//                    there are no positives
//   (the caller sorts the ids)
//   sampled_items    gradients of items and log_q, one owner an item
//   scatter_rows     gradient rows of the batch -> gradient of the user table
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "row_table.h"

namespace adaptau::cuda {

constexpr int64_t kMaxSampledDimension = 4096;

// What the last pass knows of a batch row; e = 2^(logit - shift).
struct alignas(16) SampledRow {
  float shift;
  float coefficient;     // dL/dlogit of a negative = coefficient * e
  float item_scale;      // dL/di^ of a negative = e * item_scale * (the user's row * user_scale)
  float user_scale;      // a power of two
  float positive;        // dL/d(the positive's logit)
  float positive_scale;  // dL/di^ of the positive = positive_scale * (row * user_scale)
  float weight;          // dL/d(the row's loss)
  int32_t user;          // row of the user table
};

// Of the negatives of a batch row.
struct alignas(16) NegativeSums {
  float shift, sum;            // sum of e = 2^(logit - shift)
  float unit_shift, unit_sum;  // the same of the scores, as logits
  float score_sum;             // of e * score
  float squares;               // of the items' rows
};

// Items that a row uses: its negatives and, if there are positives, its own.
inline int64_t row_entries(const SampledProblem<float>& p) {
  return p.n_negatives + (p.positives != nullptr ? 1 : 0);
}

struct SampledCall {
  SampledProblem<float> problem;  // its tables are read through these:
  RowTable users, items;
  SoftmaxOutput<float> out;
  int32_t* ids;        // [B N] negatives, [B] positives if there are any
  NegativeSums* sums;  // [B]
  float* logits;       // [B N] in log2 units, or nullptr where no item pass follows; or scores
  SampledRow* rows;    // [B], or nullptr likewise
  const float* weights = nullptr;  // [B N] of the backward pass of sampled_scores: dL/dscore
};

cudaError_t sampled_ids(const SampledCall& call, cudaStream_t stream);
cudaError_t sampled_rows(const SampledCall& call, cudaStream_t stream);
cudaError_t sampled_scores(const SampledCall& call, cudaStream_t stream);

// The ids in ascending order, equal ones in the order in which they were.
struct SortedIds {
  const int32_t* ids;
  const int64_t* order;  // where in SampledCall::ids
};

int64_t sampled_items_workspace(const SampledCall& call);
cudaError_t sampled_items(const SampledCall& call, const SortedIds& sorted, void* workspace,
                          cudaStream_t stream);

// table[ids[p]] = sum of rows[order[p]] over equal ids, in their order; ids ascending, other rows
// of the table are left as they are.
cudaError_t scatter_rows(const int64_t* ids, const int64_t* order, int64_t n, const float* rows,
                         int64_t d, float* table, cudaStream_t stream);

}  // namespace adaptau::cuda
