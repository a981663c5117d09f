// The sampled loss: one bucket of items (small enough to stay in the second-level cache) against
// the users that drew from it. A user's row sits in NV registers while its samples are gathered; NV
// = 0 stands for rows that do not fit, read from memory instead.

namespace adaptau {
namespace ADAPTAU_ISA {
namespace {

// Words of the Philox blocks [first, first + kWordLanes) of one row, attempt 0: word[w], lane =
// block.
ADAPTAU_INLINE void philox_blocks(uint64_t seed, int64_t row, uint32_t first, Words (&word)[4]) {
  Words block{};
  ADAPTAU_UNROLL
  for (int l = 0; l < kWordLanes; ++l) block[l] = first + l;
  Words c0 = block, c1 = broadcast<Words>(static_cast<uint64_t>(static_cast<uint32_t>(row))),
        c2 = broadcast<Words>(static_cast<uint64_t>(row) >> 32), c3{};
  const Words m0 = broadcast<Words>(static_cast<uint64_t>(kPhiloxMultiplier0)),
              m1 = broadcast<Words>(static_cast<uint64_t>(kPhiloxMultiplier1));
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  ADAPTAU_UNROLL
  for (int round = 0; round < kPhiloxRounds; ++round) {
    // c1 and c3 keep rubbish in their high halves; only low halves are multiplied or returned
    const Words p0 = wide_multiply(c0, m0), p1 = wide_multiply(c2, m1);
    c0 = (p1 >> 32) ^ c1 ^ static_cast<uint64_t>(key0);
    c2 = (p0 >> 32) ^ c3 ^ static_cast<uint64_t>(key1);
    c1 = p1;
    c3 = p0;
    key0 += kPhiloxWeyl0;
    key1 += kPhiloxWeyl1;
  }
  word[0] = c0, word[1] = c1, word[2] = c2, word[3] = c3;
}

void draw_row(uint64_t seed, int64_t row, int64_t n, uint32_t n_items, int32_t* ids) {
  constexpr int columns = 4 * kWordLanes;
  const Words items = broadcast<Words>(static_cast<uint64_t>(n_items));
  for (int64_t first = 0; first < n; first += columns) {
    Words word[4];
    philox_blocks(seed, row, static_cast<uint32_t>(first / 4), word);
    int32_t drawn[columns];
    uint64_t suspect = 0;  // a low product below n_items may have to be drawn again
    ADAPTAU_UNROLL
    for (int w = 0; w < 4; ++w) {
      const Words product = wide_multiply(word[w], items);
      ADAPTAU_UNROLL
      for (int l = 0; l < kWordLanes; ++l) {
        drawn[4 * l + w] = static_cast<int32_t>(product[l] >> 32);
        suspect |= static_cast<uint32_t>(product[l]) < n_items;
      }
    }
    const int64_t count = n - first < columns ? n - first : columns;
    if (suspect)
      for (int64_t i = 0; i < count; ++i)
        drawn[i] = static_cast<int32_t>(draw_from_word(seed, row, static_cast<uint32_t>(first + i),
                                                       n_items,
                                                       static_cast<uint32_t>(word[i % 4][i / 4])));
    if (count == columns) {
      memcpy(ids + first, drawn, sizeof drawn);
    } else {
      memcpy(ids + first, drawn, sizeof(int32_t) * count);
    }
  }
}

template <class T, int NV>
ADAPTAU_INLINE void load_row(Vec<T> (&v)[NV == 0 ? 1 : NV], const T* row) {
  ADAPTAU_UNROLL
  for (int i = 0; i < NV; ++i) v[i] = load<Vec<T>>(row + i * simd<T>::lanes);
}

// values[p] = base-2 scores of one user's samples. Sums of W products are taken at once.
template <class T, int NV>
ADAPTAU_INLINE void score_samples(const BucketSamples<T>& bucket, uint32_t begin, uint32_t end,
                                  const T* user, T* values) {
  using V = Vec<T>;
  constexpr int W = simd<T>::lanes;
  V u[NV == 0 ? 1 : NV];
  load_row<T, NV>(u, user);
  for (uint32_t p = begin; p < end; p += W) {
    V partial[W];
    ADAPTAU_UNROLL
    for (int i = 0; i < W; ++i) {
      const uint32_t q = p + i < end ? p + i : end - 1;  // the last one again: not stored
      const int64_t item = bucket.local[q];
      const T* x = bucket.table + item * bucket.ld;
      V s{};
      if constexpr (NV != 0) {
        ADAPTAU_UNROLL
        for (int k = 0; k < NV; ++k) s += u[k] * load<V>(x + k * W);
      } else {
        for (int64_t k = 0; k < bucket.d; k += W) s += load<V>(user + k) * load<V>(x + k);
      }
      if (bucket.inverse_norm != nullptr) s *= bucket.inverse_norm[item];
      partial[reversed<W>(i)] = s;
    }
    const V s = sum_rows<T, W>(partial);
    if (p + W <= end) {
      store(values + p, s);
    } else {
      memcpy(values + p, &s, sizeof(T) * (end - p));
    }
  }
}

// Scores -> exponentials in place; returns their sum, and adds up those of temperature 1.
template <class T>
ADAPTAU_INLINE T exp_samples(uint32_t begin, uint32_t end, T shift, const T* inv_k, T unit_shift,
                             T* values, T* unit_sum) {
  using V = Vec<T>;
  constexpr int W = simd<T>::lanes;
  V sum{}, unit{};
  uint32_t p = begin;
  auto both = [&](V s) {
    if (inv_k != nullptr) unit += exp2<T>(s * *inv_k - unit_shift);
    const V e = exp2<T>(s - shift);
    sum += e;
    return e;
  };
  for (; p + W <= end; p += W) store(values + p, both(load<V>(values + p)));
  if (p < end) {
    V s = broadcast<V>(-static_cast<T>(__builtin_inf()));
    memcpy(&s, values + p, sizeof(T) * (end - p));
    s = both(s);
    memcpy(values + p, &s, sizeof(T) * (end - p));
  }
  *unit_sum = sum_lanes<T>(unit);
  return sum_lanes<T>(sum);
}

template <class T, int NV>
ADAPTAU_INLINE void accumulate_samples(const BucketSamples<T>& bucket, uint32_t begin, uint32_t end,
                                       const T* values, T* row) {
  using V = Vec<T>;
  constexpr int W = simd<T>::lanes;
  V acc[NV == 0 ? 1 : NV];
  load_row<T, NV>(acc, row);
  for (uint32_t p = begin; p < end; ++p) {
    const int64_t item = bucket.local[p];
    const T* x = bucket.table + item * bucket.ld;
    const T norm = bucket.inverse_norm != nullptr ? bucket.inverse_norm[item] : T(1);
    const V e = broadcast<V>(values[p] * norm);
    if constexpr (NV != 0) {
      ADAPTAU_UNROLL
      for (int k = 0; k < NV; ++k) acc[k] += e * load<V>(x + k * W);
    } else {
      for (int64_t k = 0; k < bucket.d; k += W)
        store(row + k, load<V>(row + k) + e * load<V>(x + k));
    }
  }
  ADAPTAU_UNROLL
  for (int k = 0; k < NV; ++k) store(row + k * W, acc[k]);
}

// The three steps for one user after the other: the rows just scored are still in the first-level
// cache when they are accumulated.
template <class T, int NV>
void bucket_of_users(const BucketSamples<T>& bucket, const T* users, const SampledSteps& steps,
                     const SampledState<T>& state, T* values, T* o) {
  for (int64_t r = 0; r < bucket.rows; ++r) {
    const uint32_t begin = bucket.starts[r], end = bucket.starts[r + 1];
    if (begin == end) continue;
    if (steps.score) score_samples<T, NV>(bucket, begin, end, users + r * bucket.d, values);
    if (steps.exponentiate) {
      T unit;
      state.sum[r] += static_cast<double>(exp_samples<T>(
          begin, end, state.shift[r], state.inv_k != nullptr ? state.inv_k + r : nullptr,
          state.unit_shift[r], values, &unit));
      state.unit_sum[r] += static_cast<double>(unit);
    }
    if (steps.accumulate) accumulate_samples<T, NV>(bucket, begin, end, values, o + r * bucket.d);
  }
}

template <class T, int NV>
void scatter_bucket(const BucketSamples<T>& bucket, const T* values, const T* rows, T* grad) {
  using V = Vec<T>;
  constexpr int W = simd<T>::lanes;
  for (int64_t r = 0; r < bucket.rows; ++r) {
    const T* row = rows + r * bucket.d;
    V w[NV == 0 ? 1 : NV];
    load_row<T, NV>(w, row);
    for (uint32_t p = bucket.starts[r]; p < bucket.starts[r + 1]; ++p) {
      T* g = grad + bucket.local[p] * bucket.d;
      const V e = broadcast<V>(values[p]);
      if constexpr (NV != 0) {
        ADAPTAU_UNROLL
        for (int k = 0; k < NV; ++k) store(g + k * W, load<V>(g + k * W) + e * w[k]);
      } else {
        for (int64_t k = 0; k < bucket.d; k += W)
          store(g + k, load<V>(g + k) + e * load<V>(row + k));
      }
    }
  }
}

// f<NV>() with NV = vectors a row when they fit the registers, else NV = 0.
template <class T, template <class, int> class F, class... A>
ADAPTAU_INLINE void dispatch_row(int64_t d, A&&... arguments) {
  switch (d / simd<T>::lanes) {
    case 1: return F<T, 1>::run(arguments...);
    case 2: return F<T, 2>::run(arguments...);
    case 4: return F<T, 4>::run(arguments...);
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
void sampled_scatter(const BucketSamples<T>& bucket, const T* values, const T* rows, T* grad) {
  dispatch_row<T, ScatterBucket>(bucket.d, bucket, values, rows, grad);
}

}  // namespace
}  // namespace ADAPTAU_ISA
}  // namespace adaptau
