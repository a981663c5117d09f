// Exact top-k without a score matrix.
//
// Each user keeps a shortlist of the best candidates so far and the key that a new one must reach.
// Items come in ascending order, so among equal scores the first seen is the one that stays.
//
// Two scans find candidates, a panel of 48 items against 48 users at a time:
//   float   scores the tile in float and compares keys;
//   bytes   compares integer sums with a bound that provably misses nothing (docs/topk.md), and
//   scores
//           the few that pass in float. Where many pass (ties without end, rows that bytes cannot
//           hold) the tile is scored in float after all. It starts from a lower bound of the k-th
//           score, taken from the group maxima of the first items.
// Both give the same result to the bit: a score is always the same chain of multiply-adds.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <type_traits>
#include <vector>

#include "operators.h"
#include "quantized.h"
#include "scan.h"

namespace adaptau {
namespace {

// Below these, quantising costs more than it saves.
constexpr int64_t kMinUsersForBytes = 32, kMinItemsForBytes = 2048;
constexpr int64_t kMaxDimensionForBytes = 16384;  // 32-bit sums of 127 * 127 products
constexpr int64_t kManyHits = 128;                // of 2304 in a tile: score it in float

// The best candidates of one user over one range of items, in a slice of shared memory.
template <class T>
class Shortlist {
 public:
  // Short lists stay sorted; long ones are collected and cut back when full.
  static bool sorted(int64_t k) { return k <= 48; }
  static int64_t capacity(int64_t k) { return sorted(k) ? k : k + std::max<int64_t>(64, k / 2); }

  Shortlist() = default;
  Shortlist(Candidate<T>* slots, int64_t k) : slots_(slots), k_(k) {}

  // Adds a candidate whose key reaches threshold(); true when the threshold rose.
  bool add(Candidate<T> candidate) {
    if (sorted(k_)) {
      if (size_ < k_) ++size_;
      int64_t at = size_ - 1;
      for (; at > 0 && slots_[at - 1].key < candidate.key; --at) slots_[at] = slots_[at - 1];
      slots_[at] = candidate;
    } else {
      slots_[size_++] = candidate;
      if (size_ < capacity(k_)) return false;
      cut();
    }
    if (size_ < k_) return false;
    threshold_ = slots_[k_ - 1].key + 1;  // later items must exceed the k-th
    return true;
  }
  // The k best, in no order for long lists.
  void cut() {
    if (size_ <= k_) return;
    std::nth_element(slots_, slots_ + (k_ - 1), slots_ + size_, precedes);
    size_ = k_;
  }
  void start_from(Key<T> threshold) { threshold_ = threshold; }
  Key<T> threshold() const { return threshold_; }
  const Candidate<T>* begin() const { return slots_; }
  const Candidate<T>* end() const { return slots_ + size_; }

  int64_t next_excluded = 0;

 private:
  Candidate<T>* slots_ = nullptr;
  int64_t k_ = 0, size_ = 0;
  Key<T> threshold_ = std::numeric_limits<Key<T>>::min();
};

// The largest value whose score_key is below `key`; for a k-th key + 1, the k-th score.
float score_below(Key<float> key) { return key_score<float>(key - 1); }

template <class T>
class TopK {
 public:
  TopK(const TopkProblem& problem, const PackedItems* packed, const Parallel& parallel)
      : p_(problem),
        packed_(packed),
        parallel_(parallel),
        B_(p_.users.rows),
        k_(p_.k),
        scan_(p_.users, p_.items, p_.normalize, in_batch_order_),
        bytes_(use_bytes()),
        tasks_(scan_.groups(), scan_.panels(), parallel.workers, bytes_ ? most_groups() : 4),
        slots_(tasks_.ranges() * B_ * Shortlist<T>::capacity(k_)),
        lists_(tasks_.ranges() * B_) {
    for (size_t i = 0; i < lists_.size(); ++i)
      lists_[i] = Shortlist<T>(slots_.get() + i * Shortlist<T>::capacity(k_), k_);
  }

