// Exact top-k without a score matrix.
//
// Each user keeps a list of the best candidates so far and the key that a new one must reach
// (candidate_lists.h). Two scans find candidates, a panel of 48 items against 48 users at a time:
//   float   scores the tile in float and compares keys;
//   bytes   compares integer sums with a bound that misses nothing, and scores in the end the few
//           that are left (byte_scan.h). Where many pass (ties without end, rows that bytes cannot
//           hold) the tile is scored in float after all.
// Both give the same result to the bit: a score is always the same chain of multiply-adds.
#include <type_traits>

#include "byte_scan.h"
#include "operators.h"

namespace adaptau {
namespace {

// Offers the hits of one tile of float scores; `threshold` holds the group's keys and follows the
// lists.
template <class T>
void score_tile(const Scan<T>& scan, typename Scan<T>::Reader& reader, int64_t range, int64_t panel,
                int64_t g, CandidateLists<T>& lists, Key<T>* threshold) {
  uint16_t hits[kTile * kTile];
  const T* tile = reader.score(g);
  const int64_t n = scan.kernels().scan_tile(reader.items(), scan.lanes(g), tile, threshold, hits);
  for (int64_t h = 0; h < n; ++h) {
    const int64_t lane = hits[h] % kTile, b = g * kTile + lane;
    if (lane >= scan.users_in(g)) continue;
    const Key<T> key = score_key(tile[hits[h]]);
    if (key < threshold[lane]) continue;  // risen since the tile was scanned
    if (lists.offer(range, b, key, panel * kTile + hits[h] / kTile))
      threshold[lane] = lists.threshold(range, b);
  }
}

// The items as rows that can be scored: where they cannot be where they lie, or are scored so often
// that it pays to have them on huge pages. Empty if not, or if they are too many.
Buffer<float> rows_at_hand(const TopkProblem& p, const Kernels<float>& kernels,
                           const Parallel& parallel) {
  constexpr int64_t most = 32 << 20;  // bytes
  const int64_t n = p.items.rows, ld = padded<float>(p.items.cols);
  const bool in_place = readable_in_place<float>(p.items) && !p.normalize.item;
  if ((in_place && p.users.rows * p.k < 4 * n) ||
      n * ld * static_cast<int64_t>(sizeof(float)) > most)
    return Buffer<float>(0);
  Buffer<float> rows(n * ld);
  for_each_task(parallel, (n + kTile - 1) / kTile, [&](int64_t panel, int) {
    const int64_t first = panel * kTile;
    read_rows(p.items, first, std::min<int64_t>(kTile, n - first), p.normalize.item, kernels,
              rows.get() + first * ld, ld, static_cast<float*>(nullptr));
  });
  return rows;
}

template <class T>
void scan_floats(const TopkProblem& p, const Scan<T>& scan, const Parallel& parallel, T* scores,
                 int64_t* ids) {
  const ScanTasks tasks(scan.groups(), scan.panels(), parallel.workers);
  CandidateLists<T> lists(p, tasks.ranges());
  for_each_task(parallel, tasks.count(), [&](int64_t task, int) {
    const ScanShare s = tasks.share(task);
    lists.seek(s.range, s.g0 * kTile, s.g1 * kTile, s.p0 * kTile);
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
  if constexpr (std::is_same_v<T, float>) {
    const Kernels<float>& kernels = active_kernels<float>();
    if (ByteScan::worthwhile(p, packed != nullptr, kernels)) {
      const Buffer<float> rows = rows_at_hand(p, kernels, parallel);
      TopkProblem plain = p;
      if (rows.size() > 0) {
        const int64_t ld = padded<float>(p.items.cols);
        plain.items = {rows.get(), DType::f32, p.items.rows, p.items.cols, ld, 1};
        plain.normalize.item = false;
      }
      const Scan<float> scan(plain.users, plain.items, plain.normalize, in_batch_order, parallel);
      return ByteScan(plain, packed, scan, parallel).topk(parallel, scores, ids);
    }
  }
  scan_floats(p, Scan<T>(p.users, p.items, p.normalize, in_batch_order, parallel), parallel, scores,
              ids);
}

template void topk<float>(const TopkProblem&, const PackedItems*, float*, int64_t*,
                          const Parallel&);
template void topk<double>(const TopkProblem&, const PackedItems*, double*, int64_t*,
                           const Parallel&);

}  // namespace adaptau
