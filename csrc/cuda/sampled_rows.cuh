// The losses of the batch's rows, and the gradients of their users and temperatures, in one pass
// over their negatives. A block has a row of the batch; its four warps take tiles of 32 negatives
// in turns and put their sums together at the end, in order.
//
// An item's row is read once, into the registers of a group of lanes (8 to 32 lanes, by its
// length), several rows in flight a group; its length, its score and, weighted with its
// exponential, its share in the user's gradient come from there. Maxima are kept online, for a
// warp, and moved only when a logit exceeds the last by 2^8: a vote, mostly.
//
// Traffic, B rows, N negatives, item rows of r bytes: B N r is gathered, out of the second-level
// cache where the item table fits (41k x 64 float32 are 10 MB, of 40 to 126 MB), in sectors that
// are read whole; 4 B N bytes are read (ids) and 4 B N written (logits), streamed past the cached
// table; the user's row and the results are small. Predicted for an H100 at d = 64, whose
// second-level cache gives an SM about 24 bytes a cycle: a negative's row takes 11 cycles in
// float32, 5.3 in 16 bits, and its 25 or 20 instructions (of a warp, from the machine code for
// sm_90) 6 or 5 cycles of the four schedulers. The gather is the limit in float32, both are in 16
// bits.
#pragma once

#include <cassert>

#include "../core/loss_row.h"
#include "exp2.cuh"
#include "row_lanes.cuh"
#include "sampled.h"

namespace adaptau::cuda {

constexpr int kSplits = 4;  // warps of a block that share a row's negatives
constexpr float kLowest = -3.402823466e38f;
constexpr float kSlack = 8;  // in log2 units
constexpr float kLog2eFloat = 1.44269504f;

// Rows whose square sum leaves float32's range, zero rows among them: seldom, so all of a step's
// rows are done again. Lane l keeps the results of item l * kInFlight / Lanes of its group.
template <class Shape>
__device__ __forceinline__ void rescue(const typename Shape::Reader& reader,
                                       typename Shape::Row (&items)[Shape::kInFlight],
                                       const typename Shape::Floats& user, float square,
                                       float& score, UnitScale& unit) {
  constexpr int kLanesAnItem = Shape::Lanes / Shape::kInFlight;
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < Shape::kInFlight; ++j) {
    const float before =
        __shfl_sync(kAllLanes, square, lane / Shape::Lanes * Shape::Lanes + j * kLanesAnItem);
    const float largest = Shape::max(items[j].largest());
    const bool rescued = !is_safe_square(before) && !isnan(before);
    const float scale = rescued ? rescue_scale(largest) : 1;
    items[j].multiply(scale);
    const float new_score = Shape::sum(user.dot(items[j]));
    const float new_square = Shape::sum(reader.square(items[j]));
    if (lane % Shape::Lanes / kLanesAnItem == j) {
      score = new_score;
      unit = {scale, inverse_length(new_square)};
    }
  }
}

// A step of a tile: reads the rows of kInFlight ids a group, from lane base of the warp on; a
// score, square sum and scale is of item threadIdx.x % Lanes / (Lanes / kInFlight) of the lane's
// group.
template <class Shape>
__device__ __forceinline__ float score_items(const typename Shape::Reader& reader, int32_t id,
                                             int base, const typename Shape::Floats& user,
                                             bool normalise,
                                             typename Shape::Row (&items)[Shape::kInFlight],
                                             float& square, UnitScale& unit) {
  constexpr int kInFlight = Shape::kInFlight;
#pragma unroll
  for (int j = 0; j < kInFlight; ++j) items[j] = reader.read(__shfl_sync(kAllLanes, id, base + j));
  float products[kInFlight], own_products[kInFlight];
#pragma unroll
  for (int j = 0; j < kInFlight; ++j) {
    products[j] = user.dot(items[j]);
    own_products[j] = reader.square(items[j]);
  }
  float score = Shape::sum_slices(sum_and_share<kInFlight, Shape::Lanes>(products));
  square = Shape::sum_slices(sum_and_share<kInFlight, Shape::Lanes>(own_products));
  unit = {1, 1};
  if (normalise) {
    unit.inverse = rsqrtf(square);
    if (__any_sync(kAllLanes, !is_safe_square(square)))
      rescue<Shape>(reader, items, user, square, score, unit);
    score *= unit.inverse;
  }
  return score;
}

