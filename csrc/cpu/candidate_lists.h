// The best candidates of every user so far, and the key that a new one must reach.
//
// Items come in ascending order, so among equal scores the first seen is the one that stays.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "../core/order.h"
#include "../core/problem.h"
#include "scratch.h"

namespace adaptau {

// The k best of n candidates to the front, in no order; at most n.
template <class T>
int64_t select_best(Candidate<T>* candidates, int64_t n, int64_t k) {
  if (n <= k) return n;
  std::nth_element(candidates, candidates + (k - 1), candidates + n, precedes);
  return k;
}
// The k best of n >= k candidates, in order.
template <class T>
void write_best(Candidate<T>* candidates, int64_t n, int64_t k, T* scores, int64_t* ids) {
  std::sort(candidates, candidates + select_best(candidates, n, k), precedes);
  for (int64_t i = 0; i < k; ++i) {
    scores[i] = key_score<T>(candidates[i].key);
    ids[i] = candidates[i].id;
  }
}

// The best candidates of one user over one range of items, in a slice of shared memory.
template <class T>
class Shortlist {
 public:
  // Short lists stay sorted; long ones are collected and cut back when full.
  static bool sorted(int64_t k) { return k <= 48; }
  static int64_t capacity(int64_t k) { return sorted(k) ? k : k + std::max<int64_t>(128, k / 2); }

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
      size_ = select_best(slots_, size_, k_);
    }
    if (size_ < k_) return false;
    threshold_ = slots_[k_ - 1].key + 1;  // later items must exceed the k-th
    return true;
  }
  Key<T> threshold() const { return threshold_; }
  const Candidate<T>* begin() const { return slots_; }
  const Candidate<T>* end() const { return slots_ + size_; }

  int64_t next_excluded = 0;

 private:
  Candidate<T>* slots_ = nullptr;
  int64_t k_ = 0, size_ = 0;
  Key<T> threshold_ = std::numeric_limits<Key<T>>::min();
};

// Lists of all users, one for each range of items that is scanned on its own.
template <class T>
class CandidateLists {
 public:
  CandidateLists(const TopkProblem& problem, int64_t ranges)
      : k_(problem.k),
        n_users_(problem.users.rows),
        excluded_(problem.excluded),
        ranges_(ranges),
        slots_(ranges * n_users_ * Shortlist<T>::capacity(k_)),
        lists_(ranges * n_users_) {
    for (size_t i = 0; i < lists_.size(); ++i)
      lists_[i] = Shortlist<T>(slots_.get() + i * Shortlist<T>::capacity(k_), k_);
  }

  // Before users [first_user, last_user) are offered items from first_item on.
  void seek(int64_t range, int64_t first_user, int64_t last_user, int64_t first_item) {
    if (excluded_.indptr == nullptr) return;
    for (int64_t b = first_user; b < std::min(last_user, n_users_); ++b) {
      const int64_t* begin = excluded_.indices + excluded_.indptr[b];
      const int64_t* end = excluded_.indices + excluded_.indptr[b + 1];
      list(range, b).next_excluded = std::lower_bound(begin, end, first_item) - excluded_.indices;
    }
  }
  Key<T> threshold(int64_t range, int64_t b) const { return list(range, b).threshold(); }

  // A candidate that reaches the threshold, ids ascending; true when the threshold rose.
  bool offer(int64_t range, int64_t b, Key<T> key, int64_t item) {
    Shortlist<T>& mine = list(range, b);
    if (excluded_.indptr != nullptr) {
      const int64_t end = excluded_.indptr[b + 1];
      int64_t& e = mine.next_excluded;
      while (e < end && excluded_.indices[e] < item) ++e;
      if (e < end && excluded_.indices[e] == item) return false;
    }
    return mine.add({key, static_cast<int32_t>(item)});
  }

  // The k best of a user's ranges, in order.
  void finish(int64_t b, T* scores, int64_t* ids) const {
    std::vector<Candidate<T>> found;
    for (int64_t range = 0; range < ranges_; ++range)
      found.insert(found.end(), list(range, b).begin(), list(range, b).end());
    write_best(found.data(), static_cast<int64_t>(found.size()), k_, scores, ids);
  }

 private:
  Shortlist<T>& list(int64_t range, int64_t b) { return lists_[range * n_users_ + b]; }
  const Shortlist<T>& list(int64_t range, int64_t b) const { return lists_[range * n_users_ + b]; }

  const int64_t k_, n_users_;
  const Csr excluded_;
  const int64_t ranges_;
  Buffer<Candidate<T>> slots_;
  std::vector<Shortlist<T>> lists_;
};

}  // namespace adaptau
