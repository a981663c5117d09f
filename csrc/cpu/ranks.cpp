// Exact ranks by counting, without selecting or sorting anything: the rank of a target is one plus
// the number of competitors that stand before it. Items with smaller ids need to reach the target's
// key, items with larger ids to exceed it.
//
// Users are grouped by their number of targets, because a tile is compared once for each "i-th
// target of every lane". Excluded items are counted with the others and taken off afterwards.
#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "operators.h"
#include "scan.h"

namespace adaptau {
namespace {

// The i-th target of each lane of a group.
template <class T>
struct TargetLayer {
  Key<T> key[kTile];  // INT_MAX where the lane has no i-th target: nothing reaches it
  int64_t id[kTile];
  int64_t first_id, last_id;  // of the lanes that have one
};

// Does (key, id) stand before the target?
template <class T>
bool before(Key<T> key, int64_t id, Key<T> target_key, int64_t target_id) {
  return key != target_key ? key > target_key : id < target_id;
}

}  // namespace

template <class T>
void ranks(const RanksProblem& p, int64_t* ranks, const Parallel& parallel) {
  const int64_t B = p.users.rows;
  auto n_targets = [&](int64_t b) { return p.targets.indptr[b + 1] - p.targets.indptr[b]; };
  std::vector<int64_t> order(B);
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return n_targets(a) > n_targets(b); });
  const Scan<T> scan(p.users, p.items, p.normalize, order);
  const ScanTasks tasks(scan.groups(), scan.panels(), parallel.workers);

  // counts[range][target]: competitors that stand before it
  const int64_t nnz = B == 0 ? 0 : p.targets.indptr[B];
  std::vector<int64_t> counts(tasks.ranges() * nnz, 0);

  for_each_task(parallel, tasks.count(), [&](int64_t task, int) {
    const auto [range, g0, g1, p0, p1] = tasks.share(task);
    typename Scan<T>::Reader reader(scan);
    Buffer<T> row(scan.row_length());
    for (int64_t g = g0; g < g1; ++g) {
      const int64_t n = scan.users_in(g), depth = n_targets(scan.user(g, 0));
      if (depth == 0) break;  // and every later group has none either
      std::vector<TargetLayer<T>> layers(depth);
      std::vector<Key<T>> count(depth * kTile, 0);
      for (int64_t i = 0; i < depth; ++i) {
        TargetLayer<T>& layer = layers[i];
        layer.first_id = p.items.rows;
        layer.last_id = -1;
        for (int64_t l = 0; l < kTile; ++l) {
          layer.key[l] = std::numeric_limits<Key<T>>::max();
          layer.id[l] = -1;
          if (l >= n || i >= n_targets(scan.user(g, l))) continue;
          const int64_t id = p.targets.indices[p.targets.indptr[scan.user(g, l)] + i];
          layer.id[l] = id;
          layer.key[l] = score_key(scan.score_one(g, l, id, row.get()));
          layer.first_id = std::min(layer.first_id, id);
          layer.last_id = std::max(layer.last_id, id);
        }
      }
      for (int64_t panel = p0; panel < p1; ++panel) {
        reader.load(panel);
        const T* tile = reader.score(g);
        const int64_t first = panel * kTile, items = reader.items();
        for (int64_t i = 0; i < depth; ++i) {
          const TargetLayer<T>& layer = layers[i];
          Key<T> threshold[kTile];
          for (int64_t l = 0; l < kTile; ++l) {
            const bool reach = first + items <= layer.id[l];  // all of the panel has smaller ids
            threshold[l] = layer.key[l] == std::numeric_limits<Key<T>>::max() || reach
                               ? layer.key[l]
                               : layer.key[l] + 1;
          }
          scan.kernels().count_tile(items, scan.lanes(g), tile, threshold, &count[i * kTile]);
          if (first > layer.last_id || first + items <= layer.first_id) continue;
          for (int64_t l = 0; l < n; ++l)  // equal scores before a target inside this panel
            for (int64_t j = first; j < std::min(layer.id[l], first + items); ++j)
              if (first + items > layer.id[l] &&
                  score_key(tile[(j - first) * kTile + l]) == layer.key[l])
                ++count[i * kTile + l];
        }
      }
      for (int64_t l = 0; l < n; ++l) {
        const int64_t b = scan.user(g, l);
        for (int64_t i = 0; i < n_targets(b); ++i) {
          int64_t& total = counts[range * nnz + p.targets.indptr[b] + i];
          total = count[i * kTile + l];
        }
        if (range != 0 || p.excluded.indptr == nullptr) continue;
        for (int64_t e = p.excluded.indptr[b]; e < p.excluded.indptr[b + 1]; ++e) {
          const int64_t id = p.excluded.indices[e];
          const Key<T> key = score_key(scan.score_one(g, l, id, row.get()));
          for (int64_t i = 0; i < n_targets(b); ++i)
            if (before<T>(key, id, layers[i].key[l], layers[i].id[l]))
              --counts[p.targets.indptr[b] + i];
        }
      }
    }
  });
  for (int64_t t = 0; t < nnz; ++t) {
    ranks[t] = 1;
    for (int64_t range = 0; range < tasks.ranges(); ++range) ranks[t] += counts[range * nnz + t];
  }
}

template void ranks<float>(const RanksProblem&, int64_t*, const Parallel&);
template void ranks<double>(const RanksProblem&, int64_t*, const Parallel&);

}  // namespace adaptau