// The negatives first, first + stride, .. (tiles of 32) of row b.
template <class Shape>
__device__ __forceinline__ void visit_negatives(const SampledCall& call, int64_t b, int first,
                                                int stride, const typename Shape::Floats& user,
                                                NegativeSums& sums, typename Shape::Floats& o) {
  constexpr int kInFlight = Shape::kInFlight, kLanesAnItem = Shape::Lanes / kInFlight;
  const SampledProblem<float>& p = call.problem;
  const int64_t N = p.n_negatives;
  const int lane = threadIdx.x % 32, group = lane / Shape::Lanes,
            mine = lane % Shape::Lanes / kLanesAnItem;  // this lane's item of its group's
  const bool wants_unit = call.out.unit_loss != nullptr,
             wants_sums = call.out.grad_users != nullptr, wants_squares = p.item_l2 != 0;
  const bool keeps_logits = call.logits != nullptr && (!Shape::Sliced || threadIdx.x < 32);
  const float scale = kLog2eFloat / p.terms.tau[b];
  const typename Shape::Reader reader(call.items);
  const int32_t* ids = call.ids + b * N;
  const int32_t stand_in =
      call.ids[p.n_rows * N + b];  // beyond the last: the positive, not counted
  auto id_at = [&](int64_t n) { return n < N ? __ldcs(ids + n) : stand_in; };

  int32_t next_id = id_at(first * 32 + lane);
  for (int64_t tile = first; tile * 32 < N; tile += stride) {
    const int32_t id = next_id;
    next_id = id_at((tile + stride) * 32 + lane);
    const float log_q = p.terms.log_q != nullptr ? p.terms.log_q[id] * kLog2eFloat : 0;
    float sum = 0, unit_sum = 0, score_sum = 0, squares = 0;  // of this tile: sums in two stages
#pragma unroll 1
    for (int step = 0; step < 32; step += Shape::kStep) {
      typename Shape::Row items[kInFlight];
      const int base = step + group * kInFlight;
      float square;
      UnitScale unit;
      const float score =
          score_items<Shape>(reader, id, base, user, p.terms.normalize.item, items, square, unit);
      const int64_t n = tile * 32 + base + mine;
      const bool counts = n < N;
      const float logit = score * scale - __shfl_sync(kAllLanes, log_q, base + mine);
      const float unit_logit = score * kLog2eFloat;
      const float seen = counts ? logit : kLowest, unit_seen = counts ? unit_logit : kLowest;
      if (__any_sync(kAllLanes,
                     seen > sums.shift + kSlack || unit_seen > sums.unit_shift + kSlack)) {
        const float shift = fmaxf(sums.shift, max_lanes<32>(seen));
        const float unit_shift = fmaxf(sums.unit_shift, max_lanes<32>(unit_seen));
        const float factor = exp2_approx(sums.shift - shift);
        const float unit_factor = exp2_approx(sums.unit_shift - unit_shift);
        sums.shift = shift;
        sums.unit_shift = unit_shift;
        sum *= factor, sums.sum *= factor;
        score_sum *= factor, sums.score_sum *= factor;
        unit_sum *= unit_factor, sums.unit_sum *= unit_factor;
        o.multiply(factor);
      }
      const float e = counts ? exp2_approx(logit - sums.shift) : 0;
      sum += e;
      score_sum += counts ? e * score : 0;
      if (wants_unit) unit_sum += counts ? exp2_approx(unit_logit - sums.unit_shift) : 0;
      if (wants_squares) squares += counts ? square : 0;
      if (keeps_logits && counts && lane % kLanesAnItem == 0)
        __stcs(call.logits + b * N + n, logit);
      if (wants_sums) {
        const float weight = e * unit.inverse;
#pragma unroll
        for (int j = 0; j < kInFlight; ++j)
          o.add(__shfl_sync(kAllLanes, weight, group * Shape::Lanes + j * kLanesAnItem), items[j]);
      }
    }
    sums.sum += sum;
    sums.unit_sum += unit_sum;
    sums.score_sum += score_sum;
    sums.squares += squares;
  }
  // An item's results were held by kLanesAnItem lanes, so that a sum over lanes has them so often.
  constexpr float kOnce = 1.0f / kLanesAnItem;
  sums.sum = sum_lanes<32>(sums.sum) * kOnce;
  sums.unit_sum = sum_lanes<32>(sums.unit_sum) * kOnce;
  sums.score_sum = sum_lanes<32>(sums.score_sum) * kOnce;
  sums.squares = sum_lanes<32>(sums.squares) * kOnce;
  if (wants_sums) o.sum_groups();
}

