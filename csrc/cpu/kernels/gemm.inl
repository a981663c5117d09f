// The dense product behind all three passes of the loss and the scans of top-k and ranks.
//
// A register tile of MR x NV vectors of C stays in registers for the whole k loop; A is broadcast
// element by element, B is read a row of NV vectors at a time. MR * NV accumulators, NV vectors of
// B and one broadcast fill the register file: 6 x 2 of 16 (SSE2, AVX2), 8 x 3 or 6 x 4 of 32
// (AVX-512).

namespace adaptau {
namespace ADAPTAU_ISA {
namespace {

template <class T, int MR, int NV>
ADAPTAU_INLINE void gemm_tile(int64_t k, const T* a, int64_t a_row, int64_t a_col, const T* b,
                              int64_t ldb, T* c, int64_t ldc, bool accumulate) {
  using V = Vec<T>;
  constexpr int W = simd<T>::lanes;
  V acc[MR][NV];
  ADAPTAU_UNROLL
  for (int r = 0; r < MR; ++r) {
    ADAPTAU_UNROLL
    for (int v = 0; v < NV; ++v) acc[r][v] = V{};
  }
  for (int64_t i = 0; i < k; ++i) {
    V bv[NV];
    ADAPTAU_UNROLL
    for (int v = 0; v < NV; ++v) bv[v] = load<V>(b + i * ldb + v * W);
    ADAPTAU_UNROLL
    for (int r = 0; r < MR; ++r) {
      const V av = broadcast<V>(a[r * a_row + i * a_col]);
      ADAPTAU_UNROLL
      for (int v = 0; v < NV; ++v) acc[r][v] += av * bv[v];
    }
  }
  ADAPTAU_UNROLL
  for (int r = 0; r < MR; ++r) {
    ADAPTAU_UNROLL
    for (int v = 0; v < NV; ++v) {
      T* out = c + r * ldc + v * W;
      store(out, accumulate ? load<V>(out) + acc[r][v] : acc[r][v]);
    }
  }
}

// All rows of C in one strip of NV vectors.
template <class T, int MR, int NV>
__attribute__((noinline)) void gemm_strip(int64_t m, int64_t k, const T* a, int64_t a_row,
                                          int64_t a_col, const T* b, int64_t ldb, T* c, int64_t ldc,
                                          bool accumulate) {
  int64_t r = 0;
  for (; r + MR <= m; r += MR)
    gemm_tile<T, MR, NV>(k, a + r * a_row, a_row, a_col, b, ldb, c + r * ldc, ldc, accumulate);
  for (; r < m; ++r)
    gemm_tile<T, 1, NV>(k, a + r * a_row, a_row, a_col, b, ldb, c + r * ldc, ldc, accumulate);
}

template <class T>
void gemm(int64_t m, int64_t n, int64_t k, const T* a, int64_t a_row, int64_t a_col, const T* b,
          int64_t ldb, T* c, int64_t ldc, bool accumulate) {
  constexpr int W = simd<T>::lanes;
  int64_t j = 0;
#if ADAPTAU_VECTOR_BYTES == 64
  if (n % (3 * W) == 0)
    for (; j < n; j += 3 * W)
      gemm_strip<T, 8, 3>(m, k, a, a_row, a_col, b + j, ldb, c + j, ldc, accumulate);
  for (; j + 4 * W <= n; j += 4 * W)
    gemm_strip<T, 6, 4>(m, k, a, a_row, a_col, b + j, ldb, c + j, ldc, accumulate);
#endif
  for (; j + 2 * W <= n; j += 2 * W)
    gemm_strip<T, 6, 2>(m, k, a, a_row, a_col, b + j, ldb, c + j, ldc, accumulate);
  for (; j < n; j += W)
    gemm_strip<T, 6, 1>(m, k, a, a_row, a_col, b + j, ldb, c + j, ldc, accumulate);
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
