#include <algorithm>
#include <numeric>

#include "operators.h"

namespace adaptau {

MaskedCandidates masked_candidates(int64_t n_users, int64_t n_items, const int64_t* target,
                                   const int64_t* item_ids, const Csr& excluded_ids) {
  // Positions by id, so that an excluded id finds every candidate that carries it.
  std::vector<int64_t> by_id;
  if (item_ids != nullptr) {
    by_id.resize(n_items);
    std::iota(by_id.begin(), by_id.end(), int64_t{0});
    std::sort(by_id.begin(), by_id.end(), [&](int64_t a, int64_t b) {
      return item_ids[a] != item_ids[b] ? item_ids[a] < item_ids[b] : a < b;
    });
  }
  MaskedCandidates masked;
  masked.indptr.assign(1, 0);
  masked.indptr.reserve(n_users + 1);
  for (int64_t b = 0; b < n_users; ++b) {
    const int64_t positive = target != nullptr ? target[b] : b;
    const size_t begin = masked.indices.size();
    auto mask_id = [&](int64_t id) {
      if (item_ids == nullptr) {
        if (id < n_items && id != positive) masked.indices.push_back(id);
        return;
      }
      auto first = std::lower_bound(by_id.begin(), by_id.end(), id, [&](int64_t j, int64_t wanted) {
        return item_ids[j] < wanted;
      });
      for (; first != by_id.end() && item_ids[*first] == id; ++first)
        if (*first != positive) masked.indices.push_back(*first);
    };
    if (excluded_ids.indptr != nullptr)
      for (int64_t e = excluded_ids.indptr[b]; e < excluded_ids.indptr[b + 1]; ++e)
        mask_id(excluded_ids.indices[e]);
    if (item_ids != nullptr) {
      if (positive >= 0) mask_id(item_ids[positive]);
      const auto row = masked.indices.begin() + static_cast<std::ptrdiff_t>(begin);
      std::sort(row, masked.indices.end());
      masked.indices.erase(std::unique(row, masked.indices.end()), masked.indices.end());
    }
    masked.indptr.push_back(static_cast<int64_t>(masked.indices.size()));
  }
  return masked;
}

}  // namespace adaptau
