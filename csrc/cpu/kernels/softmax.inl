// Passes over one tile of base-2 scores, items as rows and users as lanes.

namespace adaptau {
namespace ADAPTAU_ISA {
namespace {

// f(first lane) for every vector of lanes.
template <class T, class F>
ADAPTAU_INLINE void for_each_vector(int64_t lanes, F&& f) {
  for (int64_t l = 0; l < lanes; l += simd<T>::lanes) f(l);
}

template <class T>
ADAPTAU_INLINE void add_to_sums(Vec<T> part, double* sum) {
  for (int l = 0; l < simd<T>::lanes; ++l) sum[l] += static_cast<double>(part[l]);
}

template <class T>
void exp_tile(int64_t items, int64_t lanes, T* tile, const ExpState<T>& state) {
  using V = Vec<T>;
  for_each_vector<T>(lanes, [&](int64_t l) {
    const V shift = load<V>(state.shift + l);
    V sum{};
    for (int64_t j = 0; j < items; ++j) {
      const V e = exp2<T>(load<V>(tile + j * kTile + l) - shift);
      store(tile + j * kTile + l, e);
      sum += e;
    }
    add_to_sums<T>(sum, state.sum + l);
  });
}

template <class T>
void unit_tile(int64_t items, int64_t lanes, const T* tile, const ExpState<T>& state) {
  using V = Vec<T>;
  for_each_vector<T>(lanes, [&](int64_t l) {
    const V shift = load<V>(state.unit_shift + l), inv_k = load<V>(state.inv_k + l);
    V sum{};
    for (int64_t j = 0; j < items; ++j)
      sum += exp2<T>(load<V>(tile + j * kTile + l) * inv_k - shift);
    add_to_sums<T>(sum, state.unit_sum + l);
  });
}

template <class T>
void max_tile(int64_t items, int64_t lanes, const T* tile, T* lane_max) {
  using V = Vec<T>;
  for_each_vector<T>(lanes, [&](int64_t l) {
    V top = load<V>(lane_max + l);
    for (int64_t j = 0; j < items; ++j) {
      const V s = load<V>(tile + j * kTile + l);
      top = s > top ? s : top;
    }
    store(lane_max + l, top);
  });
}

}  // namespace
}  // namespace ADAPTAU_ISA
}  // namespace adaptau
