// The loss's products in tile registers (AMX): 16 x 16 sums of 32 bfloat16 products each in 16
// cycles, sixteen times what float32 does. Exponentials, and what they are multiplied with, are
// rounded once, as in bf16.inl. Scores must be better than that: a factor x is
//     high + low,  high = bfloat16(x), low = bfloat16(x - high)
// and high high + low high + high low of a score are right to 2^-16 of the rows' norms.
//
// Words hold two neighbours of the dimension that is summed over, as everywhere in bf16.inl; a tile
// of 16 words is 32 products deep.

namespace adaptau {
namespace ADAPTAU_ISA {
namespace {

#if defined(__AMX_BF16__)

constexpr int64_t kTileSide = 16;  // rows of a tile register, and words or sums in a row

// Every tile register whole: 16 rows of 64 bytes.
void start_tiles() {
  TileShapes shapes;
  for (int t = 0; t < 8; ++t) shapes.row_bytes[t] = 64, shapes.rows[t] = kTileSide;
  load_shapes(shapes);
}
void stop_tiles() { _tile_release(); }

void split_rows(int64_t n, int64_t ld, const float* x, int64_t stride, const float* scale,
                int64_t k, int32_t* high, int32_t* low) {
  for (int64_t j = 0; j < n; ++j, x += stride, high += k, low += k) {
    const float factor = scale != nullptr ? scale[j] : 1;
    auto* upper = reinterpret_cast<uint16_t*>(high);
    auto* lower = reinterpret_cast<uint16_t*>(low);
    for (int64_t i = 0; i < ld; i += 16) {
      const Vec<float> v = load<Vec<float>>(x + i) * factor;
      const __m256i rounded = (__m256i)_mm512_cvtneps_pbh((__m512)v);
      _mm256_storeu_si256((__m256i*)(upper + i), rounded);
      const auto whole = (Vec<float>)_mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16);
      store_rounded(lower + i, v - whole);
    }
    for (int64_t i = ld; i < 2 * k; i += 16) {
      _mm256_storeu_si256((__m256i*)(upper + i), __m256i{});
      _mm256_storeu_si256((__m256i*)(lower + i), __m256i{});
    }
  }
}

// scores[16][48] of 16 item rows with all users. Registers: 0 to 2 sums, 3 and 4 items high and
// low, 5 to 7 users, high and then low.
ADAPTAU_INLINE void score_stripe(int64_t k, const SplitFactors& rows, const SplitFactors& users,
                                 float* scores) {
  constexpr int64_t row = kTile * 4;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  for (int64_t i = 0; i < k; i += kTileSide) {
    const int32_t *high = users.high + i * kTile, *low = users.low + i * kTile;
    _tile_loadd(3, rows.high + i, k * 4);
    _tile_loadd(4, rows.low + i, k * 4);
    _tile_loadd(5, high, row);
    _tile_loadd(6, high + kTileSide, row);
    _tile_loadd(7, high + 2 * kTileSide, row);
    _tile_dpbf16ps(0, 3, 5);
    _tile_dpbf16ps(1, 3, 6);
    _tile_dpbf16ps(2, 3, 7);
    _tile_dpbf16ps(0, 4, 5);
    _tile_dpbf16ps(1, 4, 6);
    _tile_dpbf16ps(2, 4, 7);
    _tile_loadd(5, low, row);
    _tile_loadd(6, low + kTileSide, row);
    _tile_loadd(7, low + 2 * kTileSide, row);
    _tile_dpbf16ps(0, 3, 5);
    _tile_dpbf16ps(1, 3, 6);
    _tile_dpbf16ps(2, 3, 7);
  }
  _tile_stored(0, scores, row);
  _tile_stored(1, scores + kTileSide, row);
  _tile_stored(2, scores + 2 * kTileSide, row);
}
ADAPTAU_INLINE SplitFactors from_row(const SplitFactors& rows, int64_t words) {
  return {rows.high + words, rows.low + words};
}

void scores_tiles(int64_t items, int64_t k, const SplitFactors& rows, const SplitFactors& users,
                  float* tile) {
  for (int64_t j = 0; j < items; j += kTileSide)
    score_stripe(k, from_row(rows, j * k), users, tile + j * kTile);
}

// Pairs of rows [first, last) of scores, NV vectors from lane l on.
template <int NV>
ADAPTAU_INLINE void exponentiate_rows(int64_t first, int64_t last, int64_t l, const float* scores,
                                      const float* shift, float* part, const PairedRows& out) {
  using V = Vec<float>;
  constexpr int W = simd<float>::lanes;
  V sum[NV], shifts[NV];
  ADAPTAU_UNROLL
  for (int v = 0; v < NV; ++v) {
    sum[v] = load<V>(part + l + v * W);
    shifts[v] = load<V>(shift + l + v * W);
  }
  for (int64_t j = first; j < last; j += 2) {
    V e[2][NV];
    ADAPTAU_UNROLL
    for (int r = 0; r < 2; ++r) {
      ADAPTAU_UNROLL
      for (int v = 0; v < NV; ++v) {
        e[r][v] = exp2<float>(load<V>(scores + (j + r) * kTile + l + v * W) - shifts[v]);
        sum[v] += e[r][v];
      }
    }
    out.store_rows(j, l, e);
  }
  ADAPTAU_UNROLL
  for (int v = 0; v < NV; ++v) store(part + l + v * W, sum[v]);
}

void exp_scores_tiles(int64_t items, int64_t lanes, int64_t k, const SplitFactors& rows,
                      const SplitFactors& users, const MaskedScores& masked,
                      const ExpState<float>& state, uint16_t* rounded, int64_t stride,
                      int32_t* paired) {
  constexpr int W = simd<float>::lanes;
  constexpr float never = -__builtin_inff();
  alignas(64) float part[kTile] = {};
  alignas(64) float scores[kTile * kTile];
  const int64_t whole = (items + 7) / 8 * 8;  // rows beyond the items become zeros
  scores_tiles(items, k, rows, users, scores);
  for (int64_t m = 0; m < masked.count; ++m) scores[masked.at[m]] = never;
  for (int64_t p = items * kTile; p < whole * kTile; ++p) scores[p] = never;
  const PairedRows out{rounded, stride, paired};
  if (lanes == kTile) {
    exponentiate_rows<kTile / W>(0, whole, 0, scores, state.shift, part, out);
  } else {
    for (int64_t l = 0; l < lanes; l += W)
      exponentiate_rows<1>(0, whole, l, scores, state.shift, part, out);
  }
  for_each_vector<float>(
      lanes, [&](int64_t v) { add_to_sums<float>(load<Vec<float>>(part + v), state.sum + v); });
}

// C += A B for R x S tiles of C, in registers 0 to R S - 1.
#define ADAPTAU_IF(condition, statement) \
  if constexpr (condition) statement
template <int R, int S>
ADAPTAU_INLINE void add_tiles(int64_t k, const int32_t* a, int64_t a_row, const int32_t* b,
                              int64_t ldb, float* c, int64_t ldc) {
  static_assert(R <= 2 && S <= 2);
  float *c1 = c + kTileSide, *c2 = c + kTileSide * ldc, *c3 = c2 + kTileSide;
  _tile_loadd(0, c, ldc * 4);
  ADAPTAU_IF(S > 1, _tile_loadd(1, c1, ldc * 4));
  ADAPTAU_IF(R > 1, _tile_loadd(2, c2, ldc * 4));
  ADAPTAU_IF(R > 1 && S > 1, _tile_loadd(3, c3, ldc * 4));
  for (int64_t i = 0; i < k; i += kTileSide) {
    _tile_loadd(4, a + i, a_row * 4);
    _tile_loadd(6, b + i * ldb, ldb * 4);
    _tile_dpbf16ps(0, 4, 6);
    ADAPTAU_IF(S > 1, _tile_loadd(7, b + i * ldb + kTileSide, ldb * 4));
    ADAPTAU_IF(S > 1, _tile_dpbf16ps(1, 4, 7));
    ADAPTAU_IF(R > 1, _tile_loadd(5, a + kTileSide * a_row + i, a_row * 4));
    ADAPTAU_IF(R > 1, _tile_dpbf16ps(2, 5, 6));
    ADAPTAU_IF(R > 1 && S > 1, _tile_dpbf16ps(3, 5, 7));
  }
  _tile_stored(0, c, ldc * 4);
  ADAPTAU_IF(S > 1, _tile_stored(1, c1, ldc * 4));
  ADAPTAU_IF(R > 1, _tile_stored(2, c2, ldc * 4));
  ADAPTAU_IF(R > 1 && S > 1, _tile_stored(3, c3, ldc * 4));
}
#undef ADAPTAU_IF

void gemm_tiles(int64_t m, int64_t n, int64_t k, const int32_t* a, int64_t a_row, const int32_t* b,
                int64_t ldb, float* c, int64_t ldc) {
  constexpr int64_t side = kTileSide;
  for (int64_t j = 0; j < n; j += 2 * side) {
    const bool wide = j + side < n;
    for (int64_t r = 0; r < m; r += 2 * side) {
      const int32_t* rows = a + r * a_row;
      float* out = c + r * ldc + j;
      const bool high = r + side < m;
      if (wide && high)
        add_tiles<2, 2>(k, rows, a_row, b + j, ldb, out, ldc);
      else if (wide)
        add_tiles<1, 2>(k, rows, a_row, b + j, ldb, out, ldc);
      else if (high)
        add_tiles<2, 1>(k, rows, a_row, b + j, ldb, out, ldc);
      else
        add_tiles<1, 1>(k, rows, a_row, b + j, ldb, out, ldc);
    }
  }
}

#define ADAPTAU_AMX_TABLE \
  start_tiles, stop_tiles, split_rows, exp_scores_tiles, scores_tiles, gemm_tiles
#else
#define ADAPTAU_AMX_TABLE nullptr, nullptr, nullptr, nullptr, nullptr, nullptr
#endif

}  // namespace
}  // namespace ADAPTAU_ISA
}  // namespace adaptau
