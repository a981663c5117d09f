// Products of bfloat16 pairs: two multiply-adds an instruction lane. A word holds two neighbours of
// the dimension that is summed over, so every factor exists in the order its product needs:
//   rounded rows    [n][ld / 2] words, pairs along the row
//   paired rows     [n / 2][ld] words, word k of row pair p = rows 2p and 2p + 1 at k

namespace adaptau {
namespace ADAPTAU_ISA {
namespace {

#if defined(__AVX512BF16__)

// Elements of a and b in turn: word l = a[l] | b[l] << 16.
ADAPTAU_INLINE IVec<float> interleave(Vec<float> a, Vec<float> b) {
  const IVec<float> both = (IVec<float>)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
  const __m512i turns = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return (IVec<float>)_mm512_permutexvar_epi16(turns, (__m512i)both);
}
ADAPTAU_INLINE void store_rounded(uint16_t* out, Vec<float> x) {
  _mm256_storeu_si256((__m256i*)out, (__m256i)_mm512_cvtneps_pbh((__m512)x));
}

// A tile of exponentials in both orders: rounded for the product over users, paired for the one
// over items.
struct PairedTile {
  uint16_t* rounded;  // [48][stride]
  int64_t stride;
  int32_t* paired;  // [24][48]
  const float* correction;
  ADAPTAU_INLINE Vec<float> exponent(int64_t item, Vec<float> score, Vec<float> shift) const {
    return score * correction[item] - shift;
  }
  template <int MR, int NV>
  ADAPTAU_INLINE void store_rows(int64_t j, int64_t l, const Vec<float> (&e)[MR][NV]) const {
    ADAPTAU_UNROLL
    for (int r = 0; r < MR; r += 2) {
      ADAPTAU_UNROLL
      for (int v = 0; v < NV; ++v) {
        uint16_t* out = rounded + (j + r) * stride + l + v * 16;
        store_rounded(out, e[r][v]);
        store_rounded(out + stride, e[r + 1][v]);
        __builtin_prefetch(out + kTile * stride, 1, 2);  // where the next panel's go
        __builtin_prefetch(out + (kTile + 1) * stride, 1, 2);
        store(paired + (j + r) / 2 * kTile + l + v * 16, interleave(e[r][v], e[r + 1][v]));
      }
    }
  }
};

void exp_scores_bf16(int64_t items, int64_t lanes, int64_t k, const int32_t* rows,
                     int64_t row_stride, const float* correction, const int32_t* users,
                     const MaskedScores& masked, const ExpState<float>& state, uint16_t* rounded,
                     int64_t stride, int32_t* paired) {
  exp_scores_to<Pairs>(items, lanes, k, rows, row_stride, users, masked, state,
                       PairedTile{rounded, stride, paired, correction});
}

// Rounding makes a row longer or shorter along itself, and then every score near it is off the same
// way: with scores times <x, x> / <x, rounded x> that part of the error is gone, the largest one
// in the gradient of an item.
ADAPTAU_INLINE float row_correction(int64_t ld, const float* x) {
  Vec<float> along{}, square{};
  for (int64_t k = 0; k < ld; k += 16) {
    const Vec<float> v = load<Vec<float>>(x + k);
    const __m512i words =
        _mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)v)), 16);
    along += v * (Vec<float>)words;
    square += v * v;
  }
  const float c = sum_lanes<float>(square) / sum_lanes<float>(along);
  return c > 0.99f && c < 1.01f ? c : 1.f;  // 1 for rows of zeros, subnormals or NaN
}

void round_rows(int64_t n, int64_t ld, const float* x, int64_t stride, uint16_t* rounded,
                int64_t rounded_stride, int32_t* paired, float* correction) {
  for (int64_t j = 0; j < n; j += 2) {
    const bool both = j + 1 < n;
    for (int64_t k = 0; k < ld; k += 16) {
      const Vec<float> a = load<Vec<float>>(x + j * stride + k);
      const Vec<float> b = both ? load<Vec<float>>(x + (j + 1) * stride + k) : Vec<float>{};
      if (rounded != nullptr) {
        store_rounded(rounded + j * rounded_stride + k, a);
        if (both) store_rounded(rounded + (j + 1) * rounded_stride + k, b);
      }
      if (paired != nullptr) store(paired + j / 2 * ld + k, interleave(a, b));
    }
    if (correction == nullptr) continue;
    correction[j] = row_correction(ld, x + j * stride);
    if (both) correction[j + 1] = row_correction(ld, x + (j + 1) * stride);
  }
}

#define ADAPTAU_BF16_TABLE gemm<Pairs>, exp_scores_bf16, round_rows
#else
#define ADAPTAU_BF16_TABLE nullptr, nullptr, nullptr
#endif

}  // namespace
}  // namespace ADAPTAU_ISA
}  // namespace adaptau
