// What top-k and ranks share: users packed by groups of 48, items streaming by in panels of 48,
// a 48 x 48 tile of scores that is looked at and forgotten.
//
// A score is one multiply-add a dimension, in order, of the (normalised, rounded) rows: the same
// number whichever operator, tile or thread computes it. Rankings are exact with respect to it.
#pragma once

#include <algorithm>
#include <vector>

#include "../core/parallel.h"
#include "rows.h"

namespace adaptau {

template <class T>
class Scan {
 public:
  Scan(const Matrix& users, const Matrix& items, Normalize normalize,
       const std::vector<int64_t>& order, const Parallel& parallel)
      : items_(items),
        normalize_(normalize),
        kernels_(active_kernels<T>()),
        d_(users.cols),
        ld_(padded<T>(d_)),
        n_users_(users.rows),
        order_(order),
        in_place_(readable_in_place<T>(items) && !normalize.item),
        users_((users.rows + kTile) * ld_),
        packed_((users.rows + kTile) * ld_) {
    for_each_task(parallel, groups(), [&](int64_t g, int) {
      const int64_t n = users_in(g);
      T* rows = users_.get() + g * kTile * ld_;
      for (int64_t l = 0; l < n; ++l)
        read_rows(users, user(g, l), 1, normalize_.user, kernels_, rows + l * ld_, ld_,
                  static_cast<T*>(nullptr));
      pack_group(rows, n, ld_, static_cast<const T*>(nullptr), packed_.get() + g * kTile * ld_);
    });
  }

  int64_t groups() const { return (n_users_ + kTile - 1) / kTile; }
  int64_t panels() const { return (items_.rows + kTile - 1) / kTile; }
  int64_t users_in(int64_t g) const { return std::min<int64_t>(kTile, n_users_ - g * kTile); }
  int64_t items_in(int64_t panel) const {
    return std::min<int64_t>(kTile, items_.rows - panel * kTile);
  }
  int64_t lanes(int64_t g) const { return active_lanes<T>(users_in(g)); }
  // The batch row in lane l of group g.
  int64_t user(int64_t g, int64_t l) const {
    return order_.empty() ? g * kTile + l : order_[g * kTile + l];
  }
  const Kernels<T>& kernels() const { return kernels_; }

  // A worker's view of the catalogue.
  class Reader {
   public:
    explicit Reader(const Scan& scan)
        : scan_(scan), panel_(scan.in_place_ ? 0 : kTile * scan.ld_), tile_(kTile * kTile) {}
    void load(int64_t panel) {
      const int64_t first = panel * kTile;
      if (scan_.in_place_) {
        rows_ = row_in_place<T>(scan_.items_, first);
        stride_ = scan_.items_.row_stride;
      } else {
        read_rows(scan_.items_, first, scan_.items_in(panel), scan_.normalize_.item, scan_.kernels_,
                  panel_.get(), scan_.ld_, static_cast<T*>(nullptr));
        rows_ = panel_.get();
        stride_ = scan_.ld_;
      }
      items_ = scan_.items_in(panel);
    }
    // Scores of the loaded panel for group g: [items][48].
    const T* score(int64_t g) {
      scan_.kernels_.gemm(items_, scan_.lanes(g), scan_.d_, rows_, stride_, 1,
                          scan_.packed_.get() + g * kTile * scan_.ld_, kTile, tile_.get(), kTile,
                          false);
      return tile_.get();
    }
    // Counts them instead; returns them where they are wanted, otherwise nullptr.
    const T* count(int64_t g, const RankThresholds<T>& thresholds, bool wanted) {
      T* tile = wanted ? tile_.get() : nullptr;
      scan_.kernels_.count_scores(items_, scan_.lanes(g), scan_.d_, rows_, stride_,
                                  scan_.packed_.get() + g * kTile * scan_.ld_, thresholds, tile);
      return tile;
    }
    int64_t items() const { return items_; }
    const T* row(int64_t j) const { return rows_ + j * stride_; }  // of the loaded panel

