// The dense product behind all three passes of the loss and the scans of top-k and ranks.
//
// A register tile of MR x NV vectors of C stays in registers for the whole k loop; A is broadcast
// element by element, B is read a row of NV vectors at a time. MR * NV accumulators, NV vectors of
// B and one broadcast fill the register file: 6 x 2 of 16 (SSE2, AVX2), 8 x 3 or 6 x 4 of 32
// (AVX-512).

namespace adaptau {
namespace ADAPTAU_ISA {
namespace {

// What is multiplied: elements of the compute type, or pairs of 16-bit ones in 32-bit words
// (bf16.inl)
template <class T>
struct Plain {
  using Sum = T;
  using Word = T;
  using SumVec = Vec<T>;
  using WordVec = Vec<T>;
  static ADAPTAU_INLINE void multiply_add(SumVec& sum, WordVec a, WordVec b) { sum += a * b; }
};
template <class P>
using Word = typename P::Word;
template <class P>
using Sum = typename P::Sum;

// acc[r][v] = sum over k of A(r, k) B(k, v), from zero.
template <class P, int MR, int NV>
ADAPTAU_INLINE void multiply_tile(int64_t k, const Word<P>* a, int64_t a_row, int64_t a_col,
                                  const Word<P>* b, int64_t ldb,
                                  typename P::SumVec (&acc)[MR][NV]) {
  using W = typename P::WordVec;
  constexpr int lanes = sizeof(W) / static_cast<int>(sizeof(Word<P>));
  ADAPTAU_UNROLL
  for (int r = 0; r < MR; ++r) {
    ADAPTAU_UNROLL
    for (int v = 0; v < NV; ++v) acc[r][v] = typename P::SumVec{};
  }
  constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(Word<P>));
  for (int64_t i = 0; i < k;) {
    // the rows of A after these, which are the next tile's
    ADAPTAU_UNROLL
    for (int r = 0; r < MR; ++r) __builtin_prefetch(a + (r + MR) * a_row + i * a_col, 0, 2);
    const int64_t end = i + line < k ? i + line : k;
    for (; i < end; ++i) {
      W bv[NV];
      ADAPTAU_UNROLL
      for (int v = 0; v < NV; ++v) bv[v] = load<W>(b + i * ldb + v * lanes);
      ADAPTAU_UNROLL
      for (int r = 0; r < MR; ++r) {
        const W av = broadcast<W>(a[r * a_row + i * a_col]);
        ADAPTAU_UNROLL
        for (int v = 0; v < NV; ++v) P::multiply_add(acc[r][v], av, bv[v]);
      }
    }
  }
}

template <class P, int MR, int NV>
ADAPTAU_INLINE void gemm_tile(int64_t k, const Word<P>* a, int64_t a_row, int64_t a_col,
                              const Word<P>* b, int64_t ldb, Sum<P>* c, int64_t ldc,
                              bool accumulate) {
  using V = Vec<Sum<P>>;
  V acc[MR][NV];
  ADAPTAU_UNROLL
  for (int r = 0; r < MR; ++r) {
    ADAPTAU_UNROLL
    for (int v = 0; v < NV; ++v) __builtin_prefetch(c + r * ldc + v * simd<Sum<P>>::lanes, 1, 3);
  }
  multiply_tile<P, MR, NV>(k, a, a_row, a_col, b, ldb, acc);
  ADAPTAU_UNROLL
  for (int r = 0; r < MR; ++r) {
    ADAPTAU_UNROLL
    for (int v = 0; v < NV; ++v) {
      Sum<P>* out = c + r * ldc + v * simd<Sum<P>>::lanes;
      store(out, accumulate ? load<V>(out) + acc[r][v] : acc[r][v]);
    }
  }
}

// All rows of C in one strip of NV vectors.
template <class P, int MR, int NV>
__attribute__((noinline)) void gemm_strip(int64_t m, int64_t k, const Word<P>* a, int64_t a_row,
                                          int64_t a_col, const Word<P>* b, int64_t ldb, Sum<P>* c,
                                          int64_t ldc, bool accumulate) {
  int64_t r = 0;
  for (; r + MR <= m; r += MR)
    gemm_tile<P, MR, NV>(k, a + r * a_row, a_row, a_col, b, ldb, c + r * ldc, ldc, accumulate);
  for (; r < m; ++r)
    gemm_tile<P, 1, NV>(k, a + r * a_row, a_row, a_col, b, ldb, c + r * ldc, ldc, accumulate);
}

template <class P>
void gemm(int64_t m, int64_t n, int64_t k, const Word<P>* a, int64_t a_row, int64_t a_col,
          const Word<P>* b, int64_t ldb, Sum<P>* c, int64_t ldc, bool accumulate) {
  constexpr int W = simd<Sum<P>>::lanes;
  int64_t j = 0;
#if ADAPTAU_VECTOR_BYTES == 64
  if (n % (3 * W) == 0)
    for (; j < n; j += 3 * W)
      gemm_strip<P, 8, 3>(m, k, a, a_row, a_col, b + j, ldb, c + j, ldc, accumulate);
  for (; j + 4 * W <= n; j += 4 * W)
    gemm_strip<P, 6, 4>(m, k, a, a_row, a_col, b + j, ldb, c + j, ldc, accumulate);
#endif
  for (; j + 2 * W <= n; j += 2 * W)
    gemm_strip<P, 6, 2>(m, k, a, a_row, a_col, b + j, ldb, c + j, ldc, accumulate);
  for (; j < n; j += W)
    gemm_strip<P, 6, 1>(m, k, a, a_row, a_col, b + j, ldb, c + j, ldc, accumulate);
}

template <class T>
double multiply_add_rate(int64_t rounds) {
  using V = Vec<T>;
  constexpr int chains = 12;  // enough to hide the latency of any of today's units
  V acc[chains], x = broadcast<V>(T(0.5));
  ADAPTAU_UNROLL
  for (int i = 0; i < chains; ++i) acc[i] = broadcast<V>(T(i));
  asm volatile("" : "+m"(x));  // unknown to the compiler
  for (int64_t round = 0; round < rounds; ++round) {
    ADAPTAU_UNROLL
    for (int i = 0; i < chains; ++i) acc[i] = acc[i] * x + x;
  }
  ADAPTAU_UNROLL
  for (int i = 0; i < chains; ++i) asm volatile("" : : "m"(acc[i]));  // and wanted
  return 2.0 * chains * simd<T>::lanes * static_cast<double>(rounds);
}

}  // namespace
}  // namespace ADAPTAU_ISA
}  // namespace adaptau
