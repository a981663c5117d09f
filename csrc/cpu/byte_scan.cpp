#include "byte_scan.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace adaptau {
namespace {

// Below these, quantising costs more than it saves.
constexpr int64_t kMinUsers = 32, kMinItems = 2048;
constexpr int64_t kMaxDimension = 16384;       // 32-bit sums of 255 * 127 products
constexpr int64_t kManyHits = 128;             // of 2304 in a tile: score it in float
constexpr int64_t kHitsAtOnce = 1024;          // scored together, from several groups
constexpr int64_t kKeptBytes = 32 << 20;       // a catalogue up to this is quantised once a call
constexpr int64_t kUserBytes = 128 << 10;       // of a task, which stay in the second-level cache
constexpr int64_t kFirstItemsPerResult = 180;  // scanned beforehand: as dear as the hits they save

constexpr float kInfinity = std::numeric_limits<float>::infinity();

int64_t group_bytes(int64_t d) { return kTile * byte_row(d); }

}  // namespace

// A worker's panel and what it found in it.
struct ByteScan::Worker {
  Worker(const ByteScan& scan, const ScanShare& share)
      : rows(kTile * byte_row(scan.p_.users.cols)),
        bytes(scan.packed_.bytes == nullptr ? group_bytes(scan.p_.users.cols) : 0),
        reader(scan.scan_),
        bound((share.g1 - share.g0) * kTile, kInfinity),
        threshold((share.g1 - share.g0) * kTile, std::numeric_limits<Key<float>>::max()) {}

  Buffer<float> rows;
  Buffer<uint8_t> bytes;
  float meta[4];
  Scan<float>::Reader reader;
  // of the share's users: what a centred score, and its key, must reach (nothing does where there
  // is no user)
  std::vector<float> bound;
  std::vector<Key<float>> threshold;
  // hits not yet scored: lane of the share, item of the panel
  int64_t n_hits = 0;
  int32_t lane[kHitsAtOnce];
  uint8_t item[kHitsAtOnce];
};

bool ByteScan::possible(const Matrix& items, const Kernels<float>& kernels) {
  return kernels.scan_int8 != nullptr && items.dtype != DType::f64 && items.cols > 0 &&
         items.cols <= kMaxDimension;
}
bool ByteScan::worthwhile(const TopkProblem& p, bool packed, const Kernels<float>& kernels) {
  return possible(p.items, kernels) &&
         (packed || (p.users.rows >= kMinUsers && p.items.rows >= kMinItems));
}

ByteScan::ByteScan(const TopkProblem& problem, const PackedItems* packed, const Scan<float>& scan,
                   const Parallel& parallel)
    : p_(problem), scan_(scan) {
  if (packed != nullptr) {
    packed_ = *packed;
  } else {
    centre_ = item_centre(p_.items, p_.normalize, scan.kernels());
    packed_.centre = centre_.data();
    const int64_t needed = scan.panels() * group_bytes(p_.items.cols);
    if (needed <= kKeptBytes) {
      bytes_ = Buffer<uint8_t>(needed);
      meta_ = Buffer<float>(scan.panels() * 4);
      pack_items(p_.items, p_.normalize, packed_.centre, parallel, bytes_.get(), meta_.get());
      packed_.bytes = bytes_.get();
      packed_.meta = meta_.get();
    }
  }
  users_ = std::make_unique<QuantizedUsers>(p_.users.rows, p_.users.cols, scan.row_length(),
                                            scan.user_rows(), packed_.centre,
                                            scan.kernels().int8_user_limit);
}

// Bytes that are there are read again for every few groups; bytes that must be made are made once,
// for all users, and workers share the catalogue instead.
ScanTasks ByteScan::tasks(int workers) const {
  if (packed_.bytes == nullptr) return ScanTasks::by_items(scan_.groups(), scan_.panels(), workers);
  return ScanTasks(scan_.groups(), scan_.panels(), workers,
                   std::max<int64_t>(4, kUserBytes / group_bytes(p_.users.cols)));
}

Int8Panel ByteScan::panel(int64_t index, Worker& w) const {
  if (packed_.bytes != nullptr)
    return as_panel(packed_.bytes + index * group_bytes(p_.users.cols), packed_.meta + index * 4);
  pack_panel(p_.items, p_.normalize, packed_.centre, index, scan_.kernels(), w.rows.get(),
             w.bytes.get(), w.meta);
  return as_panel(w.bytes.get(), w.meta);
}

