#include "byte_scan.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace adaptau {
namespace {

// Below these, quantising costs more than it saves.
constexpr int64_t kMinUsers = 32, kMinItems = 2048;
constexpr int64_t kMaxDimension = 16384;       // 32-bit sums of 255 * 127 products
constexpr int64_t kCounted = 256;              // candidates up to this are ordered by counting
constexpr int64_t kManyHits = 512;             // of 2304 in a tile: score it in float
constexpr int64_t kKeptBytes = 32 << 20;       // a catalogue up to this is quantised once a call
constexpr int64_t kUserBytes = 64 << 10;       // of a task, which stay in the second-level cache
constexpr int64_t kFirstItemsPerResult = 120;  // scanned beforehand: as dear as the hits they save

constexpr float kInfinity = std::numeric_limits<float>::infinity();

int64_t group_bytes(int64_t d) { return kTile * byte_row(d); }

float round_down(double x) {
  const float f = static_cast<float>(x);
  return static_cast<double>(f) > x ? std::nextafter(f, -kInfinity) : f;
}
float round_up(double x) { return -round_down(-x); }

}  // namespace

// A worker's panel, and what it knows of the share's users.
struct ByteScan::Worker {
  Worker(const ByteScan& scan, const ScanShare& s)
      : share(s),
        first_user(s.g0 * kTile),
        n_users(std::min(s.g1 * kTile, scan.p_.users.rows) - first_user),
        rows(kTile * byte_row(scan.p_.users.cols)),
        bytes(scan.packed_.bytes == nullptr ? group_bytes(scan.p_.users.cols) : 0),
        reader(scan.scan_),
        lists(scan.scan_.kernels(), scan.p_.k, scan.p_.excluded, first_user, n_users, s.p0 * kTile),
        bound((s.g1 - s.g0) * kTile, kInfinity),
        threshold(n_users, std::numeric_limits<Key<float>>::min()) {}

  const ScanShare share;
  const int64_t first_user, n_users;
  Buffer<float> rows;
  Buffer<uint8_t> bytes;
  float meta[4];
  Scan<float>::Reader reader;
  Int8Hits hits;
  RoughLists lists;
  // What a centred score must exceed (nothing does where there is no user), and a key that it must
  // reach: of the k-th item where the k best so far have been scored.
  std::vector<float> bound;
  std::vector<Key<float>> threshold;
  // a list that is being scored
  std::vector<int64_t> ids;
  std::vector<float> scores;
  std::vector<Candidate<float>> scored;
  int64_t n_scored() const { return static_cast<int64_t>(scored.size()); }
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
                                            scan.kernels().int8_user_limit, parallel);
}

