// Adam on a row of a table: the steps that it missed, and one with a gradient.

namespace adaptau {
namespace ADAPTAU_ISA {
namespace {

template <class T>
ADAPTAU_INLINE Vec<T> square_roots(Vec<T> x) {
#if defined(__AVX512F__)
  // masks of all lanes: GCC 12 warns of the undefined vector that is in the unmasked ones
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm512_maskz_sqrt_ps(0xffff, (__m512)x);
  else
    return (Vec<T>)_mm512_maskz_sqrt_pd(0xff, (__m512d)x);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm256_sqrt_ps((__m256)x);
  else
    return (Vec<T>)_mm256_sqrt_pd((__m256d)x);
#else
  ADAPTAU_UNROLL
  for (int l = 0; l < simd<T>::lanes; ++l) x[l] = square_root(x[l]);
  return x;
#endif
}

// f(place of a vector, how many of its elements are in the row), over a row of d elements
template <class T, class F>
ADAPTAU_INLINE void for_each_part(int64_t d, F&& f) {
  constexpr int W = simd<T>::lanes;
  int64_t k = 0;
  for (; k + W <= d; k += W) f(k, W);
  if (k < d) f(k, d - k);
}
template <class T>
ADAPTAU_INLINE Vec<T> load_some(int64_t n, const T* p) {
  return n == simd<T>::lanes ? load<Vec<T>>(p) : load_first(n, p);
}
template <class T>
ADAPTAU_INLINE void store_some(int64_t n, T* p, Vec<T> v) {
  if (n == simd<T>::lanes) {
    store(p, v);
  } else {
    store_first<T>(n, p, v);
  }
}

// While a row has no gradient both its moments only decay, so that one root serves all the steps.
template <class T>
void adam_missed(int64_t d, const AdamMissed<T>& missed, const AdamRow<T>& row) {
  for_each_part<T>(d, [&](int64_t k, int64_t n) {
    const Vec<T> mean = load_some(n, row.mean + k), square = load_some(n, row.square + k),
                 root = square_roots<T>(square);
    Vec<T> moved{};
    for (int64_t s = 0; s < missed.steps; ++s)
      moved += mean * (missed.rate[s] * missed.correct_mean[s]) /
               (root * (missed.decay_root[s] * missed.correct_root[s]) + missed.epsilon);
    store_some<T>(n, row.parameter + k, load_some(n, row.parameter + k) - moved);
    store_some<T>(n, row.mean + k, mean * missed.decay_mean);
    store_some<T>(n, row.square + k, square * missed.decay_square);
  });
}

template <class T>
void adam_step(int64_t d, const AdamStep<T>& step, const T* gradient, const AdamRow<T>& row) {
  for_each_part<T>(d, [&](int64_t k, int64_t n) {
    const Vec<T> g = load_some(n, gradient + k);
    Vec<T> mean = load_some(n, row.mean + k), square = load_some(n, row.square + k);
    mean += (g - mean) * step.new_mean;
    square = square * step.decay_square + g * g * step.new_square;
    const Vec<T> moved =
        mean * step.rate / (square_roots<T>(square) * step.correct_root + step.epsilon);
    store_some<T>(n, row.parameter + k, load_some(n, row.parameter + k) - moved);
    store_some<T>(n, row.mean + k, mean);
    store_some<T>(n, row.square + k, square);
  });
}

}  // namespace
}  // namespace ADAPTAU_ISA
}  // namespace adaptau
