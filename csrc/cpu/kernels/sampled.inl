// The sampled loss: one bucket of items (small enough to stay in the second-level cache) against
// the rows that drew from it. A row of NV vectors sits in registers while its samples are gathered;
// NV = 0 stands for rows that do not fit, read from memory instead.

namespace adaptau {
namespace ADAPTAU_ISA {
namespace {

// A row in registers; in memory for NV = 0.
template <class T, int NV>
struct Row {
  Vec<T> v[NV == 0 ? 1 : NV];
  ADAPTAU_INLINE void load(const T* row) {
    ADAPTAU_UNROLL
    for (int k = 0; k < NV; ++k) v[k] = ADAPTAU_ISA::load<Vec<T>>(row + k * simd<T>::lanes);
  }
  ADAPTAU_INLINE void store(T* row) const {
    ADAPTAU_UNROLL
    for (int k = 0; k < NV; ++k) ADAPTAU_ISA::store(row + k * simd<T>::lanes, v[k]);
  }
};

// Up to one vector of one row's samples. They are taken `step` at a time; where the last step has
// samples to spare, the last one comes again, with weight zero.
template <class T, int NV>
struct Group {
  static constexpr int W = simd<T>::lanes, step = W < 4 ? W : 4;
  const T* items;
  const uint16_t* local;
  int64_t n, d;

  ADAPTAU_INLINE const T* row(int64_t i) const {
    return items + local[i < n ? i : n - 1] * (NV != 0 ? NV * W : d);
  }

  // <user, item> of the samples, one a lane.
  ADAPTAU_INLINE Vec<T> scores(const Row<T, NV>& u, const T* user) const {
    Vec<T> sums[W / step] = {};
    ADAPTAU_UNROLL
    for (int g = 0; g < W / step; ++g) {
      if (g * step >= n) break;
      Vec<T> products[step] = {};
      const T* x[step];
      ADAPTAU_UNROLL
      for (int i = 0; i < step; ++i) x[i] = row(g * step + i);
      if constexpr (NV != 0) {
        ADAPTAU_UNROLL
        for (int i = 0; i < step; ++i) {
          ADAPTAU_UNROLL
          for (int k = 0; k < NV; ++k) products[i] += u.v[k] * load<Vec<T>>(x[i] + k * W);
        }
      } else {
        for (int64_t k = 0; k < d; k += W) {
          ADAPTAU_UNROLL
          for (int i = 0; i < step; ++i)
            products[i] += load<Vec<T>>(user + k) * load<Vec<T>>(x[i] + k);
        }
      }
      sums[g] = merge_rows<T, step>(products);
    }
    return merge_rows<T, W / step, step>(sums);
  }

