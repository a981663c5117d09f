// Gradients of the items and of log_q, from the ids in ascending order: what belongs to an item
// lies together, and each sum has one owner and one order.
//
// A warp owns an item: it walks over its entries, 32 at a time, each lane finding one's weight (the
// exponential again, from the logit; of sampled_scores it is given), and a group of lanes adds user
// rows, several in flight. So that a popular item does not hold up the rest, entries are cut where
// their position is a multiple of kPiece: the owner takes those before the first cut, a warp for
// each piece the others beforehand, and the owner adds their sums in order.
//
// Traffic, B rows, N negatives, user rows of r bytes: B N r is gathered, out of the second-level
// cache, where the batch's rows always fit; an entry's logit is a sector of 32 bytes for 4, and its
// position 8 bytes, streamed. Each item's row is read once, and its gradient written once, by its
// owner.
#pragma once

#include "exp2.cuh"
#include "row_lanes.cuh"
#include "sampled.h"

namespace adaptau::cuda {

constexpr int kPiece = 512;
constexpr int kItemWarps = 4;  // a block
constexpr int kItemThreads = 32 * kItemWarps;

// Sums of an item, or of a piece of one.
struct ItemSums {
  float log_q, uses;  // dL/dlog_q; the weights of the rows that use the item
};

struct ItemPass {
  SampledCall call;
  SortedIds sorted;
  int64_t* starts;    // [n_items + 1] where each item's entries begin
  ItemSums* pieces;   // [piece]
  float* piece_rows;  // [piece, d]
  int64_t n_entries;
};

// Entries [first, last), all of one item, into this lane's columns and sums.
template <class Shape>
__device__ __forceinline__ void add_entries(const ItemPass& pass, int64_t first, int64_t last,
                                            typename Shape::Floats& gradient, ItemSums& sums) {
  const SampledCall& call = pass.call;
  const uint32_t N = static_cast<uint32_t>(call.problem.n_negatives);
  const int64_t negatives = call.problem.n_rows * N;
  const bool all = call.problem.terms.denominator == Denominator::all;
  const int lane = threadIdx.x % 32, group = lane / Shape::Lanes;
  const typename Shape::Reader reader(call.users);
  for (int64_t tile = first; tile < last; tile += 32) {
    float weight = 0, scale = 1;
    int32_t user = 0;
    if (tile + lane < last) {
      const int64_t from = __ldcs(pass.sorted.order + tile + lane);
      const bool negative = from < negatives;
      const int64_t b = negative ? static_cast<uint32_t>(from) / N : from - negatives;
      const SampledRow row = call.rows[b];
      float e = 0;
      if (negative)
        e = call.weights != nullptr ? call.weights[from]
                                    : exp2_approx(call.logits[from] - row.shift);
      weight = negative ? e * row.item_scale : row.positive_scale;
      sums.log_q -= negative ? row.coefficient * e : all ? row.positive : 0;
      sums.uses += row.weight;
      scale = row.user_scale;
      user = row.user;
    }
    if (call.out.grad_items == nullptr) continue;
    // Lanes without an entry stand for the first, with weight zero.
    const int32_t first_user = __shfl_sync(kAllLanes, user, 0);
    if (tile + lane >= last) user = first_user;
    const int count = static_cast<int>(min(last - tile, int64_t{32}));
    const bool scaled = __any_sync(kAllLanes, scale != 1);
#pragma unroll 1
    for (int step = 0; step < count; step += Shape::kStep) {
      typename Shape::Row users[Shape::kInFlight];
      const int base = step + group * Shape::kInFlight;
#pragma unroll
      for (int j = 0; j < Shape::kInFlight; ++j)
        users[j] = reader.read(__shfl_sync(kAllLanes, user, base + j));
      if (scaled) {
#pragma unroll
        for (int j = 0; j < Shape::kInFlight; ++j)
          users[j].multiply(__shfl_sync(kAllLanes, scale, base + j));
      }
#pragma unroll
      for (int j = 0; j < Shape::kInFlight; ++j)
        gradient.add(__shfl_sync(kAllLanes, weight, base + j), users[j]);
    }
  }
  gradient.sum_groups();
  sums.log_q = sum_lanes<32>(sums.log_q);
  sums.uses = sum_lanes<32>(sums.uses);
}

// A warp (a block where the columns are sliced) a cut: the entries from there to the next one that
// belong to an item which began before.
template <class Shape>
__global__ void __launch_bounds__(Shape::max_threads(kItemWarps), 1)
    sampled_pieces_kernel(ItemPass pass, int64_t n_pieces) {
  const int64_t piece = Shape::template owner<kItemWarps>() + 1;
  if (piece >= n_pieces) return;
  const int64_t first = piece * kPiece;
  const int32_t item = pass.sorted.ids[first];
  if (pass.starts[item] == first) return;
  typename Shape::Floats gradient;
  gradient.clear();
  ItemSums sums{0, 0};
  add_entries<Shape>(pass, first, min(pass.starts[item + 1], first + kPiece), gradient, sums);
  const int d = static_cast<int>(pass.call.problem.item_table.cols);
  if (pass.call.out.grad_items != nullptr) gradient.store(pass.piece_rows + piece * d, d);
  if (Shape::writes()) pass.pieces[piece] = sums;
}

// A warp (or block) an item.
template <class Shape>
__global__ void __launch_bounds__(Shape::max_threads(kItemWarps), 1)
    sampled_items_kernel(ItemPass pass) {
  const SampledProblem<float>& p = pass.call.problem;
  const SoftmaxOutput<float>& out = pass.call.out;
  const int64_t item = Shape::template owner<kItemWarps>();
  if (item >= p.item_table.rows) return;
  const int64_t first = pass.starts[item], last = pass.starts[item + 1];
  const int64_t cut = (first / kPiece + 1) * kPiece;
  const int d = static_cast<int>(p.item_table.cols);
  typename Shape::Floats gradient;
  gradient.clear();
  ItemSums sums{0, 0};
  add_entries<Shape>(pass, first, min(last, cut), gradient, sums);
  for (int64_t piece = cut / kPiece; piece * kPiece < last; ++piece) {
    sums.log_q += pass.pieces[piece].log_q;
    sums.uses += pass.pieces[piece].uses;
    if (out.grad_items == nullptr) continue;
    typename Shape::Floats more;
    more.load(pass.piece_rows + piece * d, d);
    gradient.add(1, more);
  }
  if (out.grad_log_q != nullptr && Shape::writes()) out.grad_log_q[item] = sums.log_q;
  if (out.grad_items == nullptr) return;
  const typename Shape::Reader items(pass.call.items);
  if (first < last && p.terms.normalize.item) {
    typename Shape::Row raw = items.read_whole(static_cast<int32_t>(item));
    const UnitScale unit = make_unit<Shape>(items, raw, Shape::sum(items.square(raw)));
    typename Shape::Floats unit_row;
    unit_row.clear();
    unit_row.add(unit.inverse, raw);
    gradient.add(-Shape::sum(unit_row.dot(gradient)), unit_row);
    gradient.multiply(unit.inverse_norm());
  }
  if (first < last && p.item_l2 != 0)
    gradient.add(static_cast<float>(p.item_l2) * sums.uses, items.read(static_cast<int32_t>(item)));
  gradient.store(out.grad_items + item * d, d);
}

template <class Shape>
cudaError_t launch_sampled_items(const ItemPass& pass, cudaStream_t stream) {
  const int64_t d = pass.call.problem.item_table.cols;
  const int64_t n_pieces = (pass.n_entries + kPiece - 1) / kPiece;
  const unsigned threads = Shape::block(kItemWarps, d);
  if (n_pieces > 1)
    sampled_pieces_kernel<Shape>
        <<<Shape::grid(kItemWarps, n_pieces - 1), threads, 0, stream>>>(pass, n_pieces);
  sampled_items_kernel<Shape>
      <<<Shape::grid(kItemWarps, pass.call.problem.item_table.rows), threads, 0, stream>>>(pass);
  return cudaGetLastError();
}

}  // namespace adaptau::cuda
