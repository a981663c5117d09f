// Exact ranks by counting, without selecting or sorting anything: the rank of a target is one plus
// the number of competitors that stand before it. Items with smaller ids need to reach the target's
// score, items with larger ids to exceed it, which is to reach the next number above.
//
// Users are grouped by their number of targets, because every lane of a group is compared with as
// many thresholds. Excluded items are counted with the others and taken off afterwards.
#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "operators.h"
#include "scan.h"

namespace adaptau {
namespace {

int64_t n_targets(const RanksProblem& p, int64_t b) {
  return p.targets.indptr[b + 1] - p.targets.indptr[b];
}

// The least score above x, every number standing above NaN.
template <class T>
T next_above(T x) {
  if (x != x) return -std::numeric_limits<T>::infinity();
  const T next = key_score<T>(score_key(x) + 1);  // NaN above infinity
  // equal only where this thread flushes subnormal numbers, scores too, and x is zero
  return next <= x ? std::numeric_limits<T>::min() : next;
}

// The targets of a group's users and how far a range of panels has been counted for them. Target i
// of lane l is at [i * 48 + l].
template <class T>
class GroupTargets {
 public:
  GroupTargets(const RanksProblem& p, const Scan<T>& scan, int64_t g)
      : depth_(n_targets(p, scan.user(g, 0))),  // the lane with the most
        score_(depth_ * kTile, std::numeric_limits<T>::quiet_NaN()),
        bound_(score_),
        id_(depth_ * kTile, -1),
        count_(depth_ * kTile, 0) {
    const int64_t behind = (p.items.rows + kTile - 1) / kTile * kTile;
    std::vector<T> scored(depth_);
    for (int64_t l = 0; l < scan.users_in(g); ++l) {
      const int64_t b = scan.user(g, l), n = n_targets(p, b);
      const int64_t* ids = p.targets.indices + p.targets.indptr[b];
      const T* scores = scored.data();
      if (p.target_scores != nullptr) {
        scores = static_cast<const T*>(p.target_scores) + p.targets.indptr[b];
      } else {
        scan.score_items(g, l, n, ids, scored.data());
      }
      for (int64_t i = 0; i < n; ++i) {
        const int64_t at = i * kTile + l;
        const int64_t id = ids[i] - p.first_item;
        id_[at] = id < p.items.rows ? id : behind;  // negative: before this part
        score_[at] = scores[i];
        by_id_.push_back(at);
      }
    }
    std::sort(by_id_.begin(), by_id_.end(), [&](int64_t a, int64_t b) { return id_[a] < id_[b]; });
  }

  // Items [first, last) are the range to count, by panels in order.
  void seek(int64_t first, int64_t last) {
    auto target = by_id_.begin();
    for (; target != by_id_.end() && id_[*target] < first; ++target)
      bound_[*target] = next_above(score_[*target]);
    next_ = target;
    for (; target != by_id_.end(); ++target) {
      bound_[*target] = score_[*target];
      if (score_[*target] != score_[*target])  // which the panels before it reach, NaN or not
        count_[*target] = static_cast<Key<T>>(std::min(id_[*target] / kTile * kTile, last) - first);
    }
  }

  void count(typename Scan<T>::Reader& reader, int64_t g, int64_t first) {
    const auto inside = next_;
    for (; next_ != by_id_.end() && id_[*next_] < first + reader.items(); ++next_)
      bound_[*next_] = next_above(score_[*next_]);
    const T* tile = reader.count(g, {depth_, bound_.data(), count_.data()}, inside != next_);
    for (auto target = inside; target != next_; ++target)  // equal scores before it, in its panel
      for (int64_t j = 0; j < id_[*target] - first; ++j)
        count_[*target] +=
            score_key(tile[j * kTile + *target % kTile]) == score_key(score_[*target]);
  }

  int64_t counted(int64_t i, int64_t l) const { return count_[i * kTile + l]; }
  // Does the item stand before the target?
  bool precedes(const Candidate<T>& item, int64_t i, int64_t l) const {
    const int64_t at = i * kTile + l;
    const Key<T> key = score_key(score_[at]);
    return item.key != key ? item.key > key : item.id < id_[at];
  }

