// Exact top-k without a score matrix: each user keeps up to 2k candidates and the key that a new
// one must reach; a full list is cut back to its k best, which raises the key. Items come in
// ascending order, so among equal scores the first seen is the one that stays.
#include <algorithm>
#include <limits>
#include <vector>

#include "operators.h"
#include "scan.h"

namespace adaptau {
namespace {

// The best candidates of one user over one range of items.
template <class T>
struct Shortlist {
  std::vector<Candidate<T>> best;
  int64_t next_excluded = 0;
};

template <class T>
void cut(std::vector<Candidate<T>>& list, int64_t k) {
  if (static_cast<int64_t>(list.size()) <= k) return;
  std::nth_element(list.begin(), list.begin() + (k - 1), list.end(), precedes<T>);
  list.resize(k);
}

}  // namespace

template <class T>
void topk(const TopkProblem& p, T* scores, int64_t* ids, const Parallel& parallel) {
  const int64_t B = p.users.rows, k = p.k, capacity = 2 * k + 32;
  if (B == 0 || k == 0) return;
  const std::vector<int64_t> in_batch_order;
  const Scan<T> scan(p.users, p.items, p.normalize, in_batch_order);
  const ScanTasks tasks(scan.groups(), scan.panels(), parallel.workers);
  std::vector<Shortlist<T>> lists(tasks.ranges() * B);

  for_each_task(parallel, tasks.count(), [&](int64_t task, int) {
    const auto [range, g0, g1, p0, p1] = tasks.share(task);
    typename Scan<T>::Reader reader(scan);
    std::vector<Key<T>> threshold((g1 - g0) * kTile, std::numeric_limits<Key<T>>::max());
    std::vector<uint16_t> hits(kTile * kTile);
    for (int64_t b = g0 * kTile; b < std::min(g1 * kTile, B); ++b) {
      Shortlist<T>& list = lists[range * B + b];
      list.best.reserve(std::min(capacity, p.items.rows));
      threshold[b - g0 * kTile] = std::numeric_limits<Key<T>>::min();
      if (p.excluded.indptr != nullptr) {
        const int64_t* begin = p.excluded.indices + p.excluded.indptr[b];
        const int64_t* end = p.excluded.indices + p.excluded.indptr[b + 1];
        list.next_excluded = std::lower_bound(begin, end, p0 * kTile) - p.excluded.indices;
      }
    }
    for (int64_t panel = p0; panel < p1; ++panel) {
      reader.load(panel);
      for (int64_t g = g0; g < g1; ++g) {
        const T* tile = reader.score(g);
        Key<T>* group_threshold = threshold.data() + (g - g0) * kTile;
        const int64_t n = scan.kernels().scan_tile(reader.items(), scan.lanes(g), tile,
                                                   group_threshold, hits.data());
        for (int64_t h = 0; h < n; ++h) {
          const int64_t lane = hits[h] % kTile, item = panel * kTile + hits[h] / kTile;
          const int64_t b = g * kTile + lane;
          if (b >= B) continue;
          const Key<T> key = score_key(tile[hits[h]]);
          if (key < group_threshold[lane]) continue;  // raised since the tile was scanned
          Shortlist<T>& list = lists[range * B + b];
          if (p.excluded.indptr != nullptr) {
            const int64_t end = p.excluded.indptr[b + 1];
            while (list.next_excluded < end && p.excluded.indices[list.next_excluded] < item)
              ++list.next_excluded;
            if (list.next_excluded < end && p.excluded.indices[list.next_excluded] == item)
              continue;
          }
          list.best.push_back({key, static_cast<int32_t>(item)});
          if (static_cast<int64_t>(list.best.size()) < capacity) continue;
          cut(list.best, k);
          // the k-th key; later items must exceed it: at equal scores the earlier id wins
          group_threshold[lane] = list.best[k - 1].key + 1;
        }
      }
    }
  });

  for_each_task(parallel, (B + kTile - 1) / kTile, [&](int64_t task, int) {
    for (int64_t b = task * kTile; b < std::min((task + 1) * kTile, B); ++b) {
      std::vector<Candidate<T>>& best = lists[b].best;
      for (int64_t range = 1; range < tasks.ranges(); ++range) {
        const auto& more = lists[range * B + b].best;
        best.insert(best.end(), more.begin(), more.end());
      }
      cut(best, k);
      std::sort(best.begin(), best.end(), precedes<T>);
      for (int64_t i = 0; i < k; ++i) {
        scores[b * k + i] = key_score<T>(best[i].key);
        ids[b * k + i] = best[i].id;
      }
    }
  });
}

template void topk<float>(const TopkProblem&, float*, int64_t*, const Parallel&);
template void topk<double>(const TopkProblem&, double*, int64_t*, const Parallel&);

}  // namespace adaptau
