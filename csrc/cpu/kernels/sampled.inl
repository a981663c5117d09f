// The sampled loss: one bucket of items (small enough to stay in the second-level cache) against the
// users that drew from it. A user's row sits in NV registers while its samples are gathered; NV = 0
// stands for rows that do not fit, read from memory instead.

namespace adaptau {
namespace ADAPTAU_ISA {
namespace {

// Ids are made four a Philox block; eight blocks at a time give the compiler independent work.
template <class T>
void draw_row(uint64_t seed, int64_t row, int64_t n, uint32_t n_items, int32_t* ids) {
  constexpr int blocks = 8;
  uint32_t c[4][blocks];
  for (int64_t first = 0; first < n; first += 4 * blocks) {
    for (int i = 0; i < blocks; ++i) {
      c[0][i] = static_cast<uint32_t>(first / 4 + i);
      c[1][i] = static_cast<uint32_t>(row);
      c[2][i] = static_cast<uint32_t>(row >> 32);
      c[3][i] = 0;
    }
    uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < kPhiloxRounds; ++round) {
      for (int i = 0; i < blocks; ++i) {
        const uint64_t p0 = static_cast<uint64_t>(kPhiloxMultiplier0) * c[0][i];
        const uint64_t p1 = static_cast<uint64_t>(kPhiloxMultiplier1) * c[2][i];
        c[0][i] = static_cast<uint32_t>(p1 >> 32) ^ c[1][i] ^ key0;
        c[2][i] = static_cast<uint32_t>(p0 >> 32) ^ c[3][i] ^ key1;
        c[1][i] = static_cast<uint32_t>(p1);
        c[3][i] = static_cast<uint32_t>(p0);
      }
      key0 += kPhiloxWeyl0;
      key1 += kPhiloxWeyl1;
    }
    const int64_t count = n - first < 4 * blocks ? n - first : 4 * blocks;
    for (int64_t i = 0; i < count; ++i)
      ids[first + i] = static_cast<int32_t>(draw_from_word(
          seed, row, static_cast<uint32_t>(first + i), n_items, c[i % 4][i / 4]));
  }
}

template <class T, int NV>
ADAPTAU_INLINE void load_row(Vec<T> (&v)[NV == 0 ? 1 : NV], const T* row) {
  if constexpr (NV != 0)
    ADAPTAU_UNROLL for (int i = 0; i < NV; ++i) v[i] = load<Vec<T>>(row + i * simd<T>::lanes);
}

// Calls body<NV>() with NV = vectors a row when they fit the registers, else NV = 0.
#define ADAPTAU_DISPATCH_ROW(d, body)                  \
  switch ((d) / simd<T>::lanes) {                      \
    case 1: return body<T, 1> ADAPTAU_ARGUMENTS;       \
    case 2: return body<T, 2> ADAPTAU_ARGUMENTS;       \
    case 4: return body<T, 4> ADAPTAU_ARGUMENTS;       \
    case 8: return body<T, 8> ADAPTAU_ARGUMENTS;       \
    default: return body<T, 0> ADAPTAU_ARGUMENTS;      \
  }

template <class T, int NV>
void scores_of_bucket(const BucketSamples<T>& bucket, const T* users, int64_t ld_users,
                      const T* shift, const T* inv_k, T* values, T* unit_values) {
  using V = Vec<T>;
  constexpr int W = simd<T>::lanes;
  // Partial products of W samples, from any rows, wait here for one transposing sum.
  V partial[W];
  T norm[W], row_shift[W], row_inv_k[W];
  ADAPTAU_UNROLL for (int i = 0; i < W; ++i) {
    partial[i] = V{};
    norm[i] = 1, row_shift[i] = row_inv_k[i] = 0;
  }
  int filled = 0;
  uint32_t done = bucket.starts[0];

  auto flush = [&]() {
    V s = sum_rows<T, W>(partial) * load<V>(norm);
    V e[2] = {s, s};
    if (shift != nullptr) {
      e[0] = exp2<T>(s - load<V>(row_shift));
      if (inv_k != nullptr) e[1] = exp2<T>(s * load<V>(row_inv_k));
    }
    memcpy(values + done, &e[0], sizeof(T) * filled);
    if (inv_k != nullptr) memcpy(unit_values + done, &e[1], sizeof(T) * filled);
    done += filled;
    filled = 0;
  };

  for (int64_t r = 0; r < bucket.rows; ++r) {
    const uint32_t end = bucket.starts[r + 1];
    const T* user = users + r * ld_users;
    V u[NV == 0 ? 1 : NV];
    load_row<T, NV>(u, user);
    for (uint32_t p = bucket.starts[r]; p < end; ++p) {
      const int64_t item = bucket.local[p];
      const T* x = bucket.table + item * bucket.ld;
      V s{};
      if constexpr (NV != 0) {
        ADAPTAU_UNROLL for (int i = 0; i < NV; ++i) s += u[i] * load<V>(x + i * W);
      } else {
        for (int64_t k = 0; k < bucket.d; k += W) s += load<V>(user + k) * load<V>(x + k);
      }
      partial[reversed<W>(filled)] = s;
      if (bucket.inverse_norm != nullptr) norm[filled] = bucket.inverse_norm[item];
      if (shift != nullptr) row_shift[filled] = shift[r];
      if (inv_k != nullptr) row_inv_k[filled] = inv_k[r];
      if (++filled == W) flush();
    }
  }
  if (filled != 0) flush();
}

template <class T>
void sum_samples(const BucketSamples<T>& bucket, const T* values, double* sum) {
  for (int64_t r = 0; r < bucket.rows; ++r) {
    uint32_t p = bucket.starts[r];
    const uint32_t end = bucket.starts[r + 1];
    T part[4] = {0, 0, 0, 0};  // four chains hide the latency of an addition
    for (; p + 4 <= end; p += 4)
      for (int i = 0; i < 4; ++i) part[i] += values[p + i];
    for (; p < end; ++p) part[0] += values[p];
    sum[r] += static_cast<double>((part[0] + part[1]) + (part[2] + part[3]));
  }
}

template <class T, int NV>
void accumulate_bucket(const BucketSamples<T>& bucket, const T* values, T* out, int64_t ld_out) {
  using V = Vec<T>;
  constexpr int W = simd<T>::lanes;
  for (int64_t r = 0; r < bucket.rows; ++r) {
    const uint32_t begin = bucket.starts[r], end = bucket.starts[r + 1];
    if (begin == end) continue;
    T* row = out + r * ld_out;
    V acc[NV == 0 ? 1 : NV];
    load_row<T, NV>(acc, row);
    for (uint32_t p = begin; p < end; ++p) {
      const int64_t item = bucket.local[p];
      const T* x = bucket.table + item * bucket.ld;
      const T norm = bucket.inverse_norm != nullptr ? bucket.inverse_norm[item] : T(1);
      const V e = broadcast<V>(values[p] * norm);
      if constexpr (NV != 0) {
        ADAPTAU_UNROLL for (int i = 0; i < NV; ++i) acc[i] += e * load<V>(x + i * W);
      } else {
        for (int64_t k = 0; k < bucket.d; k += W)
          store(row + k, load<V>(row + k) + e * load<V>(x + k));
      }
    }
    if constexpr (NV != 0)
      ADAPTAU_UNROLL for (int i = 0; i < NV; ++i) store(row + i * W, acc[i]);
  }
}

template <class T, int NV>
void scatter_bucket(const BucketSamples<T>& bucket, const T* values, const T* rows, int64_t ld_rows,
                    T* grad, int64_t ld_grad) {
  using V = Vec<T>;
  constexpr int W = simd<T>::lanes;
  for (int64_t r = 0; r < bucket.rows; ++r) {
    const T* row = rows + r * ld_rows;
    V w[NV == 0 ? 1 : NV];
    load_row<T, NV>(w, row);
    for (uint32_t p = bucket.starts[r]; p < bucket.starts[r + 1]; ++p) {
      T* g = grad + bucket.local[p] * ld_grad;
      const V e = broadcast<V>(values[p]);
      if constexpr (NV != 0) {
        ADAPTAU_UNROLL for (int i = 0; i < NV; ++i)
          store(g + i * W, load<V>(g + i * W) + e * w[i]);
      } else {
        for (int64_t k = 0; k < bucket.d; k += W)
          store(g + k, load<V>(g + k) + e * load<V>(row + k));
      }
    }
  }
}

#define ADAPTAU_ARGUMENTS (bucket, users, ld_users, shift, inv_k, values, unit_values)
template <class T>
void sampled_scores(const BucketSamples<T>& bucket, const T* users, int64_t ld_users, const T* shift,
                    const T* inv_k, T* values, T* unit_values) {
  ADAPTAU_DISPATCH_ROW(bucket.d, scores_of_bucket)
}
#undef ADAPTAU_ARGUMENTS
#define ADAPTAU_ARGUMENTS (bucket, values, out, ld_out)
template <class T>
void sampled_accumulate(const BucketSamples<T>& bucket, const T* values, T* out, int64_t ld_out) {
  ADAPTAU_DISPATCH_ROW(bucket.d, accumulate_bucket)
}
#undef ADAPTAU_ARGUMENTS
#define ADAPTAU_ARGUMENTS (bucket, values, rows, ld_rows, grad, ld_grad)
template <class T>
void sampled_scatter(const BucketSamples<T>& bucket, const T* values, const T* rows, int64_t ld_rows,
                     T* grad, int64_t ld_grad) {
  ADAPTAU_DISPATCH_ROW(bucket.d, scatter_bucket)
}
#undef ADAPTAU_ARGUMENTS
#undef ADAPTAU_DISPATCH_ROW

}  // namespace
}  // namespace ADAPTAU_ISA
}  // namespace adaptau
