// The micro-kernels every CPU operator is made of, one table an instruction set.
//
// kernels/*.inl are compiled once per instruction set (baseline, AVX2 + FMA, AVX-512, with VNNI,
// with BF16); an operator picks a table once per call with active_kernels<T>() and calls through
// it. Drivers (softmax.cpp, ...) hold the algorithm and are compiled once, for the baseline.
//
// Tiles. Scores are computed 48 items x 48 users at a time, items as rows, users as lanes: what
// belongs to a user (shift, sum, threshold) is then one vector lane, and nothing is reduced
// across lanes. Users are packed once a call, [group][d][48]; items are read as they lie.
#pragma once

#include <cstdint>

#include "../core/order.h"
#include "../core/problem.h"
#include "scratch.h"

namespace adaptau {

constexpr int kTile = 48;  // items a panel, users a group

// Elements in a row of d elements that is padded with zeros to whole cache lines.
template <class T>
constexpr int64_t padded(int64_t d) {
  constexpr int64_t step = kRowAlign / static_cast<int64_t>(sizeof(T));
  return (d + step - 1) / step * step;
}

// Base-2 soft-max state of a group of users, one lane a user.
template <class T>
struct ExpState {
  T* shift;          // [48] E = exp2(score - shift); padded lanes hold a huge shift
  double* sum;       // [48] sum of E
  const T* inv_k;    // [48] or nullptr: takes the temperature off again, score * inv_k = s log2(e)
  T* unit_shift;     // [48] the same for temperature 1, used when inv_k is given
  double* unit_sum;  // [48]
};

// Scores that leave a tile: position item * 48 + lane, and the rows that have any, a bit a row.
struct MaskedScores {
  uint64_t rows;
  int64_t count;
  const uint16_t* at;  // [count]
};

// Several thresholds a lane: count[i][lane] += number of scores >= bound[i][lane]. NaN reaches
// nothing and is reached by nothing.
template <class T>
struct RankThresholds {
  int64_t depth;
  const T* bound;  // [depth][48]
  Key<T>* count;   // [depth][48]
};

// Rows as 16-bit integers, two a word, and what one of them stands for: item rows [48][k], or users
// packed [k][48].
struct Int16Factors {
  const int32_t* words;
  const float* scale;
};

// Rows as two bfloat16 factors that add up to them, two elements a word: item rows [48][k], or
// users packed [k][48]. k is a multiple of 16, zeros beyond the rows.
struct SplitFactors {
  const int32_t *high, *low;
};

// Samples of some rows that fell into one bucket of items, ordered by row: row r owns
// [starts[r], starts[r + 1]). Rows of items, of users, of O and of gradients are d apart, d a
// multiple of the vector length.
template <class T>
struct BucketSamples {
  int64_t rows;
  const uint32_t* starts;  // [rows + 1] positions into local / values
  const uint16_t* local;   // item within the bucket
  const T* items;          // the bucket's first row
  int64_t d;
};

// What to do with a bucket; all three at once where no shift has to be found first.
struct SampledSteps {
  bool score, exponentiate, accumulate;
};

// Base-2 soft-max state of the rows, as ExpState; scale = log2(e) / tau.
template <class T>
struct SampledState {
  const T* scale;
  const T* shift;
  double* sum;
  const T* inv_k;
  const T* unit_shift;
  double* unit_sum;
};

// Rows of a sparse matrix times a table: out[r] = own_scale[r] * own[r] + scale[r] * sum over e in
// [starts[r], starts[r + 1]), i = indices[e], of table_scale[i] * table row i. All rows are of d
// elements, a multiple of the vector length.
template <class T>
struct GatheredRows {
  int64_t rows, d;
  const int64_t* starts;   // [rows + 1] positions into indices
  const int32_t* indices;  // [n_indices], beyond the last row's too: they may be looked at
  int64_t n_indices;
  const T* table;
  int64_t table_stride;
  const T* table_scale;  // a value a row of the table, or nullptr: 1
  const T* scale;
  const T* const* own;  // [rows] of d elements, or nullptr: nothing is added
  const T* own_scale;
  T* const* out;
  Dropout dropout;           // of the result; its factor is in scale and own_scale already
  const int64_t* table_row;  // [rows] the result's rows as dropout numbers them
  bool stream;  // past the caches: results are too large for them, and aligned to kRowAlign
};

template <class T>
struct AdamRow {
  T *parameter, *mean, *square;
};
// Steps without a gradient; entry s of each array is of the s-th of them.
template <class T>
struct AdamMissed {
  int64_t steps;                         // that still move the parameter
  const T *rate, *decay_root;            // lr beta1^(s+1), beta2^((s+1) / 2)
  const T *correct_mean, *correct_root;  // 1 / (1 - beta1^t), 1 / sqrt(1 - beta2^t)
  T decay_mean, decay_square;            // of all of them, those that do not move it, too
  T epsilon;
};
template <class T>
struct AdamStep {
  T new_mean;                  // 1 - beta1
  T decay_square, new_square;  // beta2, 1 - beta2
  T rate, correct_root;        // lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t)
  T epsilon;
};

// Rows as bytes, for scans that only have to be right about what cannot matter (docs/topk.md).
// An item x' = x - centre becomes q = round(x' / scale), |q| <= 127, one scale a panel.
struct Int8Panel {
  const uint8_t* bytes;  // [48][padded d] q + 128; 128 beyond n and d
  float scale;
  float residual;      // at least |x' - scale q| of every row
  float centred_norm;  // at least |x'|
  float norm;          // at least |x|; infinite when a row is not finite
};
constexpr float kInt8Roundings = 1e-6f;  // of the few float operations on bounds, generously

// Pairs of a panel and a group of users whose score may exceed a bound.
struct Int8Hits {
  uint16_t position[kTile * kTile];  // item * 48 + lane; items ascend within a lane
  int32_t sum[kTile * kTile];        // of q's products
  float scale[kTile], error[kTile];  // per lane: the centred score is within error of scale * sum
};
// A group of users: q = round(u / scale).
struct Int8Users {
  const int8_t* bytes;    // [padded d / 4][48][4]
  const int32_t* offset;  // [48] 128 * the sum of the bytes: takes the items' 128 off again
  const float* scale;     // [48]
  const float* norm;      // [48] at least |scale q|
  const float* residual;  // [48] at least |u - scale q| plus the rounding of centred items
  const float* slack;  // [48] at least the rounding error of a float32 score, over the item's norm
};

template <class T>
struct Kernels {
  const char* name;

