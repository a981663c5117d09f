// Fixed-width vectors in the compiler's own vector extension, so that one source serves SSE2, AVX2,
// AVX-512 and NEON. The files in this folder are compiled once per instruction set with
//   ADAPTAU_ISA           the namespace: baseline, avx2, avx512, avx512vnni, avx512bf16, avx512amx
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
  typedef uint16_t halves __attribute__((vector_size(2 * lanes)));  // sixteen bits a lane
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

#if defined(__AMX_TILE__)
// Of the tile registers, as the processor reads them.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
ADAPTAU_INLINE void load_shapes(const TileShapes& shapes) {
  // GCC's header tells the compiler of the first eight bytes only
  __asm__ volatile("" : : "r"(&shapes) : "memory");
  _tile_loadconfig(&shapes);
}
#endif

// The first n < lanes elements: zeros beyond them, and nothing beyond them is touched.
template <class T>
ADAPTAU_INLINE Vec<T> keep_first(int64_t n, Vec<T> v) {
  IVec<T> lane;
  ADAPTAU_UNROLL
  for (int l = 0; l < simd<T>::lanes; ++l) lane[l] = l;
  return lane < static_cast<typename simd<T>::Int>(n) ? v : Vec<T>{};
}
template <class T>
ADAPTAU_INLINE Vec<T> load_first(int64_t n, const T* p) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return (Vec<T>)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
  } else {
    return (Vec<T>)_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1), p);
  }
#else
  T head[simd<T>::lanes] = {};
  for (int64_t i = 0; i < n; ++i) head[i] = p[i];
  return load<Vec<T>>(head);
#endif
}
template <class T>
ADAPTAU_INLINE void store_first(int64_t n, T* p, Vec<T> v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), (__m512)v);
  } else {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << n) - 1), (__m512d)v);
  }
#else
  T head[simd<T>::lanes];
  store(head, v);
  for (int64_t i = 0; i < n; ++i) p[i] = head[i];
#endif
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

// count + 1 in the lanes where x >= bound; NaN reaches nothing and is reached by nothing.
template <class T>
ADAPTAU_INLINE IVec<T> count_reached(IVec<T> count, Vec<T> x, Vec<T> bound) {
#if defined(__AVX512F__)
  const __m512i all = _mm512_set1_epi32(-1);  // -1 in lanes of either width
  if constexpr (sizeof(T) == 4) {
    const __mmask16 reached = _mm512_cmp_ps_mask((__m512)x, (__m512)bound, _CMP_GE_OQ);
    return (IVec<T>)_mm512_mask_sub_epi32((__m512i)count, reached, (__m512i)count, all);
  } else {
    const __mmask8 reached = _mm512_cmp_pd_mask((__m512d)x, (__m512d)bound, _CMP_GE_OQ);
    return (IVec<T>)_mm512_mask_sub_epi64((__m512i)count, reached, (__m512i)count, all);
  }
#else
  return count - (x >= bound);  // true is -1
#endif
}

// 2^f for |f| <= 1/2 as 1 + c[1] f + c[2] f^2 + ...: for float the minimax polynomial of relative
// error (1.1e-7 with the coefficients rounded), for double the Taylor polynomial (4e-18).
constexpr double taylor_exp2(int n) {
  double c = 1;
  for (int i = 1; i <= n; ++i) c *= 0.69314718055994530942 / i;
  return c;
}
template <class T>
struct Exp2;
template <>
struct Exp2<float> {
  static constexpr int degree = 5, mantissa = 23, bias = 127;
  static constexpr float magic = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer
  static constexpr float coefficient(int n) {
    constexpr float c[] = {1.f,          0.69314700f,   0.24022242f,
                           0.055507336f, 0.0096715130f, 0.0013264727f};
    return c[n];
  }
};
template <>
struct Exp2<double> {
  static constexpr int degree = 13, mantissa = 52, bias = 1023;
  static constexpr double magic = 6755399441055744.0;
  static constexpr double coefficient(int n) { return taylor_exp2(n); }
};

template <class T>
ADAPTAU_INLINE Vec<T> exp2_fraction(Vec<T> f) {
  using P = Exp2<T>;
  Vec<T> p = broadcast<Vec<T>>(P::coefficient(P::degree));
  ADAPTAU_UNROLL
  for (int n = P::degree - 1; n >= 0; --n) p = p * f + P::coefficient(n);
  return p;
}

// 2^x for x below the overflow bound. -inf gives exactly zero, NaN stays NaN.
template <class T>
ADAPTAU_INLINE Vec<T> exp2(Vec<T> x) {
  using P = Exp2<T>;
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    const Vec<T> low = broadcast<Vec<T>>(-160.f);       // scales to zero
    x = (Vec<T>)_mm512_max_ps((__m512)low, (__m512)x);  // the second of a NaN, which passes
    const Vec<T> n =
        (Vec<T>)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return (Vec<T>)_mm512_scalef_ps((__m512)exp2_fraction<T>(x - n), (__m512)n);
  }
#endif
  const Vec<T> low = broadcast<Vec<T>>(T(-P::bias));  // the power below becomes zero
  x = x < low ? low : x;
  const Vec<T> t = x + P::magic;
  const IVec<T> power = ((IVec<T>)t + P::bias) << P::mantissa;
  return exp2_fraction<T>(x - (t - P::magic)) * (Vec<T>)power;
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

template <int... I>
struct Indices {};
template <int n, int... I>
struct MakeIndices : MakeIndices<n - 1, n - 1, I...> {};
template <int... I>
struct MakeIndices<0, I...> {
  using type = Indices<I...>;
};
// Blocks of `half` lanes, even ones: a's plus the odd neighbour's, odd ones: the same of b. The
// first of the two is a blend, which is cheaper than a second shuffle.
template <class T, int half, int... I>
ADAPTAU_INLINE Vec<T> add_halves(Vec<T> a, Vec<T> b, Indices<I...>) {
  constexpr int n = simd<T>::lanes;
  return __builtin_shufflevector(a, b, (I % (2 * half) < half ? I : I + n)...) +
         __builtin_shufflevector(a, b, (I % (2 * half) < half ? I + half : I - half + n)...);
}
// Sums of W vectors at once, lane l of the result = sum of vector l, in stages: merging count
// vectors from half = h leaves sums over blocks, to be merged with others from half = h * count.
template <class T, int count, int half = 1>
ADAPTAU_INLINE Vec<T> merge_rows(const Vec<T>* rows) {
  if constexpr (count == 1) {
    return rows[0];
  } else {
    Vec<T> pairs[count / 2];
    ADAPTAU_UNROLL
    for (int i = 0; i < count / 2; ++i)
      pairs[i] = add_halves<T, half>(rows[2 * i], rows[2 * i + 1],
                                     typename MakeIndices<simd<T>::lanes>::type());
    return merge_rows<T, count / 2, 2 * half>(pairs);
  }
}
template <class T, int half = simd<T>::lanes / 2>
ADAPTAU_INLINE T sum_lanes(Vec<T> v) {
  if constexpr (half == 0) {
    return v[0];
  } else {
    return sum_lanes<T, half / 2>(
        add_halves<T, half>(v, v, typename MakeIndices<simd<T>::lanes>::type()));
  }
}

}  // namespace
}  // namespace ADAPTAU_ISA
}  // namespace adaptau
