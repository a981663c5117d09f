// Candidates of the scan of bytes: what is known of their scores is between two bounds, and most of
// them never have to be scored.
//
// A user's candidates are appended until there is no room left. Then those that are excluded, and
// those that cannot be among the k best of what was seen so far, leave. Items come in ascending
// order, so that an item loses against k others that came before it and score no less.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "../core/problem.h"
#include "kernels.h"
#include "scratch.h"

namespace adaptau {

// Its centred score lies in [low, high].
struct RoughCandidate {
  float low, high;
  int32_t id;
};

// Lists of the users of one share, which are lanes here.
class RoughLists {
 public:
  // Users [first_user, first_user + n_users), items from first_item on.
  RoughLists(const Kernels<float>& kernels, int64_t k, const Csr& excluded, int64_t first_user,
             int64_t n_users, int64_t first_item)
      : kernels_(kernels),
        k_(k),
        capacity_(k + std::max<int64_t>(kRoom, 2 * k)),
        excluded_(excluded),
        first_user_(first_user),
        slots_(n_users * capacity_),
        lists_(n_users),
        lows_(capacity_ + 16) {
    if (excluded_.indptr == nullptr) return;
    for (int64_t lane = 0; lane < n_users; ++lane)
      lists_[lane].next_excluded = std::lower_bound(
          excluded_.indices + excluded_.indptr[first_user + lane], excluded_end(lane), first_item);
  }

  // True when there is no room for another one.
  bool add(int64_t lane, const RoughCandidate& candidate) {
    List& list = lists_[lane];
    begin(lane)[list.size++] = candidate;
    return list.size == capacity_;
  }

  // Excluded items leave; and, where k or more are left, those that score less than the k-th must.
  // Returns a score that at least k of what is left reach, about the k-th; -inf if there is none.
  float cut(int64_t lane) {
    List& list = lists_[lane];
    RoughCandidate* const all = begin(lane);
    list.size = drop_excluded(lane);
    list.checked = list.size;
    if (list.size < k_) return -std::numeric_limits<float>::infinity();
    for (int32_t c = 0; c < list.size; ++c) lows_[c] = all[c].low;
    std::fill_n(lows_.get() + list.size, 16, -std::numeric_limits<float>::infinity());
    const float kth = kernels_.select_value(list.size, k_, lows_.get());
    int32_t kept = 0;
    for (int32_t c = 0; c < list.size; ++c) {
      all[kept] = all[c];
      kept += all[c].high >= kth;
    }
    list.size = list.checked = kept;
    return kth;
  }

  // After a cut: is so little room left that it pays to score the candidates?
  bool crowded(int64_t lane) const { return lists_[lane].size > (k_ + 3 * capacity_) / 4; }

  // How many of a user's items below `end` that are still to come are excluded.
  int64_t excluded_before(int64_t lane, int64_t end) const {
    if (excluded_.indptr == nullptr) return 0;
    const int64_t* next = lists_[lane].next_excluded;
    return std::lower_bound(next, excluded_end(lane), end) - next;
  }

  int64_t size(int64_t lane) const { return lists_[lane].size; }
  RoughCandidate* begin(int64_t lane) { return slots_.get() + lane * capacity_; }
  // The first n candidates are all that is left, none of them excluded.
  void truncate(int64_t lane, int64_t n) {
    lists_[lane].size = lists_[lane].checked = static_cast<int32_t>(n);
  }

 private:
  static constexpr int64_t kRoom = 96;

  struct List {
    int32_t size = 0, checked = 0;  // of which so many are known not to be excluded
    const int64_t* next_excluded = nullptr;
  };

  const int64_t* excluded_end(int64_t lane) const {
    return excluded_.indices + excluded_.indptr[first_user_ + lane + 1];
  }

  int32_t drop_excluded(int64_t lane) {
    List& list = lists_[lane];
    if (excluded_.indptr == nullptr) return list.size;
    const int64_t *&next = list.next_excluded, *const end = excluded_end(lane);
    RoughCandidate* const all = begin(lane);
    int32_t kept = list.checked;
    for (int32_t c = list.checked; c < list.size; ++c) {
      while (next != end && *next < all[c].id) ++next;
      all[kept] = all[c];
      kept += next == end || *next != all[c].id;
    }
    return kept;
  }

  const Kernels<float>& kernels_;
  const int64_t k_, capacity_;
  const Csr excluded_;
  const int64_t first_user_;
  const Buffer<RoughCandidate> slots_;
  std::vector<List> lists_;
  const Buffer<float> lows_;
};

}  // namespace adaptau