  // C[m, n] = (accumulate ? C : 0) + A B. A(i, k) = a[i * a_row + k * a_col]; B, C row-major.
  // n is a multiple of the vector length. One multiply-add a k, in order, an element: the result
  // does not depend on how the tile is cut.
  void (*gemm)(int64_t m, int64_t n, int64_t k, const T* a, int64_t a_row, int64_t a_col,
               const T* b, int64_t ldb, T* c, int64_t ldc, bool accumulate);

  // out[n, ld] = unit rows of x, `stride` apart (x may be out); inverse_norm[n] = 1 / |x| (0 for a
  // zero row, which stays zero), or nullptr. ld is a multiple of the vector length. Safe for any
  // finite norm; the result does not depend on n.
  void (*normalize)(int64_t n, int64_t ld, const T* x, int64_t stride, T* out, T* inverse_norm);

  // out[r] = <a_r, b_r> of n rows; ld is a multiple of the vector length. The order of the sum is
  // the vector's, unlike that of `dot`.
  void (*row_products)(int64_t n, int64_t ld, const T* a, int64_t a_stride, const T* b,
                       int64_t b_stride, T* out);

  // Chain rule through the normalisation: g = (g - <g, x> x) * inverse_norm, x the unit row.
  void (*normalize_backward)(int64_t n, int64_t ld, const T* x, const T* inverse_norm, T* g);