  void run(T* scores, int64_t* ids) {
    if constexpr (std::is_same_v<T, float>) {
      if (bytes_) {
        if (packed_ == nullptr) centre_ = item_centre(p_.items, p_.normalize, scan_.kernels());
        centre_data_ = packed_ != nullptr ? packed_->centre : centre_.data();
        users_ = std::make_unique<QuantizedUsers>(B_, p_.users.cols, scan_.row_length(),
                                                  scan_.user_rows(), centre_data_,
                                                  scan_.kernels().int8_user_limit);
      }
    }
    for_each_task(parallel_, tasks_.count(), [&](int64_t task, int) {
      const ScanShare share = tasks_.share(task);
      seek_exclusions(share);
      if constexpr (std::is_same_v<T, float>) {
        if (bytes_) return scan_bytes(share);
      }
      scan_floats(share);
    });
    for_each_task(parallel_, scan_.groups(), [&](int64_t g, int) {
      for (int64_t b = g * kTile; b < g * kTile + scan_.users_in(g); ++b)
        finish(b, scores + b * k_, ids + b * k_);
    });
  }

 private:
  bool use_bytes() const {
    return std::is_same_v<T, float> && scan_.kernels().scan_int8 != nullptr && p_.users.cols > 0 &&
           p_.users.cols <= kMaxDimensionForBytes &&
           (packed_ != nullptr || (B_ >= kMinUsersForBytes && p_.items.rows >= kMinItemsForBytes));
  }
  // A panel is quantised once a task, so a task should hold many users; their bytes stay in cache.
  int64_t most_groups() const {
    constexpr int64_t cache = 256 << 10;
    return std::max<int64_t>(4, cache / (kTile * byte_row(p_.users.cols)));
  }

  Shortlist<T>& list(int64_t range, int64_t b) { return lists_[range * B_ + b]; }

  void seek_exclusions(const ScanShare& s) {
    if (p_.excluded.indptr == nullptr) return;
    for (int64_t b = s.g0 * kTile; b < std::min(s.g1 * kTile, B_); ++b) {
      const int64_t* begin = p_.excluded.indices + p_.excluded.indptr[b];
      const int64_t* end = p_.excluded.indices + p_.excluded.indptr[b + 1];
      list(s.range, b).next_excluded =
          std::lower_bound(begin, end, s.p0 * kTile) - p_.excluded.indices;
    }
  }
  bool excluded(Shortlist<T>& list, int64_t b, int64_t item) const {
    if (p_.excluded.indptr == nullptr) return false;
    const int64_t end = p_.excluded.indptr[b + 1];
    int64_t& e = list.next_excluded;
    while (e < end && p_.excluded.indices[e] < item) ++e;
    return e < end && p_.excluded.indices[e] == item;
  }

  // One tile in float; `threshold` holds the group's keys and follows the lists.
  void score_tile(const ScanShare& s, int64_t panel, int64_t g, typename Scan<T>::Reader& reader,
                  Key<T>* threshold, uint16_t* hits) {
    const T* tile = reader.score(g);
    const int64_t n =
        scan_.kernels().scan_tile(reader.items(), scan_.lanes(g), tile, threshold, hits);
    for (int64_t h = 0; h < n; ++h) {
      const int64_t lane = hits[h] % kTile, item = panel * kTile + hits[h] / kTile;
      const int64_t b = g * kTile + lane;
      if (b >= B_) continue;
      const Key<T> key = score_key(tile[hits[h]]);
      if (key < threshold[lane]) continue;  // risen since the tile was scanned
      Shortlist<T>& mine = list(s.range, b);
      if (excluded(mine, b, item)) continue;
      if (mine.add({key, static_cast<int32_t>(item)})) threshold[lane] = mine.threshold();
    }
  }

  void scan_floats(const ScanShare& s) {
    typename Scan<T>::Reader reader(scan_);
    std::vector<Key<T>> threshold((s.g1 - s.g0) * kTile, std::numeric_limits<Key<T>>::max());
    for (int64_t b = s.g0 * kTile; b < std::min(s.g1 * kTile, B_); ++b)
      threshold[b - s.g0 * kTile] = list(s.range, b).threshold();
    uint16_t hits[kTile * kTile];
    for (int64_t panel = s.p0; panel < s.p1; ++panel) {
      reader.load(panel);
      for (int64_t g = s.g0; g < s.g1; ++g)
        score_tile(s, panel, g, reader, threshold.data() + (g - s.g0) * kTile, hits);
    }
  }

  // --- bytes ---------------------------------------------------------------------------------

  // A worker's panel of bytes, quantised here or taken from the packed catalogue.
  struct ByteReader {
    ByteReader(const TopK& top, int64_t d)
        : stride(byte_row(d)),
          bytes(top.packed_ == nullptr ? kTile * stride : 0),
          sums(kTile),
          start(kTile),
          rows(kTile * padded<float>(d)) {}
    int64_t stride;
    Buffer<int8_t> bytes;
    Buffer<int32_t> sums, start;
    Buffer<float> rows;
    float meta[4];
  };

