// Fixed-width vectors in the compiler's own vector extension, so that one source serves SSE2, AVX2,
// AVX-512 and NEON. The files in this folder are compiled once per instruction set with
//   ADAPTAU_ISA           the namespace: baseline, avx2, avx512, avx512vnni, avx512bf16
//   ADAPTAU_VECTOR_BYTES  16, 32 or 64
// They must not instantiate templates of the standard library: the linker keeps one copy of such a
// function, and it might be the one that an older processor cannot run.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define ADAPTAU_INLINE inline __attribute__((always_inline))
#define ADAPTAU_UNROLL _Pragma("GCC unroll 64")

namespace adaptau {
namespace ADAPTAU_ISA {
namespace {

template <class T>
struct simd {
  static constexpr int lanes = ADAPTAU_VECTOR_BYTES / static_cast<int>(sizeof(T));
  using Int = Key<T>;  // of the same width
  typedef T vec __attribute__((vector_size(ADAPTAU_VECTOR_BYTES)));
  typedef Int ivec __attribute__((vector_size(ADAPTAU_VECTOR_BYTES)));
};
template <class T>
using Vec = typename simd<T>::vec;
template <class T>
using IVec = typename simd<T>::ivec;

template <class V, class E>
ADAPTAU_INLINE V load(const E* p) {
  V v;
  memcpy(&v, p, sizeof v);
  return v;
}
template <class V, class E>
ADAPTAU_INLINE void store(E* p, V v) {
  memcpy(p, &v, sizeof v);
}
// A store past the caches, p aligned to the vector. Other threads may read after fence_streams().
template <class V, class E>
ADAPTAU_INLINE void stream(E* p, V v) {
#if defined(__AVX512F__)
  _mm512_stream_si512((__m512i*)p, (__m512i)v);
#elif defined(__AVX2__)
  _mm256_stream_si256((__m256i*)p, (__m256i)v);
#elif defined(__SSE2__)
  _mm_stream_si128((__m128i*)p, (__m128i)v);
#else
  store(p, v);
#endif
}
ADAPTAU_INLINE void fence_streams() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}
template <class V, class E>
ADAPTAU_INLINE V broadcast(E x) {
  return x - V{};  // x - 0 keeps -0 and NaN
}

// One bit a lane of a comparison result.
template <class T>
ADAPTAU_INLINE uint32_t mask_bits(IVec<T> m) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return _mm512_cmplt_epi32_mask((__m512i)m, _mm512_setzero_si512());
  } else {
    return _mm512_cmplt_epi64_mask((__m512i)m, _mm512_setzero_si512());
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    return static_cast<uint32_t>(_mm256_movemask_ps((__m256)m));
  } else {
    return static_cast<uint32_t>(_mm256_movemask_pd((__m256d)m));
  }
#else
  uint32_t bits = 0;
  ADAPTAU_UNROLL
  for (int l = 0; l < simd<T>::lanes; ++l) bits |= (m[l] < 0 ? 1u : 0u) << l;
  return bits;
#endif
}

// Taylor polynomial of 2^f, |f| <= 1/2. The remainder is far below half an ulp: degree 7 leaves
// 5e-9 for float, degree 13 leaves 4e-18 for double.
template <class T>
struct Exp2;
template <>
struct Exp2<float> {
  static constexpr int degree = 7, mantissa = 23, bias = 127;
  static constexpr float magic = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer
};
template <>
struct Exp2<double> {
  static constexpr int degree = 13, mantissa = 52, bias = 1023;
  static constexpr double magic = 6755399441055744.0;
};
constexpr double taylor_exp2(int n) {
  double c = 1;
  for (int i = 1; i <= n; ++i) c *= 0.69314718055994530942 / i;
  return c;
}