 private:
  const int64_t depth_;
  std::vector<T> score_, bound_;  // NaN where a lane has no target
  std::vector<int64_t> id_;
  std::vector<Key<T>> count_;
  std::vector<int64_t> by_id_;                 // positions of targets
  std::vector<int64_t>::const_iterator next_;  // of the first whose panel is still to come
};

}  // namespace

template <class T>
void ranks(const RanksProblem& p, int64_t* ranks, const Parallel& parallel) {
  const int64_t B = p.users.rows, nnz = B == 0 ? 0 : p.targets.indptr[B];
  if (p.items.rows == 0) {  // an empty part of a catalogue
    std::fill_n(ranks, nnz, 1);
    return;
  }
  std::vector<int64_t> order(B);
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return n_targets(p, a) > n_targets(p, b); });
  const Scan<T> scan(p.users, p.items, p.normalize, order, parallel);
  const ScanTasks tasks(scan.groups(), scan.panels(), parallel.workers);

  // counts[range][target]: competitors that stand before it
  std::vector<int64_t> counts(tasks.ranges() * nnz, 0);

  for_each_task(parallel, tasks.count(), [&](int64_t task, int) {
    const auto [range, g0, g1, p0, p1] = tasks.share(task);
    typename Scan<T>::Reader reader(scan);
    std::vector<T> scores;  // of excluded items
    for (int64_t g = g0; g < g1; ++g) {
      if (n_targets(p, scan.user(g, 0)) == 0) break;  // and every later group has none either
      GroupTargets<T> targets(p, scan, g);
      targets.seek(p0 * kTile, std::min(p1 * kTile, p.items.rows));
      for (int64_t panel = p0; panel < p1; ++panel) {
        reader.load(panel);
        targets.count(reader, g, panel * kTile);
      }
      for (int64_t l = 0; l < scan.users_in(g); ++l) {
        const int64_t b = scan.user(g, l);
        int64_t* count = &counts[range * nnz + p.targets.indptr[b]];
        for (int64_t i = 0; i < n_targets(p, b); ++i) count[i] = targets.counted(i, l);
        if (range != 0 || p.excluded.indptr == nullptr) continue;
        const int64_t* ids = p.excluded.indices + p.excluded.indptr[b];
        scores.resize(p.excluded.indptr[b + 1] - p.excluded.indptr[b]);
        scan.score_items(g, l, static_cast<int64_t>(scores.size()), ids, scores.data());
        for (size_t e = 0; e < scores.size(); ++e) {
          const Candidate<T> item{score_key(scores[e]), static_cast<int32_t>(ids[e])};
          for (int64_t i = 0; i < n_targets(p, b); ++i) count[i] -= targets.precedes(item, i, l);
        }
      }
    }
  });
  for (int64_t t = 0; t < nnz; ++t) {
    ranks[t] = 1;
    for (int64_t range = 0; range < tasks.ranges(); ++range) ranks[t] += counts[range * nnz + t];
  }
}

template <class T>
void target_scores(const RanksProblem& p, T* scores, const Parallel& parallel) {
  const std::vector<int64_t> as_they_are;
  const Scan<T> scan(p.users, p.items, p.normalize, as_they_are, parallel);
  for_each_task(parallel, scan.groups(), [&](int64_t g, int) {
    for (int64_t l = 0; l < scan.users_in(g); ++l) {
      const int64_t begin = p.targets.indptr[scan.user(g, l)];
      scan.score_items(g, l, n_targets(p, scan.user(g, l)), p.targets.indices + begin,
                       scores + begin);
    }
  });
}

template void target_scores<float>(const RanksProblem&, float*, const Parallel&);
template void target_scores<double>(const RanksProblem&, double*, const Parallel&);
template void ranks<float>(const RanksProblem&, int64_t*, const Parallel&);
template void ranks<double>(const RanksProblem&, int64_t*, const Parallel&);

}  // namespace adaptau
