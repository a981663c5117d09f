// The best of some keys, without sorting the rest.
#pragma once

#include "order.cuh"

namespace adaptau::cuda {

// The k-th largest of n distinct keys, n >= k, by the calling threads: `first` and `step` say which
// are this thread's, count(n) adds n up over all of them.
template <class Count>
__device__ CandidateKey kth_largest(const CandidateKey* keys, int n, int k, int first, int step,
                                    Count count) {
  CandidateKey found = 0;
  for (int bit = 63; bit >= 0; --bit) {
    const CandidateKey tried = found | CandidateKey{1} << bit;
    int above = 0;
    for (int at = first; at < n; at += step) above += keys[at] >= tried;
    above = count(above);
    if (above >= k) found = tried;
    if (above == k) break;
  }
  return found;
}

// Keeps the k largest of a row's n keys, in front, by one warp; returns a lower bound of them.
__device__ inline CandidateKey keep_best(CandidateKey* keys, int n, int k) {
  const int lane = threadIdx.x % 32;
  const CandidateKey bound = kth_largest(keys, n, k, lane, 32, [](int above) {
    return static_cast<int>(__reduce_add_sync(~0u, above));
  });
  int kept = 0;
  for (int start = 0; start < n; start += 32) {
    const bool there = start + lane < n;
    const CandidateKey key = there ? keys[start + lane] : 0;
    __syncwarp();  // read by all before what follows writes it
    const unsigned keep = __ballot_sync(~0u, there && key >= bound);
    if (keep >> lane & 1) keys[kept + __popc(keep & ((1u << lane) - 1))] = key;
    kept += __popc(keep);
  }
  return bound;
}

}  // namespace adaptau::cuda