// 2^x for x below the overflow bound. Anything below 2^-bias, -inf included, is exactly zero;
// NaN stays NaN.
template <class T>
ADAPTAU_INLINE Vec<T> exp2(Vec<T> x) {
  using P = Exp2<T>;
  const Vec<T> lowest = broadcast<Vec<T>>(T(-P::bias));
  x = x < lowest ? lowest : x;  // false for NaN, which passes
  const Vec<T> t = x + P::magic;
  const Vec<T> f = x - (t - P::magic);
  Vec<T> p = broadcast<Vec<T>>(static_cast<T>(taylor_exp2(P::degree)));
  ADAPTAU_UNROLL
  for (int n = P::degree - 1; n >= 0; --n) p = p * f + static_cast<T>(taylor_exp2(n));
  const IVec<T> power = ((IVec<T>)t + P::bias) << P::mantissa;
  return p * (Vec<T>)power;
}

// Monotone integer keys of order.h, a vector at a time.
template <class T>
ADAPTAU_INLINE IVec<T> keys(Vec<T> score) {
  using Int = typename simd<T>::Int;
  constexpr Int top = static_cast<Int>(~(typename simd<T>::Int(1) << (8 * sizeof(T) - 1)));
  const IVec<T> bits = (IVec<T>)(score + T(0));
  const IVec<T> key = bits ^ ((bits >> (8 * sizeof(T) - 1)) & top);
  return score == score ? key : broadcast<IVec<T>>(static_cast<Int>(~top));
}

// Unsigned 64-bit lanes that hold 32-bit words, for the counter generator.
typedef uint64_t Words __attribute__((vector_size(ADAPTAU_VECTOR_BYTES)));
constexpr int kWordLanes = ADAPTAU_VECTOR_BYTES / 8;

// Products of the low 32 bits of each lane.
ADAPTAU_INLINE Words wide_multiply(Words a, Words b) {
#if defined(__AVX512F__)
  return (Words)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (Words)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return (Words)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

// Sums of `lanes` vectors at once, lane l of the result = sum of vector l. The inputs are combined
// in halving blocks, so they must be given in bit-reversed order: vector l at rows[reversed(l)].
template <int lanes>
ADAPTAU_INLINE constexpr int reversed(int l) {
  int r = 0;
  for (int bit = 1; bit < lanes; bit *= 2) r = 2 * r + ((l & bit) ? 1 : 0);
  return r;
}
template <int... I>
struct Indices {};
template <int n, int... I>
struct MakeIndices : MakeIndices<n - 1, n - 1, I...> {};
template <int... I>
struct MakeIndices<0, I...> {
  using type = Indices<I...>;
};
template <class T, int half, int... I>
ADAPTAU_INLINE Vec<T> add_halves(Vec<T> a, Vec<T> b, Indices<I...>) {
  constexpr int n = simd<T>::lanes;
  return __builtin_shufflevector(
             a, b, (I / (2 * half) * (2 * half) + I % half + (I % (2 * half) < half ? 0 : n))...) +
         __builtin_shufflevector(
             a, b,
             (I / (2 * half) * (2 * half) + I % half + half + (I % (2 * half) < half ? 0 : n))...);
}
template <class T, int count>
ADAPTAU_INLINE Vec<T> sum_rows(const Vec<T>* rows) {
  constexpr int lanes = simd<T>::lanes;
  if constexpr (count == 1) {
    return rows[0];
  } else {
    Vec<T> half[count / 2];
    ADAPTAU_UNROLL
    for (int i = 0; i < count / 2; ++i)
      half[i] = add_halves<T, count / 2>(rows[2 * i], rows[2 * i + 1],
                                         typename MakeIndices<lanes>::type());
    return sum_rows<T, count / 2>(half);
  }
}
template <class T>
ADAPTAU_INLINE T sum_lanes(Vec<T> v) {
  T s = 0;
  ADAPTAU_UNROLL
  for (int l = 0; l < simd<T>::lanes; ++l) s += v[l];
  return s;
}

}  // namespace
}  // namespace ADAPTAU_ISA
}  // namespace adaptau