void ByteScan::topk(const Parallel& parallel, float* scores, int64_t* ids) const {
  const ScanTasks tasks = this->tasks(parallel.workers);
  const int64_t users = p_.users.rows, k = p_.k, ranges = tasks.ranges();
  // of each range, where there are several
  const Buffer<Candidate<float>> best(ranges > 1 ? ranges * users * k : 0);
  const Buffer<int32_t> count(ranges * users);
  for_each_task(parallel, tasks.count(), [&](int64_t task, int) {
    const ScanShare share = tasks.share(task);
    Worker w(*this, share);
    collect(w);
    for (int64_t lane = 0; lane < w.n_users; ++lane) {
      score(lane, w);
      const int64_t user = w.first_user + lane, at = share.range * users + user;
      if (ranges == 1) {
        write(w, scores + user * k, ids + user * k);
      } else {
        count[at] = static_cast<int32_t>(select_best(w.scored.data(), w.n_scored(), k));
        std::copy_n(w.scored.data(), count[at], best.get() + at * k);
      }
    }
  });
  if (ranges == 1) return;
  for_each_task(parallel, scan_.groups(), [&](int64_t g, int) {
    std::vector<Candidate<float>> found;
    for (int64_t b = g * kTile; b < g * kTile + scan_.users_in(g); ++b) {
      found.clear();
      for (int64_t at = b; at < ranges * users; at += users)
        found.insert(found.end(), best.get() + at * k, best.get() + at * k + count[at]);
      write_best(found.data(), static_cast<int64_t>(found.size()), k, scores + b * k, ids + b * k);
    }
  });
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

// Everything that can be among the best of the share's users, and little else.
void ByteScan::collect(Worker& w) const {
  const Kernels<float>& kernels = scan_.kernels();
  const ScanShare& share = w.share;
  const int64_t d4 = byte_row(p_.users.cols) / 4;
  const Int8Scope scope(kernels, p_.users.cols);
  start_bounds(w);
  for (int64_t index = share.p0; index < share.p1; ++index) {
    const Int8Panel items = panel(index, w);
    bool loaded = false;
    for (int64_t g = share.g0; g < share.g1; ++g) {
      const int64_t lane = (g - share.g0) * kTile;
      const int64_t n = kernels.scan_int8(scan_.items_in(index), scan_.lanes(g), d4, items,
                                          users_->group(g), w.bound.data() + lane, w.hits);
      if (n <= kManyHits) {
        add_hits(n, index, g, w);
      } else {
        if (!loaded) w.reader.load(index);
        loaded = true;
        add_scored(index, g, w);
      }
    }
  }
  for (int64_t lane = 0; lane < w.n_users; ++lane) w.lists.cut(lane);
}

void ByteScan::add_hits(int64_t n, int64_t panel, int64_t g, Worker& w) const {
  const Int8Hits& hits = w.hits;
  const int64_t first_lane = (g - w.share.g0) * kTile;
  for (int64_t h = 0; h < n; ++h) {
    const int64_t l = hits.position[h] % kTile, lane = first_lane + l;
    const float score = static_cast<float>(hits.sum[h]) * hits.scale[l],
                error = hits.error[l] + std::abs(score) * kInt8Roundings;
    RoughCandidate candidate{score - error, score + error,
                             static_cast<int32_t>(panel * kTile + hits.position[h] / kTile)};
    if (candidate.high <= w.bound[lane]) continue;
    if (!(candidate.low <= candidate.high)) candidate.low = -kInfinity, candidate.high = kInfinity;
    add(lane, candidate, w);
  }
}

// Where many may pass, the tile is scored: of items that tie only the first ones do.
void ByteScan::add_scored(int64_t panel, int64_t g, Worker& w) const {
  const int64_t first_lane = (g - w.share.g0) * kTile;
  const float* tile = w.reader.score(g);
  Key<float> threshold[kTile];
  std::fill_n(threshold, kTile, std::numeric_limits<Key<float>>::max());
  for (int64_t l = 0; l < scan_.users_in(g); ++l) {
    const int64_t lane = first_lane + l;
    threshold[l] = w.threshold[lane];
    if (w.bound[lane] == -kInfinity) continue;  // NaN may still be among the best
    const double least = w.bound[lane] + users_->lift(w.first_user + lane);
    threshold[l] = std::max(threshold[l], score_key(round_down(least)));
  }
  const int64_t n =
      scan_.kernels().scan_tile(w.reader.items(), scan_.lanes(g), tile, threshold, w.hits.position);
  for (int64_t h = 0; h < n; ++h) {
    const int64_t l = w.hits.position[h] % kTile, lane = first_lane + l;
    if (l >= scan_.users_in(g) || score_key(tile[w.hits.position[h]]) < w.threshold[lane]) continue;
    const int32_t id = static_cast<int32_t>(panel * kTile + w.hits.position[h] / kTile);
    add(lane, as_candidate(w.first_user + lane, tile[w.hits.position[h]], id), w);
  }
}

void ByteScan::add(int64_t lane, const RoughCandidate& candidate, Worker& w) const {
  if (!w.lists.add(lane, candidate)) return;
  const float kth = w.lists.cut(lane);
  w.bound[lane] = std::max(w.bound[lane], kth);
  if (!w.lists.crowded(lane)) return;
  score(lane, w);
  const int64_t user = w.first_user + lane, n = select_best(w.scored.data(), w.n_scored(), p_.k);
  RoughCandidate* list = w.lists.begin(lane);
  float least = kInfinity;
  Key<float> least_key = std::numeric_limits<Key<float>>::max();
  for (int64_t c = 0; c < n; ++c) {
    list[c] = as_candidate(user, key_score<float>(w.scored[c].key), w.scored[c].id);
    least = std::min(least, list[c].low);
    least_key = std::min(least_key, w.scored[c].key);
  }
  w.lists.truncate(lane, n);
  w.bound[lane] = std::max(w.bound[lane], least);
  w.threshold[lane] = least_key + 1;  // later items must exceed the k-th
}

// A user's candidates, into w.scored.
void ByteScan::score(int64_t lane, Worker& w) const {
  const int64_t n = w.lists.size(lane), user = w.first_user + lane;
  const RoughCandidate* list = w.lists.begin(lane);
  w.ids.resize(n), w.scores.resize(n), w.scored.resize(n);
  for (int64_t c = 0; c < n; ++c) w.ids[c] = list[c].id;
  scan_.score_items(user / kTile, user % kTile, n, w.ids.data(), w.scores.data());
  for (int64_t c = 0; c < n; ++c) w.scored[c] = {score_key(w.scores[c]), list[c].id};
}

// The k best of w.scored, in order.
void ByteScan::write(Worker& w, float* scores, int64_t* ids) const {
  const int64_t n = w.n_scored(), k = p_.k;
  if (n > kCounted) return write_best(w.scored.data(), n, k, scores, ids);
  uint64_t keys[kCounted + 8];
  int32_t place[kCounted];
  for (int64_t c = 0; c < n; ++c)
    keys[c] = static_cast<uint64_t>(static_cast<uint32_t>(w.scored[c].key) ^ 0x80000000u) << 32 |
              ~static_cast<uint32_t>(w.scored[c].id);
  std::fill_n(keys + n, 8, uint64_t{0});
  scan_.kernels().order_keys(n, keys, place);
  for (int64_t c = 0; c < n; ++c) {
    if (place[c] >= k) continue;
    scores[place[c]] = key_score<float>(w.scored[c].key);
    ids[place[c]] = w.scored[c].id;
  }
}

RoughCandidate ByteScan::as_candidate(int64_t user, float score, int32_t id) const {
  const double centred = score - users_->lift(user);
  if (std::isnan(centred)) return {-kInfinity, -kInfinity, id};
  return {round_down(centred), round_up(centred), id};
}

// Lower bounds of the k-th score from the first items, so that few of them become candidates.
void ByteScan::start_bounds(Worker& w) const {
  const ScanShare& s = w.share;
  const Kernels<float>& kernels = scan_.kernels();
  const int64_t k = p_.k, d4 = byte_row(p_.users.cols) / 4;
  const int64_t panels = std::min(
      s.p1 - s.p0,
      std::max<int64_t>(48, std::min(kFirstItemsPerResult * k / kTile, (s.p1 - s.p0) / 4)));
  // Maxima of whole panels where there are many more of them than results, else of eight items.
  const int64_t group = panels >= 3 * k ? kTile : 8;
  const int64_t maxima_a_panel = kTile / group, n = panels * maxima_a_panel;
  std::fill_n(w.bound.begin(), w.n_users, -kInfinity);
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
      const int64_t first_lane = (g - s.g0) * kTile;
      int32_t rank[kTile] = {};
      for (int64_t l = 0; l < scan_.users_in(g); ++l)
        // an excluded item may be the maximum of its group, and must not count
        rank[l] = static_cast<int32_t>(std::min<int64_t>(
            k + w.lists.excluded_before(first_lane + l, (s.p0 + panels) * kTile), 1 << 30));
      float reached[kTile];
      kernels.select_rank(n, scan_.lanes(g), best.get() + (g - g0) * n * kTile, rank, reached);
      for (int64_t l = 0; l < scan_.users_in(g); ++l)  // reaching it is enough
        w.bound[first_lane + l] = std::nextafter(reached[l], -kInfinity);
    }
  }
}

}  // namespace adaptau
