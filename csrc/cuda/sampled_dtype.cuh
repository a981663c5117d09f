// The sampled loss and sampled_scores for one dtype of the tables; sampled_f32.cu and its siblings
// instantiate it. Kernels are made for rows of a few lengths, and d picks the shortest that holds
// it.
#pragma once

#include "sampled_items.cuh"
#include "sampled_rows.cuh"
#include "sampled_scores.cuh"

namespace adaptau::cuda {

// launch(Shape{}) for rows of d elements of E.
template <class E, class Launch>
cudaError_t with_row_shape(int64_t d, Launch&& launch) {
  constexpr int n = Chunk<E>::kElements;
  if (d <= 8 * n) return launch(RowShape<E, 8, 1>{});
  if (d <= 16 * n) return launch(RowShape<E, 16, 1>{});
  if (d <= 32 * n) return launch(RowShape<E, 32, 1>{});
  if (d <= 64 * n) return launch(RowShape<E, 32, 2>{});
  if constexpr (n == 4) {
    if (d <= 512) return launch(RowShape<E, 32, 4>{});
  }
  return launch(RowShape<E, 32, 512 / 32 / n, true>{});
}

template <class E>
cudaError_t sampled_rows_of(const SampledCall& call, cudaStream_t stream) {
  return with_row_shape<E>(call.problem.item_table.cols, [&](auto shape) {
    return launch_sampled_rows<decltype(shape)>(call, stream);
  });
}

template <class E>
cudaError_t sampled_scores_of(const SampledCall& call, cudaStream_t stream) {
  return with_row_shape<E>(call.problem.item_table.cols, [&](auto shape) {
    return launch_sampled_scores<decltype(shape)>(call, stream);
  });
}

template <class E>
cudaError_t sampled_items_of(const ItemPass& pass, cudaStream_t stream) {
  return with_row_shape<E>(pass.call.problem.item_table.cols, [&](auto shape) {
    return launch_sampled_items<decltype(shape)>(pass, stream);
  });
}

}  // namespace adaptau::cuda