// Puts together what the warps of a block have seen; the result is the first warp's.
template <class Shape>
__device__ __forceinline__ void merge_splits(bool wants_sums, NegativeSums& sums,
                                             typename Shape::Floats& o) {
  __shared__ NegativeSums all[kSplits];
  __shared__ alignas(16) float rows[kSplits][Shape::kColumns];
  const int warp = threadIdx.x / 32;
  if (threadIdx.x % 32 == 0) all[warp] = sums;
  if (wants_sums) o.store(rows[warp], Shape::kColumns);
  __syncthreads();  // every warp's sums are there
  if (warp != 0) return;
  sums = {kLowest, 0, kLowest, 0, 0, 0};
  for (int w = 0; w < kSplits; ++w) {
    sums.shift = fmaxf(sums.shift, all[w].shift);
    sums.unit_shift = fmaxf(sums.unit_shift, all[w].unit_shift);
  }
  o.clear();
  for (int w = 0; w < kSplits; ++w) {
    const float factor = exp2_approx(all[w].shift - sums.shift);
    sums.sum += all[w].sum * factor;
    sums.score_sum += all[w].score_sum * factor;
    sums.unit_sum += all[w].unit_sum * exp2_approx(all[w].unit_shift - sums.unit_shift);
    sums.squares += all[w].squares;
    if (wants_sums) {
      typename Shape::Floats part;
      part.load(rows[w], Shape::kColumns);
      o.add(factor, part);
    }
  }
}

// Row b of the batch as a unit row, if it is to be one.
template <class Shape>
__device__ __forceinline__ typename Shape::Floats load_user(const SampledCall& call, int64_t b,
                                                            int64_t& row, UnitScale& unit) {
  const SampledProblem<float>& p = call.problem;
  row = p.users != nullptr ? p.users[b] : b;
  assert(row >= 0 && row < p.user_table.rows && "users must lie in [0, n_users)");
  const typename Shape::Reader reader(call.users);
  typename Shape::Row raw = reader.read_whole(static_cast<int32_t>(row));
  unit = {1, 1};
  if (p.terms.normalize.user) unit = make_unit<Shape>(reader, raw, Shape::sum(reader.square(raw)));
  typename Shape::Floats user;
  user.clear();
  user.add(unit.inverse, raw);
  return user;
}

// A block a row: call.sums, and in grad_users the sum of e i^ over its negatives.
template <class Shape>
__global__ void __launch_bounds__(Shape::max_threads(kSplits), 1)
    sampled_sums_kernel(SampledCall call) {
  const int64_t b = blockIdx.x;
  const float tau = call.problem.terms.tau[b];
  assert(tau > 0 && isfinite(tau) && "tau must be finite and > 0");
  int64_t row;
  UnitScale unit;
  const typename Shape::Floats user = load_user<Shape>(call, b, row, unit);
  typename Shape::Floats o;
  o.clear();
  NegativeSums sums{kLowest, 0, kLowest, 0, 0, 0};
  const bool wants_sums = call.out.grad_users != nullptr;
  const int warp = threadIdx.x / 32;
  if constexpr (Shape::Sliced) {
    visit_negatives<Shape>(call, b, 0, 1, user, sums, o);
  } else {
    visit_negatives<Shape>(call, b, warp, kSplits, user, sums, o);
    merge_splits<Shape>(wants_sums, sums, o);
    if (warp != 0) return;
  }
  const int d = static_cast<int>(call.problem.user_table.cols);
  if (wants_sums) o.store(call.out.grad_users + b * d, d);
  if (threadIdx.x == 0) call.sums[b] = sums;
}