  Int8Panel byte_panel(int64_t panel, ByteReader& r) const {
    const int64_t d = p_.users.cols, n = scan_.items_in(panel);
    const int8_t* bytes = r.bytes.get();
    const int32_t* sums = r.sums.get();
    const float* meta = r.meta;
    if (packed_ != nullptr) {
      bytes = packed_->bytes + panel * kTile * r.stride;
      sums = packed_->sums + panel * kTile;
      meta = packed_->meta + panel * 4;
    } else {
      const float* rows = r.rows.get();
      int64_t stride = r.stride;
      if (scan_.in_place() && d == r.stride) {
        rows = row_in_place<float>(p_.items, panel * kTile);
        stride = p_.items.row_stride;
      } else {
        read_rows(p_.items, panel * kTile, n, p_.normalize.item, scan_.kernels(), r.rows.get(),
                  stride, static_cast<float*>(nullptr));
      }
      scan_.kernels().quantize_panel(n, r.stride, stride, rows, centre_data_, r.bytes.get(),
                                     r.sums.get(), r.meta);
    }
    for (int64_t j = 0; j < kTile; ++j)
      r.start[j] = -(scan_.kernels().int8_user_limit + 1) * sums[j];
    return as_panel(bytes, r.start.get(), meta);
  }

  // The bound of a user's list in the space of centred items, rounded down.
  float centred(double score, int64_t b) const {
    const double c = score - users_->lift(b);
    const float f = static_cast<float>(c);
    return static_cast<double>(f) <= c ? f
                                       : std::nextafter(f, -std::numeric_limits<float>::infinity());
  }
  float bound_of(const Shortlist<T>& mine, int64_t b) const {
    if (mine.threshold() == std::numeric_limits<Key<float>>::min())
      return -std::numeric_limits<float>::infinity();
    return centred(score_below(mine.threshold()), b);
  }

  // Lower bounds of the k-th score from the first items, so that few of them become candidates.
  void start_bounds(const ScanShare& s, ByteReader& bytes, float* bound) {
    const Kernels<float>& kernels = scan_.kernels();
    const int64_t d4 = bytes.stride / 4;
    const int64_t panels = std::min(s.p1 - s.p0, std::max<int64_t>(48, 20 * k_ / kTile));
    const int64_t rows_a_panel = kTile / 8, n = panels * rows_a_panel;
    if (n < k_) {
      std::fill_n(bound, (s.g1 - s.g0) * kTile, -std::numeric_limits<float>::infinity());
      return;
    }
    // groups of users at a time, so that their maxima fit the cache
    const int64_t at_once = std::max<int64_t>(1, (512 << 10) / (n * kTile * 4));
    Buffer<float> best(at_once * n * kTile);
    for (int64_t g0 = s.g0; g0 < s.g1; g0 += at_once) {
      const int64_t g1 = std::min(g0 + at_once, s.g1);
      std::fill_n(best.get(), best.size(), -std::numeric_limits<float>::infinity());
      for (int64_t panel = 0; panel < panels; ++panel) {
        const Int8Panel items = byte_panel(s.p0 + panel, bytes);
        for (int64_t g = g0; g < g1; ++g)
          kernels.best_int8(scan_.items_in(s.p0 + panel), scan_.lanes(g), d4, items,
                            users_->group(g),
                            best.get() + ((g - g0) * n + panel * rows_a_panel) * kTile);
      }
      for (int64_t g = g0; g < g1; ++g) {
        int32_t rank[kTile];
        for (int64_t l = 0; l < kTile; ++l)
          rank[l] = static_cast<int32_t>(std::min<int64_t>(
              k_ + excluded_among(s, g * kTile + l, (s.p0 + panels) * kTile), 1 << 30));
        float* out = bound + (g - s.g0) * kTile;
        kernels.select_rank(n, scan_.lanes(g), best.get() + (g - g0) * n * kTile, rank, out);
      }
    }
  }
  // Excluded items of a user before `end`: they may be among the maxima and must not count.
  int64_t excluded_among(const ScanShare& s, int64_t b, int64_t end) {
    if (b >= B_ || p_.excluded.indptr == nullptr) return 0;
    const int64_t* from = p_.excluded.indices + list(s.range, b).next_excluded;
    return std::lower_bound(from, p_.excluded.indices + p_.excluded.indptr[b + 1], end) - from;
  }

