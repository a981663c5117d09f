// Rows of embeddings: normalisation, its chain rule, dot products.

namespace adaptau {
namespace ADAPTAU_ISA {
namespace {

// In the order and with the rounding of gemm: fused where the instruction set fuses.
ADAPTAU_INLINE float multiply_add(float a, float b, float c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}
ADAPTAU_INLINE double multiply_add(double a, double b, double c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}

template <class T>
T dot(int64_t n, const T* a, const T* b) {
  T s = 0;
  for (int64_t k = 0; k < n; ++k) s = multiply_add(a[k], b[k], s);
  return s;
}

// Rows of W x W -> columns: pairs of rows trade halves, quarters, ... of their lanes.
template <class T, int half, int... I>
ADAPTAU_INLINE void trade(Vec<T>& a, Vec<T>& b, Indices<I...>) {
  constexpr int n = simd<T>::lanes;
  const Vec<T> low = __builtin_shufflevector(a, b, ((I & half) ? n + I - half : I)...);
  b = __builtin_shufflevector(a, b, ((I & half) ? n + I : I + half)...);
  a = low;
}
template <class T, int half = simd<T>::lanes / 2>
ADAPTAU_INLINE void transpose(Vec<T>* rows) {
  constexpr int W = simd<T>::lanes;
  if constexpr (half > 0) {
    ADAPTAU_UNROLL
    for (int i = 0; i < W; ++i)
      if ((i & half) == 0) trade<T, half>(rows[i], rows[i + half], typename MakeIndices<W>::type());
    transpose<T, half / 2>(rows);
  }
}

// Up to a vector of pairs, one lane each, so that every sum keeps its order; the last pair stands
// in for those beyond `count`. one: all b are the first of them.
template <class T, bool one>
ADAPTAU_INLINE void dots_of_lanes(int64_t count, int64_t n, const T* const* a, const T* const* b,
                                  T* out) {
  using V = Vec<T>;
  constexpr int W = simd<T>::lanes;
  V sum{};
  int64_t k = 0;
  for (; k + W <= n; k += W) {
    V x[W], y[W];
    ADAPTAU_UNROLL
    for (int l = 0; l < W; ++l) {
      const int64_t p = l < count ? l : count - 1;
      x[l] = load<V>(a[p] + k);
      y[l] = one ? broadcast<V>(b[0][k + l]) : load<V>(b[p] + k);
    }
    transpose<T>(x);
    if constexpr (!one) transpose<T>(y);
    ADAPTAU_UNROLL
    for (int l = 0; l < W; ++l) sum += x[l] * y[l];
  }
  for (int64_t l = 0; l < count; ++l) {
    T s = sum[l];
    for (int64_t m = k; m < n; ++m) s = multiply_add(a[l][m], b[one ? 0 : l][m], s);
    out[l] = s;
  }
}
template <class T>
void dots(int64_t count, int64_t n, const T* const* a, const T* const* b, T* out) {
  constexpr int64_t W = simd<T>::lanes;
  int64_t i = 0;
  for (; i + W <= count; i += W) dots_of_lanes<T, false>(W, n, a + i, b + i, out + i);
  if (i < count) dots_of_lanes<T, false>(count - i, n, a + i, b + i, out + i);
}
template <class T>
void dots_with(int64_t count, int64_t n, const T* const* a, const T* b, T* out) {
  constexpr int64_t W = simd<T>::lanes;
  int64_t i = 0;
  for (; i + W <= count; i += W) dots_of_lanes<T, true>(W, n, a + i, &b, out + i);
  if (i < count) dots_of_lanes<T, true>(count - i, n, a + i, &b, out + i);
}

template <class T>
void axpy(int64_t n, T alpha, const T* x, T* y) {
  for (int64_t k = 0; k < n; ++k) y[k] += alpha * x[k];
}

// Products of rows padded to whole vectors, summed but for the lanes.
template <class T>
ADAPTAU_INLINE Vec<T> products(int64_t ld, const T* a, const T* b) {
  using V = Vec<T>;
  constexpr int W = simd<T>::lanes;
  V s0{}, s1{};
  int64_t k = 0;
  for (; k + 2 * W <= ld; k += 2 * W) {
    s0 += load<V>(a + k) * load<V>(b + k);
    s1 += load<V>(a + k + W) * load<V>(b + k + W);
  }
  for (; k < ld; k += W) s0 += load<V>(a + k) * load<V>(b + k);
  return s0 + s1;
}

// 1 / |x| and x / |x| for a row whose square sum left the safe range: bring the largest entry to
// [1, 2) by a power of two first.
template <class T>
__attribute__((noinline)) T normalize_rescaled(int64_t d, T* x) {
  T largest = 0;
  for (int64_t k = 0; k < d; ++k) {
    const T a = x[k] < 0 ? -x[k] : x[k];
    if (!(a <= largest)) largest = a;  // NaN wins
  }
  if (largest == 0) return 0;
  if (!(largest <= Limits<T>::max)) {  // inf or NaN: no direction
    for (int64_t k = 0; k < d; ++k) x[k] = Limits<T>::nan;
    return Limits<T>::nan;
  }
  T scale = 1;  // 1 / largest up to a factor of two, reached by exact steps
  while (largest * scale < T(0.5) && scale < Limits<T>::huge) scale *= 2;
  while (largest * scale > T(2)) scale *= T(0.5);
  T lift = 1;  // what is missing for subnormal rows, whose 1 / |x| is not representable
  while (largest * scale * lift < T(0.5)) lift *= 2;
  T square = 0;
  for (int64_t k = 0; k < d; ++k) {
    x[k] = x[k] * scale * lift;
    square += x[k] * x[k];
  }
  const T inverse = 1 / square_root(square);
  for (int64_t k = 0; k < d; ++k) x[k] *= inverse;
  const T norm = inverse * scale;
  return norm > Limits<T>::max / lift ? Limits<T>::max : norm * lift;
}

// Products of up to W pairs of rows, a lane each; lanes beyond `count` are zero. The order of a sum
// does not depend on which rows it is computed with.
template <class T>
ADAPTAU_INLINE Vec<T> row_dots(int64_t count, int64_t ld, const T* a, int64_t a_stride, const T* b,
                               int64_t b_stride) {
  using V = Vec<T>;
  constexpr int W = simd<T>::lanes;
  V partial[W];
  ADAPTAU_UNROLL
  for (int i = 0; i < W; ++i)
    partial[i] = i < count ? products<T>(ld, a + i * a_stride, b + i * b_stride) : V{};
  return merge_rows<T, W>(partial);
}

template <class T>
void normalize(int64_t n, int64_t ld, const T* x, int64_t stride, T* out, T* inverse_norm) {
  using V = Vec<T>;
  constexpr int W = simd<T>::lanes;
  for (int64_t r = 0; r < n; r += W, x += W * stride, out += W * ld) {
    const int64_t count = n - r < W ? n - r : W;
    const V squares = row_dots<T>(count, ld, x, stride, x, stride);
    for (int64_t i = 0; i < count; ++i) {
      T* unit = out + i * ld;
      T inverse = 1 / square_root(squares[i]);
      const bool safe =
          squares[i] >= Limits<T>::safe_square && squares[i] <= 1 / Limits<T>::safe_square;
      for (int64_t k = 0; k < ld; k += W) {
        store(unit + k, load<V>(x + i * stride + k) * (safe ? inverse : T(1)));
        __builtin_prefetch(x + (i + kTile) * stride + k, 0, 2);  // the next panel's
      }
      if (!safe) inverse = normalize_rescaled(ld, unit);
      if (inverse_norm != nullptr) inverse_norm[r + i] = inverse;
    }
  }
}

template <class T>
void row_products(int64_t n, int64_t ld, const T* a, int64_t a_stride, const T* b, int64_t b_stride,
                  T* out) {
  constexpr int W = simd<T>::lanes;
  for (int64_t r = 0; r < n; r += W) {
    const int64_t count = n - r < W ? n - r : W;
    const Vec<T> dots =
        row_dots<T>(count, ld, a + r * a_stride, a_stride, b + r * b_stride, b_stride);
    memcpy(out + r, &dots, sizeof(T) * count);
  }
}

template <class T>
void normalize_backward(int64_t n, int64_t ld, const T* x, const T* inverse_norm, T* g) {
  using V = Vec<T>;
  constexpr int W = simd<T>::lanes;
  for (int64_t r = 0; r < n; r += W, x += W * ld, g += W * ld) {
    const int64_t count = n - r < W ? n - r : W;
    const V along = row_dots<T>(count, ld, x, ld, g, ld);
    for (int64_t i = 0; i < count; ++i)
      for (int64_t k = i * ld; k < (i + 1) * ld; k += W)
        store(g + k, (load<V>(g + k) - load<V>(x + k) * along[i]) * inverse_norm[r + i]);
  }
}

}  // namespace
}  // namespace ADAPTAU_ISA
}  // namespace adaptau
