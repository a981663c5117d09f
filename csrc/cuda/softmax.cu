// The dense loss and its gradients, from two passes of weighted_sums and what goes between them.
//
//   prepare           norms, copies where tiles cannot be read from the tensors
//   weighted_sums     users x items: each user's sum of exponentials, and of item rows
//   finish_users      losses, gradients of users and temperatures; columns of the second pass
//   weighted_sums     items x users: each item's sum of user rows
//   finish_items      gradients of items and log_q
//   add_positives     the positives' share, exactly, one owner an item
#include <cassert>
#include <cfloat>

#include "../core/loss_row.h"
#include "operators.h"
#include "rows.cuh"
#include "weighted_sums.h"

namespace adaptau::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kMaxColumn = 64;  // columns of a tile, to which arrays of them are padded
constexpr double kLog2 = 0.69314718055994530942;

__host__ __device__ int64_t padded_columns(int64_t n) {
  return (n + kMaxColumn - 1) / kMaxColumn * kMaxColumn;
}
unsigned warps(int64_t n) { return static_cast<unsigned>((n * 32 + kThreads - 1) / kThreads); }
unsigned threads(int64_t n) { return static_cast<unsigned>((n + kThreads - 1) / kThreads); }
__device__ int64_t this_warp() {
  return (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / 32;
}
__device__ int64_t this_thread() {
  return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

// One pass's sums where the last kernel finds them.
struct SplitSums {
  int splits;
  float *sums, *more_sums;
  RowSums* rows;
};

// What a call keeps besides its arguments and results.
struct Buffers {
  PreparedRows users, items;
  float *user_scale, *unit_scale;  // of the first pass's rows
  Column *item_columns, *user_columns;
  SplitSums by_user, by_item;
  float *positive_gradient, *positive_log_q;  // [B]

  Buffers(const SoftmaxCall& c, Workspace& w)
      : users(c.problem.users, nullptr, c.problem.terms.normalize.user, type(c), w),
        items(c.problem.items, c.order, c.problem.terms.normalize.item, type(c), w) {
    const int64_t B = c.problem.users.rows, M = c.problem.items.rows, d = c.problem.users.cols;
    const SoftmaxOutput<float>& out = c.out;
    user_scale = w.take<float>(B);
    unit_scale = out.unit_loss != nullptr ? w.take<float>(B) : nullptr;
    item_columns = w.take<Column>(padded_columns(M));
    by_user = split_sums(B, M, d, wants_user_sums(c), out.grad_users, type(c), w);
    user_columns = nullptr;
    by_item = {};
    positive_gradient = positive_log_q = nullptr;
    if (!wants_item_sums(c)) return;
    user_columns = w.take<Column>(padded_columns(B));
    by_item = split_sums(M, B, d, out.grad_items != nullptr,
                         c.order == nullptr ? out.grad_items : nullptr, type(c), w);
    positive_gradient = w.take<float>(B);
    positive_log_q = w.take<float>(B);
  }

  static TileType type(const SoftmaxCall& c) {
    return tile_type(c.problem.users.dtype, c.problem.precision);
  }
  static bool wants_user_sums(const SoftmaxCall& c) {
    return c.out.grad_users != nullptr || c.out.grad_tau != nullptr;
  }
  static bool wants_item_sums(const SoftmaxCall& c) {
    return c.out.grad_items != nullptr || c.out.grad_log_q != nullptr;
  }
  // `place`: results' own memory, which can hold the first split until it is overwritten by them.
  static SplitSums split_sums(int64_t rows, int64_t columns, int64_t d, bool wanted, float* place,
                              TileType type, Workspace& w) {
    SplitSums s{};
    s.splits = weighted_sums_splits(type, rows, columns, d);
    s.rows = w.take<RowSums>(s.splits * rows);
    if (!wanted) return s;
    s.sums = place != nullptr ? place : w.take<float>(rows * d);
    s.more_sums = w.take<float>((s.splits - 1) * rows * d);
    return s;
  }
};

__global__ void __launch_bounds__(kThreads) user_scales_kernel(SoftmaxProblem<float> p, Buffers b) {
  const int64_t row = this_thread();
  if (row >= p.users.rows) return;
  const float tau = p.terms.tau[row];
  assert(tau > 0 && tau < INFINITY && "tau must be finite and > 0 (it divides the scores)");
  if (p.terms.positive_tau != nullptr)
    assert(p.terms.positive_tau[row] > 0 && p.terms.positive_tau[row] < INFINITY &&
           "positive_tau must be finite and > 0 (it divides the scores)");
  const float unit = b.users.tile_scale[row] * static_cast<float>(kLog2e);
  b.user_scale[row] = unit / tau;
  if (b.unit_scale != nullptr) b.unit_scale[row] = unit;
}

// Weights of the first pass: e^z times the item's scale, so that sums of prepared rows are sums of
// e^z times the rows meant; their own value is e^z again. A bias of infinity or NaN would make NaN
// of masked scores, too, which are -inf: the largest number stands in for it, and finish_users
// makes NaN of the rows that counted it.
__global__ void __launch_bounds__(kThreads)
    item_columns_kernel(SoftmaxProblem<float> p, Buffers b) {
  const int64_t at = this_thread();
  if (at >= padded_columns(p.items.rows)) return;
  Column column{1, 0, 0, 0};
  if (at < p.items.rows) {
    const int64_t item = b.items.order != nullptr ? b.items.order[at] : at;
    const float scale = b.items.tile_scale[at];
    column.scale = scale;
    column.bias = log2f(scale);
    if (p.terms.log_q != nullptr) column.bias -= p.terms.log_q[item] * static_cast<float>(kLog2e);
    if (!(column.bias < INFINITY)) column.bias = FLT_MAX;
    column.value = 1 / scale;
  }
  b.item_columns[at] = column;
}

// Of the rows meant, in float32 whatever the tiles were made of: a lane takes every 32nd element.
__device__ float score(const SoftmaxProblem<float>& p, const Buffers& b, int64_t user,
                       int64_t item) {
  const float su = b.users.unit_scale[user], si = b.items.unit_scale[item];
  float sum = 0;
  for (int64_t k = threadIdx.x % 32; k < p.users.cols; k += 32)
    sum = fmaf(element(p.users, user, k) * su, element(p.items, item, k) * si, sum);
  return warp_sum(sum);
}

__device__ double split_max(const SplitSums& s, int64_t row, int64_t rows) {
  float max = -INFINITY;
  for (int n = 0; n < s.splits; ++n) max = fmaxf(max, s.rows[n * rows + row].max);
  return max;
}

// What a split's sums count, relative to 2^max.
__device__ float split_factor(float own, double max) {
  return own == -INFINITY ? 0 : static_cast<float>(exp2(own - max));
}

// sum over the splits of the k-th sum, relative to 2^max.
__device__ float split_sum(const SplitSums& s, int64_t row, int64_t rows, int64_t d, int64_t k,
                           double max) {
  float sum = 0;
  for (int n = 0; n < s.splits; ++n) {
    const float* sums = n == 0 ? s.sums : s.more_sums + (n - 1) * rows * d;
    sum = fmaf(sums[row * d + k], split_factor(s.rows[n * rows + row].max, max), sum);
  }
  return sum;
}

// Four blocks at once: without a number ptxas aims for more and spills.
__global__ void __launch_bounds__(kThreads, 4)
    finish_users_kernel(SoftmaxProblem<float> p, SoftmaxOutput<float> out, Buffers b) {
  const int64_t user = this_warp(), B = p.users.rows, d = p.users.cols;
  const int lane = threadIdx.x % 32;
  if (user >= B) {  // columns that pad the last tile
    if (lane == 0 && b.user_columns != nullptr && user < padded_columns(B))
      b.user_columns[user] = {1, 0, 0, 0};
    return;
  }
  const int64_t target = p.target != nullptr ? p.target[user] : user;
  assert(target >= -1 && target < p.items.rows && "target must lie in [-1, n_items)");

  RowTotals totals{};
  const double max = split_max(b.by_user, user, B);
  float unit_max = -INFINITY;
  for (int n = 0; n < b.by_user.splits; ++n)
    unit_max = fmaxf(unit_max, b.by_user.rows[n * B + user].unit_max);
  for (int n = 0; n < b.by_user.splits; ++n) {
    const RowSums& s = b.by_user.rows[n * B + user];
    if (s.max != -INFINITY) totals.sum += s.total * exp2(s.max - max);
    if (s.unit_max != -INFINITY)
      totals.unit_sum += s.unit_total * exp2(static_cast<double>(s.unit_max) - unit_max);
    // not a number, where a maximum cannot show it
    if (isnan(s.total)) totals.sum = s.total;
    if (isnan(s.unit_total)) totals.unit_sum = s.unit_total;
  }
  const bool any = max != -INFINITY;
  assert((any || isnan(totals.sum) || target < 0 || p.terms.denominator == Denominator::all) &&
         "denominator=\"negatives\" needs a candidate besides the positive");
  totals.shift = max > FLT_MAX / 2 ? NAN : any ? max * kLog2 : 0;
  totals.unit_shift = unit_max != -INFINITY ? unit_max * kLog2 : 0;
  totals.positive_score = target < 0 ? 0 : score(p, b, user, target);
  // every lane computes the same and writes the same value; the losses are written once
  SoftmaxOutput<float> losses = out;
  if (lane != 0) losses.loss = losses.unit_loss = nullptr;
  const RowTerms row = finish_losses<float>(p.terms, user, target, totals, losses);
  if (out.weight == nullptr) return;

  float user_dot_sums = 0;
  if (b.by_user.sums != nullptr) {
    const float su = b.users.unit_scale[user], si = target < 0 ? 0 : b.items.unit_scale[target];
    const auto positive = [&](int64_t k) {
      return target < 0 ? 0 : element(p.items, target, k) * si;
    };
    const float from_sums = static_cast<float>(row.coefficient * row.inv_tau);
    const float from_positive = static_cast<float>(row.positive * row.inv_positive_tau);
    float along = 0;
    for (int64_t k = lane; k < d; k += 32) {
      const float unit = element(p.users, user, k) * su;
      const float sum = split_sum(b.by_user, user, B, d, k, max);
      const float g = from_sums * sum + from_positive * positive(k);
      along = fmaf(unit, g, along);
      user_dot_sums = fmaf(unit, sum, user_dot_sums);
    }
    along = warp_sum(along);
    user_dot_sums = warp_sum(user_dot_sums);
    if (out.grad_users != nullptr)
      for (int64_t k = lane; k < d; k += 32) {
        const float unit = element(p.users, user, k) * su;
        const float sum = split_sum(b.by_user, user, B, d, k, max);
        const float g = from_sums * sum + from_positive * positive(k);
        out.grad_users[user * d + k] = p.terms.normalize.user ? (g - along * unit) * su : g;
      }
  }
  if (lane == 0)
    finish_temperatures<float>(p.terms, user, row, user_dot_sums, totals.positive_score, out);
  if (lane != 0 || b.user_columns == nullptr) return;
  // Weights of the second pass: |dL/ds| of the pair times the user's scale; their value is |dL/dz|.
  const double scale = b.users.tile_scale[user];
  const double weight = row.coefficient * totals.sum * row.inv_tau * scale;  // of p_bj
  Column column{};
  column.scale = static_cast<float>(kLog2e * scale * row.inv_tau);
  column.bias =
      weight == 0 ? -INFINITY : static_cast<float>(log2(fabs(weight)) - max - log2(totals.sum));
  column.value = static_cast<float>((weight < 0 ? -1 : 1) / (row.inv_tau * scale));
  b.user_columns[user] = column;
  b.positive_gradient[user] = static_cast<float>(row.positive * row.inv_positive_tau);
  b.positive_log_q[user] =
      p.terms.denominator == Denominator::all ? static_cast<float>(row.positive) : 0;
}

__global__ void __launch_bounds__(kThreads)
    finish_items_kernel(SoftmaxProblem<float> p, SoftmaxOutput<float> out, Buffers b) {
  const int64_t at = this_warp(), M = p.items.rows, d = p.items.cols;
  const int lane = threadIdx.x % 32;
  if (at >= M) return;
  const int64_t item = b.items.order != nullptr ? b.items.order[at] : at;
  const double max = split_max(b.by_item, at, M);
  const double log_q =
      p.terms.log_q != nullptr ? static_cast<double>(p.terms.log_q[item]) * kLog2e : 0;
  const double factor = max == -INFINITY ? 1 : exp2(max - log_q);
  if (out.grad_log_q != nullptr && lane == 0) {
    double total = 0;
    for (int n = 0; n < b.by_item.splits; ++n) {
      const RowSums& s = b.by_item.rows[n * M + at];
      total += static_cast<double>(s.total) * split_factor(s.max, max);
    }
    out.grad_log_q[item] = static_cast<float>(-total * factor);
  }
  if (out.grad_items == nullptr) return;
  const float si = b.items.unit_scale[item], scale = static_cast<float>(factor);
  float along = 0;
  for (int64_t k = lane; k < d; k += 32)
    along =
        fmaf(element(p.items, item, k) * si, split_sum(b.by_item, at, M, d, k, max) * scale, along);
  along = warp_sum(along);
  for (int64_t k = lane; k < d; k += 32) {
    const float g = split_sum(b.by_item, at, M, d, k, max) * scale;
    const float unit = element(p.items, item, k) * si;
    out.grad_items[item * d + k] = p.terms.normalize.item ? (g - along * unit) * si : g;
  }
}

// The first of the users with a target adds up what all of them give it, in order.
__global__ void __launch_bounds__(kThreads)
    add_positives_kernel(SoftmaxProblem<float> p, SoftmaxOutput<float> out, Buffers b,
                         const int64_t* sorted_target, const int64_t* by_target) {
  const int64_t first = this_warp(), B = p.users.rows, d = p.users.cols;
  const int lane = threadIdx.x % 32;
  if (first >= B) return;
  const int64_t item = sorted_target != nullptr ? sorted_target[first] : first;
  if (item < 0) return;  // these users have no positive
  if (sorted_target != nullptr && first > 0 && sorted_target[first - 1] == item) return;
  constexpr int kElements = kMaxDimension / 32;
  float sum[kElements] = {}, log_q = 0;
  for (int64_t at = first; at < B; ++at) {
    if (at > first && (sorted_target == nullptr || sorted_target[at] != item)) break;
    const int64_t user = by_target != nullptr ? by_target[at] : at;
    const float gradient = b.positive_gradient[user] * b.users.unit_scale[user];
    log_q += b.positive_log_q[user];
#pragma unroll
    for (int n = 0; n < kElements; ++n) {
      const int64_t k = n * 32 + lane;
      if (k < d) sum[n] = fmaf(gradient, element(p.users, user, k), sum[n]);
    }
  }
  if (out.grad_log_q != nullptr && lane == 0) out.grad_log_q[item] -= log_q;
  if (out.grad_items == nullptr) return;
  const float si = b.items.unit_scale[item];
  float unit[kElements] = {}, along = 0;
#pragma unroll
  for (int n = 0; n < kElements; ++n) {
    const int64_t k = n * 32 + lane;
    if (k < d) unit[n] = element(p.items, item, k) * si;
    along = fmaf(unit[n], sum[n], along);
  }
  along = warp_sum(along);
#pragma unroll
  for (int n = 0; n < kElements; ++n) {
    const int64_t k = n * 32 + lane;
    if (k < d)
      out.grad_items[item * d + k] +=
          p.terms.normalize.item ? (sum[n] - along * unit[n]) * si : sum[n];
  }
}

}  // namespace

int64_t softmax_workspace(const SoftmaxCall& call) {
  Workspace measure;
  Buffers(call, measure);
  return measure.used();
}

cudaError_t softmax(const SoftmaxCall& call, void* workspace, cudaStream_t stream) {
  Workspace memory(workspace);
  const Buffers b(call, memory);
  const SoftmaxProblem<float>& p = call.problem;
  const int64_t B = p.users.rows, M = p.items.rows;
  const int d = static_cast<int>(p.users.cols);
  const TileType type = Buffers::type(call);
  cudaError_t error;
  if ((error = prepare(b.users, stream)) != cudaSuccess) return error;
  if ((error = prepare(b.items, stream)) != cudaSuccess) return error;

  if (B > 0) {
    user_scales_kernel<<<threads(B), kThreads, 0, stream>>>(p, b);
    if (M > 0) item_columns_kernel<<<threads(padded_columns(M)), kThreads, 0, stream>>>(p, b);
    WeightedSums first{};
    first.tables = {b.users.tiles(), b.items.tiles(), b.item_columns, call.masks};
    first.row_scale = b.user_scale;
    first.unit_scale = b.unit_scale;
    first.users_are_rows = true;
    first.splits = b.by_user.splits;
    first.d = d;
    first.sums = b.by_user.sums;
    first.more_sums = b.by_user.more_sums;
    first.row_sums = b.by_user.rows;
    if ((error = weighted_sums(type, first, stream)) != cudaSuccess) return error;
    finish_users_kernel<<<warps(padded_columns(B)), kThreads, 0, stream>>>(p, call.out, b);
    if ((error = cudaGetLastError()) != cudaSuccess) return error;
  }
  if (!Buffers::wants_item_sums(call) || M == 0) return cudaSuccess;

  WeightedSums second{};
  second.tables = {b.items.tiles(), b.users.tiles(), b.user_columns, call.masks};
  second.row_scale = b.items.tile_scale;
  second.splits = b.by_item.splits;
  second.d = d;
  second.sums = b.by_item.sums;
  second.more_sums = b.by_item.more_sums;
  second.row_sums = b.by_item.rows;
  if ((error = weighted_sums(type, second, stream)) != cudaSuccess) return error;
  finish_items_kernel<<<warps(M), kThreads, 0, stream>>>(p, call.out, b);
  if (B > 0)
    add_positives_kernel<<<warps(B), kThreads, 0, stream>>>(p, call.out, b, call.sorted_target,
                                                            call.by_target);
  return cudaGetLastError();
}

}  // namespace adaptau::cuda