void ByteScan::run(const ScanShare& s, CandidateLists<float>& lists) const {
  const Kernels<float>& kernels = scan_.kernels();
  const int64_t d4 = byte_row(p_.users.cols) / 4;
  Worker w(*this, s);
  start_bounds(s, lists, w);
  for (int64_t l = 0; l < std::min(s.g1 * kTile, p_.users.rows) - s.g0 * kTile; ++l)
    w.threshold[l] = std::numeric_limits<Key<float>>::min();

  uint16_t hits[kTile * kTile];
  for (int64_t index = s.p0; index < s.p1; ++index) {
    const Int8Panel items = panel(index, w);
    bool loaded = false;
    for (int64_t g = s.g0; g < s.g1; ++g) {
      const int64_t first_lane = (g - s.g0) * kTile;
      float* bound = w.bound.data() + first_lane;
      const int64_t n = kernels.scan_int8(scan_.items_in(index), scan_.lanes(g), d4, items,
                                          users_->group(g), bound, hits);
      if (n == 0) continue;
      if (!loaded) w.reader.load(index), w.reader.prefetch(index + 1);
      loaded = true;
      if (n > kManyHits) {
        score_tile(scan_, w.reader, s.range, index, g, lists, w.threshold.data() + first_lane);
        for (int64_t l = 0; l < scan_.users_in(g); ++l)
          raise(g * kTile + l, s.range, lists, bound[l]);
        continue;
      }
      if (w.n_hits + n > kHitsAtOnce) score_hits(s, index, lists, w);
      for (int64_t h = 0; h < n; ++h) {
        w.lane[w.n_hits] = static_cast<int32_t>(first_lane + hits[h] % kTile);
        w.item[w.n_hits++] = static_cast<uint8_t>(hits[h] / kTile);
      }
    }
    score_hits(s, index, lists, w);
  }
}

// Scores what was found in a panel and offers it.
void ByteScan::score_hits(const ScanShare& s, int64_t panel, CandidateLists<float>& lists,
                          Worker& w) const {
  const float *items[kHitsAtOnce], *users[kHitsAtOnce];
  float scores[kHitsAtOnce];
  const float* first_user = scan_.user_rows() + s.g0 * kTile * scan_.row_length();
  for (int64_t h = 0; h < w.n_hits; ++h) {
    items[h] = w.reader.row(w.item[h]);
    users[h] = first_user + w.lane[h] * scan_.row_length();
  }
  scan_.kernels().dots(w.n_hits, p_.users.cols, items, users, scores);
  for (int64_t h = 0; h < w.n_hits; ++h) {
    const int64_t lane = w.lane[h], b = s.g0 * kTile + lane;
    const Key<float> key = score_key(scores[h]);
    if (key < w.threshold[lane]) continue;
    if (!lists.offer(s.range, b, key, panel * kTile + w.item[h])) continue;
    w.threshold[lane] = lists.threshold(s.range, b);
    raise(b, s.range, lists, w.bound[lane]);
  }
  w.n_hits = 0;
}

// The bound follows the user's list, into the space of centred items, rounded down.
void ByteScan::raise(int64_t b, int64_t range, const CandidateLists<float>& lists,
                     float& bound) const {
  const Key<float> threshold = lists.threshold(range, b);
  if (threshold == std::numeric_limits<Key<float>>::min()) return;
  const double score = key_score<float>(threshold - 1) - users_->lift(b);  // the k-th
  float centred = static_cast<float>(score);
  if (static_cast<double>(centred) > score) centred = std::nextafter(centred, -kInfinity);
  bound = std::max(bound, centred);  // NaN leaves it
}

// Lower bounds of the k-th score from the first items, so that few of them become candidates.
void ByteScan::start_bounds(const ScanShare& s, const CandidateLists<float>& lists,
                            Worker& w) const {
  const Kernels<float>& kernels = scan_.kernels();
  const int64_t k = p_.k, d4 = byte_row(p_.users.cols) / 4;
  const int64_t panels = std::min(
      s.p1 - s.p0,
      std::max<int64_t>(48, std::min(kFirstItemsPerResult * k / kTile, (s.p1 - s.p0) / 4)));
  // Maxima of whole panels where there are many more of them than results, else of eight items.
  const int64_t group = panels >= 3 * k ? kTile : 8;
  const int64_t maxima_a_panel = kTile / group, n = panels * maxima_a_panel;
  const int64_t users = std::min(s.g1 * kTile, p_.users.rows) - s.g0 * kTile;
  std::fill_n(w.bound.begin(), users, -kInfinity);
  if (n < k) return;
  // groups of users at a time, so that their maxima fit the cache
  const int64_t at_once = std::max<int64_t>(1, (512 << 10) / (n * kTile * 4));
  Buffer<float> best(at_once * n * kTile);
  for (int64_t g0 = s.g0; g0 < s.g1; g0 += at_once) {
    const int64_t g1 = std::min(g0 + at_once, s.g1);
    std::fill_n(best.get(), best.size(), -kInfinity);
    for (int64_t p = 0; p < panels; ++p) {
      const Int8Panel items = panel(s.p0 + p, w);
      for (int64_t g = g0; g < g1; ++g)
        kernels.best_int8(scan_.items_in(s.p0 + p), scan_.lanes(g), d4, group, items,
                          users_->group(g),
                          best.get() + ((g - g0) * n + p * maxima_a_panel) * kTile);
    }
    for (int64_t g = g0; g < g1; ++g) {
      int32_t rank[kTile];
      for (int64_t l = 0; l < kTile; ++l)
        // an excluded item may be the maximum of its group, and must not count
        rank[l] = static_cast<int32_t>(std::min<int64_t>(
            k + lists.excluded_before(s.range, g * kTile + l, (s.p0 + panels) * kTile), 1 << 30));
      float bound[kTile];
      kernels.select_rank(n, scan_.lanes(g), best.get() + (g - g0) * n * kTile, rank, bound);
      std::copy_n(bound, scan_.users_in(g), w.bound.begin() + (g - s.g0) * kTile);
    }
  }
}

}  // namespace adaptau