   private:
    const Scan& scan_;
    Buffer<T> panel_, tile_;
    const T* rows_ = nullptr;
    int64_t stride_ = 0, items_ = 0;
  };

  // Scores of n items for the user in lane l of group g.
  void score_items(int64_t g, int64_t l, int64_t n, const int64_t* items, T* scores) const {
    constexpr int64_t most = 32;  // at once, while the next ones are fetched
    const T* row[most];
    const Buffer<T> rows(in_place_ ? 0 : most * ld_);
    prefetch_items(std::min(most, n), items);
    for (int64_t i = 0; i < n; i += most) {
      const int64_t count = std::min(most, n - i);
      prefetch_items(std::min(most, n - i - count), items + i + count);
      for (int64_t j = 0; j < count; ++j) {
        T* copy = rows.get() + j * ld_;
        row[j] = in_place_ ? row_in_place<T>(items_, items[i + j]) : copy;
        if (!in_place_)
          read_rows(items_, items[i + j], 1, normalize_.item, kernels_, copy, ld_,
                    static_cast<T*>(nullptr));
      }
      kernels_.dots_with(count, d_, row, user_row(g, l), scores + i);
    }
  }
  int64_t row_length() const { return ld_; }
  bool in_place() const { return in_place_; }
  const T* user_row(int64_t g, int64_t l) const { return users_.get() + (g * kTile + l) * ld_; }
  const T* user_rows() const { return users_.get(); }  // [groups * 48, row_length]

 private:
  void prefetch_items(int64_t n, const int64_t* items) const {
    const char* first = static_cast<const char*>(items_.data);
    const int64_t size = size_of(items_.dtype), bytes = items_.col_stride == 1 ? d_ * size : 0;
    for (int64_t j = 0; j < n; ++j)
      for (int64_t at = 0; at < bytes; at += kRowAlign)
        __builtin_prefetch(first + items[j] * items_.row_stride * size + at);
  }

  const Matrix& items_;
  const Normalize normalize_;
  const Kernels<T>& kernels_;
  const int64_t d_, ld_, n_users_;
  const std::vector<int64_t>& order_;
  const bool in_place_;
  Buffer<T> users_, packed_;
};

// One task's share of the scan: groups [g0, g1) against panels [p0, p1), the range-th of the
// catalogue.
struct ScanShare {
  int64_t range, g0, g1, p0, p1;
};

// A division of the scan that keeps every worker busy: by users, and for small batches by items
// too.
class ScanTasks {
 public:
  // most_groups: of users a task.
  ScanTasks(int64_t groups, int64_t panels, int workers, int64_t most_groups = 4)
      : groups_(groups),
        panels_(panels),
        groups_a_task_(std::max<int64_t>(1, std::min(most_groups, groups / (2 * workers)))),
        user_tasks_((groups + groups_a_task_ - 1) / groups_a_task_) {
    if (user_tasks_ < 2 * workers)
      ranges_ = std::max<int64_t>(
          1, std::min(2 * workers / std::max<int64_t>(1, user_tasks_), panels / 64));
  }
  // All users against a range of items for each worker.
  static ScanTasks by_items(int64_t groups, int64_t panels, int workers) {
    ScanTasks tasks(groups, panels, 1, groups);
    tasks.groups_a_task_ = groups;
    tasks.user_tasks_ = 1;
    tasks.ranges_ = std::max<int64_t>(1, std::min<int64_t>(workers, panels / 64));
    return tasks;
  }
  int64_t count() const { return user_tasks_ * ranges_; }
  int64_t ranges() const { return ranges_; }
  ScanShare share(int64_t task) const {
    const int64_t range = task / user_tasks_, g0 = task % user_tasks_ * groups_a_task_;
    return {range, g0, std::min(g0 + groups_a_task_, groups_), panels_ * range / ranges_,
            panels_ * (range + 1) / ranges_};
  }

 private:
  int64_t groups_, panels_, groups_a_task_, user_tasks_, ranges_ = 1;
};

}  // namespace adaptau