  // Base-2 scores of item rows [items <= 48][k] and users [k][48] -> exponentials in the tile, sums
  // added to the state. Rows are readable up to the next multiple of 8; rows beyond `items` come
  // out as zeros there.
  void (*exp_scores)(int64_t items, int64_t lanes, int64_t k, const T* rows, int64_t row_stride,
                     const T* users, const MaskedScores& masked, const ExpState<T>& state, T* tile,
                     int64_t stride);
  // The same from a tile of scores, in place.
  void (*exp_tile)(int64_t items, int64_t lanes, T* tile, int64_t stride, const ExpState<T>& state);
  // Adds exp2(score * inv_k - unit_shift) to unit_sum; the tile is left alone.
  void (*unit_tile)(int64_t items, int64_t lanes, const T* tile, int64_t stride,
                    const ExpState<T>& state);
  // lane_max[l] = max(lane_max[l], tile[:, l]); NaN is passed over.
  void (*max_tile)(int64_t items, int64_t lanes, const T* tile, int64_t stride, T* lane_max);

  // Positions item * 48 + lane of scores whose key is at least threshold[lane], ascending.
  // Returns how many.
  int64_t (*scan_tile)(int64_t items, int64_t lanes, const T* tile, const Key<T>* threshold,
                       uint16_t* hits);
  // Scores of item rows [items <= 48][k] and users [k][48], counted and forgotten, or left in
  // tile[items][48] unless that is nullptr.
  void (*count_scores)(int64_t items, int64_t lanes, int64_t k, const T* rows, int64_t row_stride,
                       const T* users, const RankThresholds<T>& thresholds, T* tile);

  // out[i] = dot(n, a[i], b[i]); several chains at once hide each other's latency
  void (*dots)(int64_t count, int64_t n, const T* const* a, const T* const* b, T* out);
  // the same with one b
  void (*dots_with)(int64_t count, int64_t n, const T* const* a, const T* b, T* out);
  T (*dot)(int64_t n, const T* a, const T* b);         // one multiply-add a k, in order
  void (*axpy)(int64_t n, T alpha, const T* x, T* y);  // y += alpha x

  // `rounds` times twelve independent vector multiply-adds and nothing else, to measure the machine
  // by; returns the floating-point operations done.
  double (*multiply_add_rate)(int64_t rounds);

  // Products of 16-bit pairs (kernels/bf16.inl); nullptr at levels without the instructions. As
  // gemm and exp_scores, with k, strides and ldb counting words of two.
  void (*gemm_bf16)(int64_t m, int64_t n, int64_t k, const int32_t* a, int64_t a_row, int64_t a_col,
                    const int32_t* b, int64_t ldb, float* c, int64_t ldc, bool accumulate);
  void (*exp_scores_int16)(int64_t items, int64_t lanes, int64_t k, const Int16Factors& rows,
                           const Int16Factors& users, const MaskedScores& masked,
                           const ExpState<float>& state, uint16_t* rounded, int64_t stride,
                           int32_t* paired);
  // The scores alone, tile[48][48].
  void (*scores_int16)(int64_t items, int64_t lanes, int64_t k, const Int16Factors& rows,
                       const Int16Factors& users, float* tile);
  // x[n, ld] = scale * out[n][ld]
  void (*int16_rows)(int64_t n, int64_t ld, const float* x, int64_t stride, int16_t* out,
                     float* scale);
  // x[n, ld] -> rounded[n][ld] (or nullptr) and paired[(n + 1) / 2][ld]
  void (*bf16_rows)(int64_t n, int64_t ld, const float* x, int64_t stride, uint16_t* rounded,
                    int64_t rounded_stride, int32_t* paired);

  // Products in tile registers (kernels/amx.inl); nullptr at levels without them.
  // Around the other four, on their thread: sets up the registers, and frees them.
  void (*start_tiles)();
  void (*stop_tiles)();
  // x[n, ld] times scale[row] (nullptr: 1) -> high[n][k] and low[n][k] words.
  void (*split_rows)(int64_t n, int64_t ld, const float* x, int64_t stride, const float* scale,
                     int64_t k, int32_t* high, int32_t* low);
  // As exp_scores_int16 and scores_int16. Rows are readable up to the next multiple of 16.
  void (*exp_scores_tiles)(int64_t items, int64_t lanes, int64_t k, const SplitFactors& rows,
                           const SplitFactors& users, const MaskedScores& masked,
                           const ExpState<float>& state, uint16_t* rounded, int64_t stride,
                           int32_t* paired);
  void (*scores_tiles)(int64_t items, int64_t k, const SplitFactors& rows,
                       const SplitFactors& users, float* tile);
  // C[m, n] += A B as gemm_bf16, a_col 1; m, n and k are multiples of 16.
  void (*gemm_tiles)(int64_t m, int64_t n, int64_t k, const int32_t* a, int64_t a_row,
                     const int32_t* b, int64_t ldb, float* c, int64_t ldc);

