// Buckets of the pairs that do not count: counted, summed up by the caller, then filled.
//
// A warp takes a user, a lane an entry of its list. An entry's id stands for a range of candidates
// (they are sorted by id), cut at the buckets' borders. Where in its bucket an entry lands depends
// on the order of the atomics; what the bucket hides does not.
#include <cassert>

#include "operators.h"
#include "tile_masks.cuh"

namespace adaptau::cuda {
namespace {

constexpr int kThreads = 256;

__device__ int64_t lower_bound(const int64_t* sorted, int64_t n, int64_t value) {
  int64_t low = 0;
  while (n > 0) {
    const int64_t half = n / 2;
    if (sorted[low + half] < value) {
      low += half + 1;
      n -= half + 1;
    } else {
      n = half;
    }
  }
  return low;
}

// Calls visit(bucket, entry) for each piece of the candidates that carry the id.
template <class Visit>
__device__ void visit_id(const MaskPairs& p, int64_t user, int64_t id, Visit visit) {
  int64_t first = id, last = id + 1;
  if (p.sorted_ids != nullptr) {
    first = lower_bound(p.sorted_ids, p.n_items, id);
    last = lower_bound(p.sorted_ids, p.n_items, id + 1);
  }
  const int64_t user_tiles = (p.n_users + kMaskTile - 1) / kMaskTile;
  for (int64_t tile = first / kMaskTile; tile * kMaskTile < last; ++tile) {
    const int64_t start = tile * kMaskTile;
    visit(
        tile * user_tiles + user / kMaskTile,
        mask_entry(static_cast<int>(user % kMaskTile), static_cast<int>(max(first, start) - start),
                   static_cast<int>(min(last, start + kMaskTile) - start)));
  }
}

template <class Visit>
__device__ void visit_pairs(const MaskPairs& p, Visit visit) {
  const int64_t user = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / 32;
  const int lane = threadIdx.x % 32;
  if (user >= p.n_users) return;
  if (p.positives && lane == 0) {
    const int64_t target = p.target != nullptr ? p.target[user] : user;
    assert(target >= -1 && target < p.n_items && "target must lie in [-1, n_items)");
    if (target >= 0) visit_id(p, user, p.item_ids != nullptr ? p.item_ids[target] : target, visit);
  }
  if (p.excluded.indptr == nullptr) return;
  const int64_t begin = p.excluded.indptr[user], end = p.excluded.indptr[user + 1];
  assert(begin >= 0 && begin <= end && end <= p.n_excluded && "exclude indptr must not decrease");
  for (int64_t e = begin + lane; e < end; e += 32) {
    const int64_t id = p.excluded.indices[e];
    assert(id >= 0 && (p.item_ids != nullptr || id < p.n_items) && "exclude must hold items");
    assert((e == begin || p.excluded.indices[e - 1] < id) && "exclude rows must be ascending");
    visit_id(p, user, id, visit);
  }
}

__global__ void __launch_bounds__(kThreads) count_kernel(MaskPairs pairs, int32_t* counts) {
  visit_pairs(pairs, [&](int64_t bucket, uint32_t) { atomicAdd(counts + bucket, 1); });
}

__global__ void __launch_bounds__(kThreads)
    fill_kernel(MaskPairs pairs, int32_t* counts, const int32_t* offsets, uint32_t* entries) {
  visit_pairs(pairs, [&](int64_t bucket, uint32_t entry) {
    entries[offsets[bucket] - atomicSub(counts + bucket, 1)] = entry;
  });
}

int blocks(const MaskPairs& pairs) {
  return static_cast<int>((pairs.n_users * 32 + kThreads - 1) / kThreads);
}

int64_t tiles(int64_t n) { return (n + kMaskTile - 1) / kMaskTile; }

}  // namespace

int64_t mask_buckets(const MaskPairs& pairs) { return tiles(pairs.n_users) * tiles(pairs.n_items); }

int64_t max_mask_entries(const MaskPairs& pairs) {
  const int64_t ids = pairs.n_excluded + (pairs.positives ? pairs.n_users : 0);
  // A user's excluded ranges do not overlap, so they are cut at each border at most once; nor do
  // the pieces of its positive's range.
  return ids + (pairs.item_ids != nullptr ? 2 * pairs.n_users * tiles(pairs.n_items) : 0);
}

cudaError_t count_masks(const MaskPairs& pairs, int32_t* counts, cudaStream_t stream) {
  if (pairs.n_users > 0) count_kernel<<<blocks(pairs), kThreads, 0, stream>>>(pairs, counts);
  return cudaGetLastError();
}

cudaError_t fill_masks(const MaskPairs& pairs, int32_t* counts, const int32_t* offsets,
                       uint32_t* entries, cudaStream_t stream) {
  if (pairs.n_users > 0)
    fill_kernel<<<blocks(pairs), kThreads, 0, stream>>>(pairs, counts, offsets, entries);
  return cudaGetLastError();
}

}  // namespace adaptau::cuda
