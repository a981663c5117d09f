// Products of 16-bit pairs: two multiply-adds an instruction lane. A word holds two neighbours of
// the dimension that is summed over, so every factor exists in the order its product needs.
//   Scores: 16-bit integers, a scale a row. |q| <= 32,000 for the whole row, so that by
//     Cauchy-Schwarz no sum leaves 32 bits, and a logit of 20 is right to 3e-4.
//   Products with exponentials: bfloat16, whose range they need.
//       rounded rows   [n][ld]      pairs along the row
//       paired rows    [n / 2][ld]  word k of pair p = rows 2p and 2p + 1 at k

namespace adaptau {
namespace ADAPTAU_ISA {
namespace {

#if defined(__AVX512BF16__)

struct Bf16Pairs {
  using Sum = float;
  using Word = int32_t;
  using SumVec = Vec<float>;
  using WordVec = IVec<float>;
  static ADAPTAU_INLINE void multiply_add(SumVec& sum, WordVec a, WordVec b) {
    sum = (SumVec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
  }
};
struct Int16Pairs {
  using Sum = float;  // after conversion
  using Word = int32_t;
  using SumVec = IVec<float>;
  using WordVec = IVec<float>;
  static ADAPTAU_INLINE void multiply_add(SumVec& sum, WordVec a, WordVec b) {
    sum = (SumVec)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
  }
};

// Rounded: a in the lower half, b in the upper one.
ADAPTAU_INLINE __m512i round_both(Vec<float> a, Vec<float> b) {
  return (__m512i)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
}
// Elements of a and b in turn: word l = a[l] | b[l] << 16.
ADAPTAU_INLINE IVec<float> interleave(__m512i both) {
  const __m512i turns = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return (IVec<float>)_mm512_permutexvar_epi16(turns, both);
}
ADAPTAU_INLINE void store_rounded(uint16_t* out, Vec<float> x) {
  _mm256_storeu_si256((__m256i*)out, (__m256i)_mm512_cvtneps_pbh((__m512)x));
}

// A tile of exponentials in both orders: rounded for the product over users, paired for the one
// over items.
struct PairedRows {
  uint16_t* rounded;  // [48][stride]
  int64_t stride;
  int32_t* paired;  // [24][48]
  template <int MR, int NV>
  ADAPTAU_INLINE void store_rows(int64_t j, int64_t l, const Vec<float> (&e)[MR][NV]) const {
    ADAPTAU_UNROLL
    for (int r = 0; r < MR; r += 2) {
      ADAPTAU_UNROLL
      for (int v = 0; v < NV; ++v) {
        uint16_t* out = rounded + (j + r) * stride + l + v * 16;
        const __m512i both = round_both(e[r][v], e[r + 1][v]);
        _mm256_storeu_si256((__m256i*)out, _mm512_castsi512_si256(both));
        _mm256_storeu_si256((__m256i*)(out + stride), _mm512_extracti64x4_epi64(both, 1));
        __builtin_prefetch(out + kTile * stride, 1, 2);  // where the next panel's go
        __builtin_prefetch(out + (kTile + 1) * stride, 1, 2);
        store(paired + (j + r) / 2 * kTile + l + v * 16, interleave(both));
      }
    }
  }
};
// From sums of integers.
struct PairedTile : PairedRows {
  const float *item_scale, *user_scale;
  ADAPTAU_INLINE Vec<float> exponent(int64_t item, int64_t lane, Vec<float> sum,
                                     Vec<float> shift) const {
    return sum * (load<Vec<float>>(user_scale + lane) * item_scale[item]) - shift;
  }
};

void exp_scores_int16(int64_t items, int64_t lanes, int64_t k, const Int16Factors& rows,
                      const Int16Factors& users, const MaskedScores& masked,
                      const ExpState<float>& state, uint16_t* rounded, int64_t stride,
                      int32_t* paired) {
  exp_scores_to<Int16Pairs>(items, lanes, k, rows.words, k, users.words, masked, state,
                            PairedTile{{rounded, stride, paired}, rows.scale, users.scale});
}

void scores_int16(int64_t items, int64_t lanes, int64_t k, const Int16Factors& rows,
                  const Int16Factors& users, float* tile) {
  constexpr int MR = kScoreRows;
  for (int64_t l = 0; l < lanes; l += 16)
    for (int64_t j = 0; j < items; j += MR) {
      Vec<float> scores[MR][1];
      multiply_to_scores<Int16Pairs, MR, 1>(k, rows.words + j * k, k, users.words + l, scores);
      ADAPTAU_UNROLL
      for (int r = 0; r < MR; ++r)
        store(tile + (j + r) * kTile + l,
              scores[r][0] * (load<Vec<float>>(users.scale + l) * rows.scale[j + r]));
    }
}

void int16_rows(int64_t n, int64_t ld, const float* x, int64_t stride, int16_t* out, float* scale) {
  using V = Vec<float>;
  for (int64_t j = 0; j < n; ++j, x += stride, out += ld) {
    V largest{}, square{};
    for (int64_t k = 0; k < ld; k += 16) {
      const V v = load<V>(x + k), size = v < 0 ? -v : v;
      largest = size > largest ? size : largest;
    }
    float top = 0;
    for (int l = 0; l < 16; ++l) top = largest[l] > top ? largest[l] : top;
    const bool usable = top > 1e-34f && top < 1e34f;  // NaN is seen below
    const float down = usable ? 1 / top : 1;
    for (int64_t k = 0; k < ld; k += 16) {
      const V v = load<V>(x + k) * down;
      square += v * v;
    }
    const float norm = square_root(sum_lanes<float>(square)) * (usable ? top : 1);
    const float up = usable ? 32000 / norm : 0;
    // never zero, which would turn a masked -inf into NaN; what is not finite makes all scores NaN
    scale[j] = usable ? norm / 32000 : 1 + (norm - norm);
    for (int64_t k = 0; k < ld; k += 16)
      _mm256_storeu_si256(
          (__m256i*)(out + k),
          _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32((__m512)(load<V>(x + k) * up))));
  }
}

void bf16_rows(int64_t n, int64_t ld, const float* x, int64_t stride, uint16_t* rounded,
               int64_t rounded_stride, int32_t* paired) {
  for (int64_t j = 0; j < n; j += 2)
    for (int64_t k = 0; k < ld; k += 16) {
      const bool both = j + 1 < n;
      const Vec<float> a = load<Vec<float>>(x + j * stride + k);
      const Vec<float> b = both ? load<Vec<float>>(x + (j + 1) * stride + k) : Vec<float>{};
      const __m512i halves = round_both(a, b);
      if (rounded != nullptr) {
        uint16_t* out = rounded + j * rounded_stride + k;
        _mm256_storeu_si256((__m256i*)out, _mm512_castsi512_si256(halves));
        if (both)
          _mm256_storeu_si256((__m256i*)(out + rounded_stride),
                              _mm512_extracti64x4_epi64(halves, 1));
      }
      store(paired + j / 2 * ld + k, interleave(halves));
    }
}

#define ADAPTAU_BF16_TABLE gemm<Bf16Pairs>, exp_scores_int16, scores_int16, int16_rows, bf16_rows
#else
#define ADAPTAU_BF16_TABLE nullptr, nullptr, nullptr, nullptr, nullptr
#endif

}  // namespace
}  // namespace ADAPTAU_ISA
}  // namespace adaptau