  // acc += sum of e[i] * item, C vectors of the rows from k on
  template <int C>
  ADAPTAU_INLINE void add_part(const T* e, int64_t k, Vec<T> (&acc)[C]) const {
    ADAPTAU_UNROLL
    for (int g = 0; g < W / step; ++g) {
      if (g * step >= n) break;
      ADAPTAU_UNROLL
      for (int i = g * step; i < (g + 1) * step; ++i) {
        const T* x = row(i) + k;
        const Vec<T> weight = broadcast<Vec<T>>(e[i]);
        ADAPTAU_UNROLL
        for (int c = 0; c < C; ++c) acc[c] += weight * load<Vec<T>>(x + c * W);
      }
    }
  }
  ADAPTAU_INLINE void accumulate(const T* e, Row<T, NV>& acc, T* o) const {
    if constexpr (NV != 0) {
      add_part(e, 0, acc.v);
    } else {
      int64_t k = 0;
      for (; k + 4 * W <= d; k += 4 * W) accumulate_part<4>(e, o + k, k);
      for (; k < d; k += W) accumulate_part<1>(e, o + k, k);
    }
  }
  template <int C>
  ADAPTAU_INLINE void accumulate_part(const T* e, T* o, int64_t k) const {
    Row<T, C> acc;
    acc.load(o);
    add_part(e, k, acc.v);
    acc.store(o);
  }
};

// A group of samples at a time is scored and exponentiated, then accumulated, its item rows still
// in the first-level cache. Accumulation lags one group behind, so that the exponentials, a long
// chain, are not waited for.
template <class T, int NV>
void bucket_of_users(const BucketSamples<T>& bucket, const T* users, const SampledSteps& steps,
                     const SampledState<T>& state, T* values, T* o) {
  using V = Vec<T>;
  constexpr int W = simd<T>::lanes;
  const BucketSamples<T> b = bucket;  // a copy that stores cannot change
  const bool unit = state.inv_k != nullptr;
  Row<T, NV> acc;
  T weights[2][W];
  Group<T, NV> last{};
  T *last_row = nullptr, *acc_row = nullptr;
  int turn = 0;
  auto accumulate_last = [&] {
    if (last_row == nullptr) return;
    if (acc_row != last_row) {
      if (acc_row != nullptr) acc.store(acc_row);
      acc.load(last_row);
      acc_row = last_row;
    }
    if (last.n == W) {
      last.n = W;  // a constant: the checks against n disappear
      last.accumulate(weights[turn], acc, last_row);
    } else {
      last.accumulate(weights[turn], acc, last_row);
    }
  };
  for (int64_t r = 0; r < b.rows; ++r) {
    const int64_t begin = b.starts[r], end = b.starts[r + 1];
    if (begin == end) continue;
    const T* user = users + r * b.d;
    Row<T, NV> u;
    u.load(user);
    const T scale = state.scale[r], shift = state.shift[r];
    V sum{}, unit_sum{};
    auto visit = [&](int64_t p, int64_t n) {
      const Group<T, NV> group{b.items, b.local + p, n, b.d};
      V s;
      if (steps.score) {
        s = group.scores(u, user) * scale;
      } else {
        s = n == W ? load<V>(values + p) : load_first(n, values + p);
      }
      if (steps.exponentiate) {
        if (unit) unit_sum += keep_first<T>(n, exp2<T>(s * state.inv_k[r] - state.unit_shift[r]));
        s = keep_first<T>(n, exp2<T>(s - shift));
        sum += s;
      }
      if (n == W) {
        store(values + p, s);
      } else {
        store_first<T>(n, values + p, s);
      }
      if (!steps.accumulate) return;
      store(weights[turn ^ 1], s);
      accumulate_last();
      turn ^= 1;
      last = group;
      last_row = o + r * b.d;
    };
    int64_t p = begin;
    for (; p + W <= end; p += W) visit(p, W);
    if (p < end) visit(p, end - p);
    if (steps.exponentiate) {
      state.sum[r] += static_cast<double>(sum_lanes<T>(sum));
      if (unit) state.unit_sum[r] += static_cast<double>(sum_lanes<T>(unit_sum));
    }
  }
  accumulate_last();
  if (acc_row != nullptr) acc.store(acc_row);
}

// C vectors of the rows from k on; NV as above.
template <class T, int NV, int C>
ADAPTAU_INLINE void scatter_part(const BucketSamples<T>& bucket, int64_t k, const T* users,
                                 const T* scale, const T* values, T* grad) {
  using V = Vec<T>;
  constexpr int W = simd<T>::lanes;
  const BucketSamples<T> b = bucket;  // a copy that stores cannot change
  for (int64_t r = 0; r < b.rows; ++r) {
    Row<T, C> w;
    w.load(users + r * b.d + k);
    ADAPTAU_UNROLL
    for (int c = 0; c < C; ++c) w.v[c] *= scale[r];
    for (int64_t p = b.starts[r], end = b.starts[r + 1]; p < end; ++p) {
      T* g = grad + b.local[p] * (NV != 0 ? NV * W : b.d) + k;
      const V e = broadcast<V>(values[p]);
      ADAPTAU_UNROLL
      for (int c = 0; c < C; ++c) store(g + c * W, load<V>(g + c * W) + e * w.v[c]);
    }
  }
}
template <class T, int NV>
void scatter_bucket(const BucketSamples<T>& bucket, const T* users, const T* scale, const T* values,
                    T* grad) {
  constexpr int W = simd<T>::lanes;
  if constexpr (NV != 0) {
    scatter_part<T, NV, NV>(bucket, 0, users, scale, values, grad);
  } else {
    int64_t k = 0;
    for (; k + 4 * W <= bucket.d; k += 4 * W)
      scatter_part<T, NV, 4>(bucket, k, users, scale, values, grad);
    for (; k < bucket.d; k += W) scatter_part<T, NV, 1>(bucket, k, users, scale, values, grad);
  }
}

// f<NV>() with NV = vectors a row when they fit the registers, else NV = 0.
template <class T, template <class, int> class F, class... A>
ADAPTAU_INLINE void dispatch_row(int64_t d, A&&... arguments) {
  switch (d / simd<T>::lanes) {
    case 1: return F<T, 1>::run(arguments...);
    case 2: return F<T, 2>::run(arguments...);
    case 3: return F<T, 3>::run(arguments...);
    case 4: return F<T, 4>::run(arguments...);
    case 6: return F<T, 6>::run(arguments...);
    case 8: return F<T, 8>::run(arguments...);
    default: return F<T, 0>::run(arguments...);
  }
}
template <class T, int NV>
struct BucketOfUsers {
  template <class... A>
  static void run(A&&... arguments) {
    bucket_of_users<T, NV>(arguments...);
  }
};
template <class T, int NV>
struct ScatterBucket {
  template <class... A>
  static void run(A&&... arguments) {
    scatter_bucket<T, NV>(arguments...);
  }
};

template <class T>
void sampled_users(const BucketSamples<T>& bucket, const T* users, const SampledSteps& steps,
                   const SampledState<T>& state, T* values, T* o) {
  dispatch_row<T, BucketOfUsers>(bucket.d, bucket, users, steps, state, values, o);
}
template <class T>
void sampled_scatter(const BucketSamples<T>& bucket, const T* users, const T* scale,
                     const T* values, T* grad) {
  dispatch_row<T, ScatterBucket>(bucket.d, bucket, users, scale, values, grad);
}

}  // namespace
}  // namespace ADAPTAU_ISA
}  // namespace adaptau