  // Scans of bytes; nullptr at levels without the instructions for it. d4 = padded d / 4.
  int int8_user_limit;  // largest |q| of a user: 63, or 127 with VNNI
  // Around the scans of a thread: sets up tile registers for rows of d4 words, and frees them.
  void (*start_int8)(int64_t d4);
  void (*stop_int8)();
  // n <= 48 rows of d elements (a multiple of the vector length) `stride` apart, less the centre ->
  // bytes[48][d] and meta = {scale, residual, centred norm, norm} of Int8Panel.
  void (*quantize_panel)(int64_t n, int64_t d, int64_t stride, const float* x, const float* centre,
                         uint8_t* bytes, float* meta);
  // The pairs whose scores may reach bound[lane], in the space of centred items: every pair whose
  // score does is among them. Returns how many there are. scale is NaN where nothing can be said.
  int64_t (*scan_int8)(int64_t items, int64_t lanes, int64_t d4, const Int8Panel& panel,
                       const Int8Users& users, const float* bound, Int8Hits& hits);
  // best[g][lane] = at most the largest centred score of items group g .. group (g + 1), group a
  // multiple of 8.
  void (*best_int8)(int64_t items, int64_t lanes, int64_t d4, int64_t group, const Int8Panel& panel,
                    const Int8Users& users, float* best);
  // Per lane, a value that at least rank[lane] of the column best[0 .. n)[lane] reach, close to the
  // rank-th largest; -inf where n < rank.
  void (*select_rank)(int64_t n, int64_t lanes, const float* best, const int32_t* rank, float* out);
  // The same of x[0, n), which -inf continues to a whole 16.
  float (*select_value)(int64_t n, int64_t rank, const float* x);
  // place[c]: how many of n keys, which zeros continue to a whole 8, are larger than keys[c].
  void (*order_keys)(int64_t n, const uint64_t* keys, int32_t* place);

  // Ids of columns [0, n) of one row of the draw (philox.h), n_items < 2^31.
  void (*draw_row)(uint64_t seed, int64_t row, int64_t n, uint32_t n_items, int32_t* ids);

  // out[0, d) = x with dropout, as a row of the table that is numbered `row`.
  void (*dropout_row)(const Dropout& dropout, int64_t row, int64_t d, const T* x, T* out);

  // score: values[p] = <user row, item row> * scale. exponentiate: values[p] = exp2(values[p] -
  // shift), sums to the state. accumulate: o[row] += sum_p values[p] * item row.
  void (*sampled_users)(const BucketSamples<T>& samples, const T* users, const SampledSteps& steps,
                        const SampledState<T>& state, T* values, T* o);
  // grad[item] += values[p] * scale[row] * user row; grad is the bucket's first gradient row.
  void (*sampled_scatter)(const BucketSamples<T>& samples, const T* users, const T* scale,
                          const T* values, T* grad);

  void (*gather_rows)(const GatheredRows<T>& gathered);

  void (*adam_missed)(int64_t d, const AdamMissed<T>& missed, const AdamRow<T>& row);
  void (*adam_step)(int64_t d, const AdamStep<T>& step, const T* gradient, const AdamRow<T>& row);
};

// The best table this machine can run, or the one that ADAPTAU_ISA names (baseline, avx2, avx512,
// avx512vnni, avx512bf16, avx512amx).
// Throws std::runtime_error when the variable names a level that is unknown or not available.
template <class T>
const Kernels<T>& active_kernels();

}  // namespace adaptau