  void scan_bytes(const ScanShare& s) {
    const Kernels<float>& kernels = scan_.kernels();
    typename Scan<T>::Reader reader(scan_);
    ByteReader bytes(*this, p_.users.cols);
    const int64_t lanes = (s.g1 - s.g0) * kTile, d4 = bytes.stride / 4;
    std::vector<float> bound(lanes, std::numeric_limits<float>::infinity());
    std::vector<Key<T>> threshold(lanes, std::numeric_limits<Key<T>>::max());
    start_bounds(s, bytes, bound.data());
    for (int64_t l = 0; l < lanes; ++l) {
      const int64_t b = s.g0 * kTile + l;
      if (b >= B_) {
        bound[l] = std::numeric_limits<float>::infinity();  // no user: no hits
        continue;
      }
      // candidates below the start cannot be among the k best; their keys need not be looked at
      threshold[l] = std::numeric_limits<Key<T>>::min();
    }
    uint16_t hits[kTile * kTile];
    const T *item_rows[kManyHits], *user_rows[kManyHits];
    T scores[kManyHits];
    for (int64_t panel = s.p0; panel < s.p1; ++panel) {
      const Int8Panel items = byte_panel(panel, bytes);
      bool loaded = false;
      for (int64_t g = s.g0; g < s.g1; ++g) {
        float* group_bound = bound.data() + (g - s.g0) * kTile;
        Key<T>* group_threshold = threshold.data() + (g - s.g0) * kTile;
        const int64_t n = kernels.scan_int8(scan_.items_in(panel), scan_.lanes(g), d4, items,
                                            users_->group(g), group_bound, hits);
        if (n == 0) continue;
        if (!loaded) reader.load(panel);
        loaded = true;
        if (n > kManyHits) {
          score_tile(s, panel, g, reader, group_threshold, hits);
          for (int64_t l = 0; l < scan_.users_in(g); ++l)
            raise(group_bound[l], list(s.range, g * kTile + l), g * kTile + l);
          continue;
        }
        for (int64_t h = 0; h < n; ++h) {
          item_rows[h] = reader.row(hits[h] / kTile);
          user_rows[h] = scan_.user_row(g, hits[h] % kTile);
        }
        kernels.dots(n, p_.users.cols, item_rows, user_rows, scores);
        for (int64_t h = 0; h < n; ++h) {
          const int64_t lane = hits[h] % kTile, item = panel * kTile + hits[h] / kTile;
          const int64_t b = g * kTile + lane;
          Shortlist<T>& mine = list(s.range, b);
          const Key<T> key = score_key(scores[h]);
          if (key < group_threshold[lane] || excluded(mine, b, item)) continue;
          if (!mine.add({key, static_cast<int32_t>(item)})) continue;
          group_threshold[lane] = mine.threshold();
          raise(group_bound[lane], mine, b);
        }
      }
    }
  }
  void raise(float& bound, const Shortlist<T>& mine, int64_t b) const {
    bound = std::max(bound, bound_of(mine, b));
  }

  void finish(int64_t b, T* scores, int64_t* ids) {
    std::vector<Candidate<T>> best(list(0, b).begin(), list(0, b).end());
    for (int64_t range = 1; range < tasks_.ranges(); ++range)
      best.insert(best.end(), list(range, b).begin(), list(range, b).end());
    if (static_cast<int64_t>(best.size()) > k_)
      std::nth_element(best.begin(), best.begin() + (k_ - 1), best.end(), precedes);
    std::sort(best.begin(), best.begin() + k_, precedes);
    for (int64_t i = 0; i < k_; ++i) {
      scores[i] = key_score<T>(best[i].key);
      ids[i] = best[i].id;
    }
  }

  const TopkProblem& p_;
  const PackedItems* packed_;
  const Parallel& parallel_;
  const int64_t B_, k_;
  const std::vector<int64_t> in_batch_order_;
  const Scan<T> scan_;
  const bool bytes_;
  const ScanTasks tasks_;
  Buffer<Candidate<T>> slots_;
  std::vector<Shortlist<T>> lists_;
  std::vector<float> centre_;
  const float* centre_data_ = nullptr;
  std::unique_ptr<QuantizedUsers> users_;
};

}  // namespace

template <class T>
void topk(const TopkProblem& p, T* scores, int64_t* ids, const Parallel& parallel) {
  if (p.users.rows == 0 || p.k == 0) return;
  TopK<T>(p, nullptr, parallel).run(scores, ids);
}

template void topk<float>(const TopkProblem&, float*, int64_t*, const Parallel&);
template void topk<double>(const TopkProblem&, double*, int64_t*, const Parallel&);

}  // namespace adaptau
