// Exact top-k without a score matrix.
//
// Each user keeps a list of the best candidates so far and the key that a new one must reach
// (candidate_lists.h). Two scans find candidates, a panel of 48 items against 48 users at a time:
//   float   scores the tile in float and compares keys;
//   bytes   compares integer sums with a bound that misses nothing, and scores the few that pass
//           (byte_scan.h). Where many pass (ties without end, rows that bytes cannot hold) the
//           tile is scored in float after all.
// Both give the same result to the bit: a score is always the same chain of multiply-adds.
#include <type_traits>

#include "byte_scan.h"
#include "operators.h"

namespace adaptau {
namespace {

template <class T>
void scan_floats(const Scan<T>& scan, const ScanShare& s, CandidateLists<T>& lists) {
  typename Scan<T>::Reader reader(scan);
  std::vector<Key<T>> threshold((s.g1 - s.g0) * kTile, std::numeric_limits<Key<T>>::max());
  for (int64_t g = s.g0; g < s.g1; ++g)
    std::fill_n(threshold.begin() + (g - s.g0) * kTile, scan.users_in(g),
                std::numeric_limits<Key<T>>::min());
  for (int64_t panel = s.p0; panel < s.p1; ++panel) {
    reader.load(panel);
    for (int64_t g = s.g0; g < s.g1; ++g)
      score_tile(scan, reader, s.range, panel, g, lists, threshold.data() + (g - s.g0) * kTile);
  }
}

// Every task by scan_share(share, lists), then the lists of all its ranges together.
template <class T, class F>
void run_tasks(const TopkProblem& p, const Scan<T>& scan, const ScanTasks& tasks,
               const Parallel& parallel, T* scores, int64_t* ids, F&& scan_share) {
  CandidateLists<T> lists(p, tasks.ranges());
  for_each_task(parallel, tasks.count(), [&](int64_t task, int) {
    const ScanShare share = tasks.share(task);
    lists.seek(share.range, share.g0 * kTile, share.g1 * kTile, share.p0 * kTile);
    scan_share(share, lists);
  });
  for_each_task(parallel, scan.groups(), [&](int64_t g, int) {
    for (int64_t b = g * kTile; b < g * kTile + scan.users_in(g); ++b)
      lists.finish(b, scores + b * p.k, ids + b * p.k);
  });
}

}  // namespace

template <class T>
void topk(const TopkProblem& p, const PackedItems* packed, T* scores, int64_t* ids,
          const Parallel& parallel) {
  if (p.users.rows == 0 || p.k == 0) return;
  const std::vector<int64_t> in_batch_order;
  const Scan<T> scan(p.users, p.items, p.normalize, in_batch_order);
  if constexpr (std::is_same_v<T, float>) {
    if (ByteScan::worthwhile(p, packed != nullptr, scan.kernels())) {
      const ByteScan bytes(p, packed, scan, parallel);
      return run_tasks(p, scan, bytes.tasks(parallel.workers), parallel, scores, ids,
                       [&](const ScanShare& share, auto& lists) { bytes.run(share, lists); });
    }
  }
  run_tasks(p, scan, ScanTasks(scan.groups(), scan.panels(), parallel.workers), parallel, scores,
            ids, [&](const ScanShare& share, auto& lists) { scan_floats(scan, share, lists); });
}

template void topk<float>(const TopkProblem&, const PackedItems*, float*, int64_t*,
                          const Parallel&);
template void topk<double>(const TopkProblem&, const PackedItems*, double*, int64_t*,
                           const Parallel&);

}  // namespace adaptau
