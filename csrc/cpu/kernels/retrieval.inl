// Selection on one tile of scores, by the integer keys of order.h, and counting of scores while
// they are in registers.

namespace adaptau {
namespace ADAPTAU_ISA {
namespace {

template <class T>
int64_t scan_tile(int64_t items, int64_t lanes, const T* tile, const Key<T>* threshold,
                  uint16_t* hits) {
  int64_t n = 0;
  for (int64_t j = 0; j < items; ++j)
    for_each_vector<T>(lanes, [&](int64_t l) {
      const IVec<T> key = keys<T>(load<Vec<T>>(tile + j * kTile + l));
      const IVec<T> bound = load<IVec<T>>(threshold + l);
      for (uint32_t bits = mask_bits<T>(key >= bound); bits != 0; bits &= bits - 1)
        hits[n++] = static_cast<uint16_t>(j * kTile + l + __builtin_ctz(bits));
    });
  return n;
}

// Counts of one register tile of scores; where `tile` is given they are stored there too.
template <class T, int MR, int NV>
ADAPTAU_INLINE void count_score_tile(int64_t k, const T* rows, int64_t row_stride, const T* users,
                                     const RankThresholds<T>& thresholds, int64_t l, T* tile) {
  constexpr int W = simd<T>::lanes;
  Vec<T> score[MR][NV];
  multiply_tile<Plain<T>, MR, NV>(k, rows, row_stride, 1, users + l, kTile, score);
  const T* bounds = thresholds.bound + l;
  Key<T>* counts = thresholds.count + l;
  for (int64_t i = thresholds.depth; i > 0; --i, bounds += kTile, counts += kTile) {
    ADAPTAU_UNROLL
    for (int v = 0; v < NV; ++v) {
      const Vec<T> bound = load<Vec<T>>(bounds + v * W);
      IVec<T> n = load<IVec<T>>(counts + v * W);
      ADAPTAU_UNROLL
      for (int r = 0; r < MR; ++r) n = count_reached<T>(n, score[r][v], bound);
      store(counts + v * W, n);
    }
  }
  if (tile == nullptr) return;
  ADAPTAU_UNROLL
  for (int r = 0; r < MR; ++r) {
    ADAPTAU_UNROLL
    for (int v = 0; v < NV; ++v) store(tile + r * kTile + l + v * W, score[r][v]);
  }
}

template <class T, int MR, int NV>
__attribute__((noinline)) void count_score_strip(int64_t items, int64_t k, const T* rows,
                                                 int64_t row_stride, const T* users,
                                                 const RankThresholds<T>& thresholds, int64_t l,
                                                 T* tile) {
  auto row_of_tile = [tile](int64_t j) { return tile == nullptr ? nullptr : tile + j * kTile; };
  int64_t j = 0;
  for (; j + MR <= items; j += MR)
    count_score_tile<T, MR, NV>(k, rows + j * row_stride, row_stride, users, thresholds, l,
                                row_of_tile(j));
  for (; j < items; ++j)
    count_score_tile<T, 1, NV>(k, rows + j * row_stride, row_stride, users, thresholds, l,
                               row_of_tile(j));
}

template <class T>
void count_scores(int64_t items, int64_t lanes, int64_t k, const T* rows, int64_t row_stride,
                  const T* users, const RankThresholds<T>& thresholds, T* tile) {
  constexpr int W = simd<T>::lanes, MR = kScoreRows, NV = kScoreVectors;
  int64_t l = 0;
  for (; l + NV * W <= lanes; l += NV * W)
    count_score_strip<T, MR, NV>(items, k, rows, row_stride, users, thresholds, l, tile);
  for (; l < lanes; l += W)
    count_score_strip<T, MR, 1>(items, k, rows, row_stride, users, thresholds, l, tile);
}

}  // namespace
}  // namespace ADAPTAU_ISA
}  // namespace adaptau
