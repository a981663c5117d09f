// Passes over tiles of base-2 scores, items as rows and users as lanes.
//
// exp_scores is the first pass of the loss in one go: a register tile of scores (gemm.inl) becomes
// exponentials before it is written for the first time. The others work on a tile in memory, for
// losses that need its maximum, or its scores twice.

namespace adaptau {
namespace ADAPTAU_ISA {
namespace {

// f(first lane) for every vector of lanes.
template <class T, class F>
ADAPTAU_INLINE void for_each_vector(int64_t lanes, F&& f) {
  for (int64_t l = 0; l < lanes; l += simd<T>::lanes) f(l);
}

template <class T>
ADAPTAU_INLINE void add_to_sums(Vec<T> part, double* sum) {
  for (int l = 0; l < simd<T>::lanes; ++l) sum[l] += static_cast<double>(part[l]);
}

template <class T>
void exp_tile(int64_t items, int64_t lanes, T* tile, int64_t stride, const ExpState<T>& state) {
  using V = Vec<T>;
  for_each_vector<T>(lanes, [&](int64_t l) {
    const V shift = load<V>(state.shift + l);
    V sum{};
    for (int64_t j = 0; j < items; ++j) {
      const V e = exp2<T>(load<V>(tile + j * stride + l) - shift);
      store(tile + j * stride + l, e);
      sum += e;
    }
    add_to_sums<T>(sum, state.sum + l);
  });
}

template <class T>
void unit_tile(int64_t items, int64_t lanes, const T* tile, int64_t stride,
               const ExpState<T>& state) {
  using V = Vec<T>;
  for_each_vector<T>(lanes, [&](int64_t l) {
    const V shift = load<V>(state.unit_shift + l), inv_k = load<V>(state.inv_k + l);
    V sum{};
    for (int64_t j = 0; j < items; ++j)
      sum += exp2<T>(load<V>(tile + j * stride + l) * inv_k - shift);
    add_to_sums<T>(sum, state.unit_sum + l);
  });
}

template <class T>
void max_tile(int64_t items, int64_t lanes, const T* tile, int64_t stride, T* lane_max) {
  using V = Vec<T>;
  for_each_vector<T>(lanes, [&](int64_t l) {
    V top = load<V>(lane_max + l);
    for (int64_t j = 0; j < items; ++j) {
      const V s = load<V>(tile + j * stride + l);
      top = s > top ? s : top;
    }
    store(lane_max + l, top);
  });
}

// Rows of exponentials as the following products read them.
template <class T>
struct PlainTile {
  T* rows;
  int64_t stride;
  // What exp2 is taken of: from a sum of products, which needs no more than the shift here.
  ADAPTAU_INLINE Vec<T> exponent(int64_t, int64_t, Vec<T> sum, Vec<T> shift) const {
    return sum - shift;
  }
  template <int MR, int NV>
  ADAPTAU_INLINE void store_rows(int64_t j, int64_t l, const Vec<T> (&e)[MR][NV]) const {
    ADAPTAU_UNROLL
    for (int r = 0; r < MR; ++r) {
      ADAPTAU_UNROLL
      for (int v = 0; v < NV; ++v) {
        T* out = rows + (j + r) * stride + l + v * simd<T>::lanes;
        store(out, e[r][v]);
        __builtin_prefetch(out + kTile * stride, 1, 2);  // where the next panel's go
      }
    }
  }
};

#if ADAPTAU_VECTOR_BYTES == 64
constexpr int kScoreRows = 8, kScoreVectors = 3;
#else
constexpr int kScoreRows = 6, kScoreVectors = 2;
#endif

// Products of item rows and users packed [k][48], in the compute type.
template <class P, int MR, int NV>
ADAPTAU_INLINE void multiply_to_scores(int64_t k, const Word<P>* rows, int64_t row_stride,
                                       const Word<P>* users, Vec<Sum<P>> (&scores)[MR][NV]) {
  if constexpr (__is_same(typename P::SumVec, Vec<Sum<P>>)) {
    multiply_tile<P, MR, NV>(k, rows, row_stride, 1, users, kTile, scores);
  } else {
    typename P::SumVec sums[MR][NV];
    multiply_tile<P, MR, NV>(k, rows, row_stride, 1, users, kTile, sums);
    ADAPTAU_UNROLL
    for (int r = 0; r < MR; ++r) {
      ADAPTAU_UNROLL
      for (int v = 0; v < NV; ++v) scores[r][v] = __builtin_convertvector(sums[r][v], Vec<Sum<P>>);
    }
  }
}

template <class P, int MR, int NV, class Tile>
ADAPTAU_INLINE void exp_score_tile(int64_t j, int64_t l, int64_t items, int64_t k,
                                   const Word<P>* rows, int64_t row_stride, const Word<P>* users,
                                   const MaskedScores& masked, const Sum<P>* shift, Sum<P>* part,
                                   const Tile& tile) {
  using T = Sum<P>;
  using V = Vec<T>;
  constexpr int W = simd<T>::lanes;
  constexpr T never = -static_cast<T>(__builtin_inf());
  V e[MR][NV];
  multiply_to_scores<P, MR, NV>(k, rows + j * row_stride, row_stride, users + l, e);
  const uint64_t beyond = items - j < MR ? ~uint64_t{0} << (items - j) : 0;
  if ((((masked.rows >> j) | beyond) & ((uint64_t{1} << MR) - 1)) != 0) {
    T scores[MR * NV * W];
    ADAPTAU_UNROLL
    for (int r = 0; r < MR; ++r) {
      ADAPTAU_UNROLL
      for (int v = 0; v < NV; ++v)
        store(scores + (r * NV + v) * W, j + r < items ? e[r][v] : broadcast<V>(never));
    }
    for (int64_t m = 0; m < masked.count; ++m) {
      const int64_t r = masked.at[m] / kTile - j, lane = masked.at[m] % kTile - l;
      if (r >= 0 && r < MR && lane >= 0 && lane < NV * W) scores[r * NV * W + lane] = never;
    }
    ADAPTAU_UNROLL
    for (int r = 0; r < MR; ++r) {
      ADAPTAU_UNROLL
      for (int v = 0; v < NV; ++v) e[r][v] = load<V>(scores + (r * NV + v) * W);
    }
  }
  ADAPTAU_UNROLL
  for (int v = 0; v < NV; ++v) {
    const V s = load<V>(shift + l + v * W);
    V sum = load<V>(part + l + v * W);
    ADAPTAU_UNROLL
    for (int r = 0; r < MR; ++r) {
      e[r][v] = exp2<T>(tile.exponent(j + r, l + v * W, e[r][v], s));
      sum += e[r][v];
    }
    store(part + l + v * W, sum);
  }
  tile.store_rows(j, l, e);
}

template <class P, int MR, int NV, class Tile, class... A>
__attribute__((noinline)) void exp_score_strip(int64_t l, int64_t items, const Tile& tile,
                                               A... arguments) {
  for (int64_t j = 0; j < items; j += MR)
    exp_score_tile<P, MR, NV, Tile>(j, l, items, arguments..., tile);
}

template <class P, class Tile>
ADAPTAU_INLINE void exp_scores_to(int64_t items, int64_t lanes, int64_t k, const Word<P>* rows,
                                  int64_t row_stride, const Word<P>* users,
                                  const MaskedScores& masked, const ExpState<Sum<P>>& state,
                                  const Tile& tile) {
  using T = Sum<P>;
  constexpr int W = simd<T>::lanes, MR = kScoreRows, NV = kScoreVectors;
  alignas(64) T part[kTile] = {};
  int64_t l = 0;
  for (; l + NV * W <= lanes; l += NV * W)
    exp_score_strip<P, MR, NV, Tile>(l, items, tile, k, rows, row_stride, users, masked,
                                     state.shift, part);
  for (; l < lanes; l += W)
    exp_score_strip<P, MR, 1, Tile>(l, items, tile, k, rows, row_stride, users, masked, state.shift,
                                    part);
  for_each_vector<T>(lanes,
                     [&](int64_t v) { add_to_sums<T>(load<Vec<T>>(part + v), state.sum + v); });
}

template <class T>
void exp_scores(int64_t items, int64_t lanes, int64_t k, const T* rows, int64_t row_stride,
                const T* users, const MaskedScores& masked, const ExpState<T>& state, T* tile,
                int64_t stride) {
  exp_scores_to<Plain<T>>(items, lanes, k, rows, row_stride, users, masked, state,
                          PlainTile<T>{tile, stride});
}

}  // namespace
}  // namespace ADAPTAU_ISA
}  // namespace adaptau
