// Which scores leave the tiles of the soft-max loss: each user's positive, and its masked
// candidates. Tiles are visited in the order of items, so a cursor a user is enough to find them.
#pragma once

#include <algorithm>
#include <vector>

#include "../core/problem.h"
#include "kernels.h"
#include "scratch.h"

namespace adaptau {

class TileMasks {
 public:
  // target: [n_users] or nullptr: user b's positive is item b.
  TileMasks(int64_t n_users, const int64_t* target, const Csr& masked)
      : n_users_(n_users), target_(target), masked_(masked), lanes_(n_users), users_(n_users) {
    for (int64_t b = 0; b < n_users; ++b)
      lanes_[b] = static_cast<uint8_t>(b % kTile), users_[b] = b;
    for (int64_t b = 0; b < n_users; b += kTile)
      std::sort(lanes_.begin() + b, lanes_.begin() + std::min(b + kTile, n_users),
                [&](int64_t l, int64_t m) { return this->target(b + l) < this->target(b + m); });
    std::stable_sort(users_.begin(), users_.end(),
                     [&](int64_t a, int64_t b) { return this->target(a) < this->target(b); });
  }

  int64_t target(int64_t b) const { return target_ != nullptr ? target_[b] : b; }

  // f(user) for every user whose positive is among items [first, first + n), by item, then by user.
  template <class F>
  void for_each_positive(int64_t first, int64_t n, F&& f) const {
    auto user = std::lower_bound(users_.begin(), users_.end(), first,
                                 [&](int64_t b, int64_t item) { return target(b) < item; });
    for (; user != users_.end() && target(*user) < first + n; ++user) f(*user);
  }

  // A worker's place in the groups [first_group, last_group), which then goes forward tile by
  // tile.
  class Cursor {
   public:
    void seek(const TileMasks& masks, int64_t first_group, int64_t last_group, int64_t item) {
      const int64_t last = std::min(last_group * kTile, masks.n_users_);
      first_ = first_group * kTile;
      positive_.assign(last_group - first_group, 0);
      for (int64_t g = first_group; g < last_group; ++g)
        while (masks.positive_before(g, positive_[g - first_group], item))
          ++positive_[g - first_group];
      if (masks.masked_.indptr == nullptr) return;
      masked_.resize(last - first_);
      for (int64_t b = first_; b < last; ++b) {
        const int64_t* begin = masks.masked_.indices + masks.masked_.indptr[b];
        const int64_t* end = masks.masked_.indices + masks.masked_.indptr[b + 1];
        masked_[b - first_] = std::lower_bound(begin, end, item) - masks.masked_.indices;
      }
    }

   private:
    friend class TileMasks;
    int64_t first_ = 0;              // user
    std::vector<int64_t> positive_;  // of each group, in lanes_
    std::vector<int64_t> masked_;    // of each user, in masked.indices
  };

  // The tile of items [first, first + items) and group g, into at[48 * 48].
  MaskedScores of_tile(int64_t first, int64_t items, int64_t g, Cursor& cursor,
                       uint16_t* at) const {
    const int64_t end = first + items, b0 = g * kTile;
    MaskedScores masked{0, 0, at};
    auto add = [&](int64_t item, int64_t lane) {
      masked.rows |= uint64_t{1} << (item - first);
      at[masked.count++] = static_cast<uint16_t>((item - first) * kTile + lane);
    };
    int64_t& positive = cursor.positive_[(b0 - cursor.first_) / kTile];
    for (; positive_before(g, positive, end); ++positive) {
      const int64_t lane = lanes_[b0 + positive];
      add(target(b0 + lane), lane);
    }
    if (masked_.indptr == nullptr) return masked;
    for (int64_t b = b0; b < std::min(b0 + kTile, n_users_); ++b) {
      int64_t& next = cursor.masked_[b - cursor.first_];
      for (; next < masked_.indptr[b + 1] && masked_.indices[next] < end; ++next)
        add(masked_.indices[next], b - b0);
    }
    return masked;
  }

 private:
  bool positive_before(int64_t g, int64_t place, int64_t item) const {
    const int64_t at = g * kTile + place;
    return place < kTile && at < n_users_ && target(g * kTile + lanes_[at]) < item;
  }

  const int64_t n_users_;
  const int64_t* target_;
  const Csr& masked_;
  std::vector<uint8_t> lanes_;  // of each group, by positive
  std::vector<int64_t> users_;  // all, by positive
};

}  // namespace adaptau
