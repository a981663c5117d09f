// Scores of listed items, and from dL/dscores the gradients of the users, in one pass over each
// row's list: a block a row, as the sums of the sampled loss (sampled_rows.cuh), with the same
// traffic less what follows from the scores. The items' gradients are those of sampled_items.cuh,
// which is given the weights.
#pragma once

#include "sampled_rows.cuh"

namespace adaptau::cuda {

// The block's sum of a row that every warp has a part of, in the first warp.
template <class Shape>
__device__ __forceinline__ void merge_parts(typename Shape::Floats& part) {
  __shared__ alignas(16) float rows[kSplits][Shape::kColumns];
  part.store(rows[threadIdx.x / 32], Shape::kColumns);
  __syncthreads();  // every warp's part is there
  for (int w = 1; w < kSplits; ++w) {
    typename Shape::Floats more;
    more.load(rows[w], Shape::kColumns);
    part.add(1, more);
  }
}

// A block a row: call.logits, which are scores here; or, if there are none, from call.weights the
// user's gradient and call.rows, each where it is wanted.
template <class Shape, bool Backward>
__global__ void __launch_bounds__(Shape::max_threads(kSplits), 1)
    sampled_scores_kernel(SampledCall call) {
  constexpr int kInFlight = Shape::kInFlight, kLanesAnItem = Shape::Lanes / kInFlight;
  const SampledProblem<float>& p = call.problem;
  const int64_t b = blockIdx.x, N = p.n_negatives;
  const int lane = threadIdx.x % 32, group = lane / Shape::Lanes,
            mine = lane % Shape::Lanes / kLanesAnItem;
  int64_t user_row;
  UnitScale user_unit;
  const typename Shape::Floats user = load_user<Shape>(call, b, user_row, user_unit);
  const typename Shape::Reader reader(call.items);
  typename Shape::Floats gradient;
  gradient.clear();
  const bool writes = lane % kLanesAnItem == 0 && (!Shape::Sliced || threadIdx.x < 32);
  const bool visits = !Backward || call.out.grad_users != nullptr;
  const int first = Shape::Sliced ? 0 : threadIdx.x / 32, stride = Shape::Sliced ? 1 : kSplits;
  const int32_t stand_in = N > 0 ? call.ids[b * N] : 0;  // beyond the last: not counted
  auto id_at = [&](int64_t n) { return n < N ? __ldcs(call.ids + b * N + n) : stand_in; };

  int32_t next_id = id_at(first * 32 + lane);
  for (int64_t tile = first; visits && tile * 32 < N; tile += stride) {
    const int64_t at = b * N + tile * 32;
    const int count = static_cast<int>(min(N - tile * 32, int64_t{32}));
    const int32_t id = next_id;
    next_id = id_at((tile + stride) * 32 + lane);
    float given = 0;
    if constexpr (Backward) given = lane < count ? __ldcs(call.weights + at + lane) : 0;
#pragma unroll 1
    for (int step = 0; step < count; step += Shape::kStep) {
      typename Shape::Row items[kInFlight];
      const int base = step + group * kInFlight;
      float square;
      UnitScale unit;
      const float score =
          score_items<Shape>(reader, id, base, user, p.terms.normalize.item, items, square, unit);
      if constexpr (Backward) {
        const float weight = __shfl_sync(kAllLanes, given, base + mine) * unit.inverse;
#pragma unroll
        for (int j = 0; j < kInFlight; ++j)
          gradient.add(__shfl_sync(kAllLanes, weight, group * Shape::Lanes + j * kLanesAnItem),
                       items[j]);
      } else if (writes && base + mine < count) {
        __stcs(call.logits + at + base + mine, score);
      }
    }
  }
  if constexpr (Backward) {
    gradient.sum_groups();
    if constexpr (!Shape::Sliced) {
      merge_parts<Shape>(gradient);
      if (threadIdx.x >= 32) return;
    }
    if (Shape::writes() && call.rows != nullptr)
      call.rows[b] = {
          0, 0, user_unit.inverse, user_unit.scale, 0, 0, 0, static_cast<int32_t>(user_row)};
    if (call.out.grad_users == nullptr) return;
    if (p.terms.normalize.user) {
      gradient.add(-Shape::sum(user.dot(gradient)), user);
      gradient.multiply(user_unit.inverse_norm());
    }
    const int d = static_cast<int>(p.user_table.cols);
    gradient.store(call.out.grad_users + b * d, d);
  }
}

template <class Shape>
cudaError_t launch_sampled_scores(const SampledCall& call, cudaStream_t stream) {
  const unsigned rows = static_cast<unsigned>(call.problem.n_rows),
                 threads = Shape::block(kSplits, call.problem.item_table.cols);
  if (call.logits != nullptr) {
    sampled_scores_kernel<Shape, false><<<rows, threads, 0, stream>>>(call);
  } else {
    sampled_scores_kernel<Shape, true><<<rows, threads, 0, stream>>>(call);
  }
  return cudaGetLastError();
}

}  // namespace adaptau::cuda
