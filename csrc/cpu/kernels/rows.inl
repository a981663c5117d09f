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

template <class T>
void dots(int64_t count, int64_t n, const T* const* a, const T* const* b, T* out) {
  constexpr int chains = 8;
  int64_t i = 0;
  for (; i + chains <= count; i += chains) {
    T s[chains] = {};
    for (int64_t k = 0; k < n; ++k) {
      ADAPTAU_UNROLL
      for (int c = 0; c < chains; ++c) s[c] = multiply_add(a[i + c][k], b[i + c][k], s[c]);
    }
    for (int c = 0; c < chains; ++c) out[i + c] = s[c];
  }
  for (; i < count; ++i) out[i] = dot(n, a[i], b[i]);
}

template <class T>
void axpy(int64_t n, T alpha, const T* x, T* y) {
  for (int64_t k = 0; k < n; ++k) y[k] += alpha * x[k];
}

// Products of rows padded to whole vectors; the order of the sum is the vector's.
template <class T>
ADAPTAU_INLINE T dot_padded(int64_t ld, const T* a, const T* b) {
  using V = Vec<T>;
  constexpr int W = simd<T>::lanes;
  V s0{}, s1{};
  int64_t k = 0;
  for (; k + 2 * W <= ld; k += 2 * W) {
    s0 += load<V>(a + k) * load<V>(b + k);
    s1 += load<V>(a + k + W) * load<V>(b + k + W);
  }
  for (; k < ld; k += W) s0 += load<V>(a + k) * load<V>(b + k);
  return sum_lanes<T>(s0 + s1);
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

// A vector of rows at a time, one norm a lane; the last ones may count several times.
template <class T>
void normalize(int64_t n, int64_t ld, const T* x, int64_t stride, T* out, T* inverse_norm) {
  using V = Vec<T>;
  constexpr int W = simd<T>::lanes;
  constexpr T least = Limits<T>::safe_square, most = 1 / Limits<T>::safe_square;
  for (int64_t first = 0; first < n; first += W) {
    const int64_t rows = n - first < W ? n - first : W;
    V products[W];
    ADAPTAU_UNROLL
    for (int i = 0; i < W; ++i) {
      const T* row = x + (first + (i < rows ? i : rows - 1)) * stride;
      V s{};
      for (int64_t k = 0; k < ld; k += W) s += load<V>(row + k) * load<V>(row + k);
      products[i] = s;
    }
    const V square = merge_rows<T, W>(products);
    T scale[W];
    for (int i = 0; i < W; ++i)
      scale[i] = square[i] >= least && square[i] <= most ? 1 / square_root(square[i]) : T(0);
    for (int64_t r = first; r < first + rows; ++r) {
      const T inverse = scale[r - first];
      const V factor = broadcast<V>(inverse != 0 ? inverse : T(1));
      for (int64_t k = 0; k < ld; k += W)
        store(out + r * ld + k, load<V>(x + r * stride + k) * factor);
      inverse_norm[r] = inverse != 0 ? inverse : normalize_rescaled(ld, out + r * ld);
    }
  }
}

template <class T>
void square_norms(int64_t n, int64_t d, int64_t stride, const T* x, T* out) {
  for (int64_t r = 0; r < n; ++r) out[r] = dot_padded(d, x + r * stride, x + r * stride);
}

template <class T>
void normalize_backward(int64_t n, int64_t ld, const T* x, const T* inverse_norm, T* g) {
  using V = Vec<T>;
  for (int64_t r = 0; r < n; ++r, x += ld, g += ld) {
    const T along = dot_padded(ld, x, g), scale = inverse_norm[r];
    for (int64_t k = 0; k < ld; k += simd<T>::lanes)
      store(g + k, (load<V>(g + k) - load<V>(x + k) * along) * scale);
  }
}

}  // namespace
}  // namespace ADAPTAU_ISA
}  // namespace adaptau
