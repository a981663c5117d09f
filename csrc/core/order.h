// The one total order of candidates: score descending, NaN after every number, then id ascending.
//
// Scores become integer keys (monotone, NaN lowest, -0 equal to +0), so that a comparison is one
// integer instruction on every device and "strictly above" is "at least key + 1".
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

namespace adaptau {

template <class T>
struct KeyOf;
template <>
struct KeyOf<float> {
  using type = int32_t;
};
template <>
struct KeyOf<double> {
  using type = int64_t;
};
template <class T>
using Key = typename KeyOf<T>::type;

template <class T>
inline Key<T> score_key(T score) {
  if (score != score) return std::numeric_limits<Key<T>>::min();
  score += T(0);  // -0 -> +0
  Key<T> bits;
  std::memcpy(&bits, &score, sizeof bits);
  return bits < 0 ? bits ^ std::numeric_limits<Key<T>>::max() : bits;
}

template <class T>
inline T key_score(Key<T> key) {
  if (key == std::numeric_limits<Key<T>>::min()) return std::numeric_limits<T>::quiet_NaN();
  const Key<T> bits = key < 0 ? key ^ std::numeric_limits<Key<T>>::max() : key;
  T score;
  std::memcpy(&score, &bits, sizeof score);
  return score;
}

template <class T>
struct Candidate {
  Key<T> key;
  int32_t id;
};

// Does a stand before b? (An object, so that sorting can inline it.)
struct Precedes {
  template <class T>
  bool operator()(const Candidate<T>& a, const Candidate<T>& b) const {
    return a.key != b.key ? a.key > b.key : a.id < b.id;
  }
};
inline constexpr Precedes precedes{};

}  // namespace adaptau