// A warp a row (a block where the columns are sliced): its loss, and its gradients from the sums.
template <class Shape>
__global__ void __launch_bounds__(Shape::max_threads(kSplits), 1)
    sampled_losses_kernel(SampledCall call) {
  const SampledProblem<float>& p = call.problem;
  const int64_t b = Shape::template owner<kSplits>();
  if (b >= p.n_rows) return;
  int64_t user_row;
  UnitScale user_unit;
  const typename Shape::Floats user = load_user<Shape>(call, b, user_row, user_unit);
  const int64_t t = p.positives[b];
  const typename Shape::Reader reader(call.items);
  typename Shape::Row raw = reader.read_whole(static_cast<int32_t>(t));
  const float square = Shape::sum(reader.square(raw));
  UnitScale unit{1, 1};
  if (p.terms.normalize.item) unit = make_unit<Shape>(reader, raw, square);
  typename Shape::Floats positive;
  positive.clear();
  positive.add(unit.inverse, raw);
  const float positive_score = Shape::sum(user.dot(positive));

  const float* positive_tau = p.terms.positive_tau;
  assert((positive_tau == nullptr || (positive_tau[b] > 0 && isfinite(positive_tau[b]))) &&
         "positive_tau must be finite and > 0");
  const bool writes = Shape::writes();
  SoftmaxOutput<float> out = call.out;
  if (!writes) out.loss = out.unit_loss = out.grad_tau = out.grad_positive_tau = nullptr;
  const NegativeSums sums = call.sums[b];
  const RowTerms terms = finish_losses(
      p.terms, b, t,
      {sums.shift * kLn2, sums.sum, sums.unit_shift * kLn2, sums.unit_sum, positive_score}, out);
  if (writes && p.item_l2 != 0)
    out.loss[b] += static_cast<float>(p.item_l2 / 2) * (sums.squares + square);
  if (out.weight == nullptr) return;
  finish_temperatures(p.terms, b, terms, sums.score_sum, positive_score, out);
  const float from_negatives = static_cast<float>(terms.coefficient * terms.inv_tau);
  const float from_positive = static_cast<float>(terms.positive * terms.inv_positive_tau);
  if (writes && call.rows != nullptr)
    call.rows[b] = {
        sums.shift,      static_cast<float>(terms.coefficient), from_negatives * user_unit.inverse,
        user_unit.scale, static_cast<float>(terms.positive),    from_positive * user_unit.inverse,
        out.weight[b],   static_cast<int32_t>(user_row)};
  if (out.grad_users == nullptr) return;
  const int d = static_cast<int>(p.user_table.cols);
  typename Shape::Floats gradient;
  gradient.load(out.grad_users + b * d, d);
  gradient.multiply(from_negatives);
  gradient.add(from_positive, positive);
  if (p.terms.normalize.user) {
    gradient.add(-Shape::sum(user.dot(gradient)), user);
    gradient.multiply(user_unit.inverse_norm());
  }
  __syncwarp();  // every group has read the row that one of them overwrites
  gradient.store(out.grad_users + b * d, d);
}

template <class Shape>
cudaError_t launch_sampled_rows(const SampledCall& call, cudaStream_t stream) {
  const int64_t B = call.problem.n_rows;
  const unsigned threads = Shape::block(kSplits, call.problem.item_table.cols);
  sampled_sums_kernel<Shape><<<static_cast<unsigned>(B), threads, 0, stream>>>(call);
  sampled_losses_kernel<Shape><<<Shape::grid(kSplits, B), threads, 0, stream>>>(call);
  return cudaGetLastError();
}

}  // namespace adaptau::cuda
