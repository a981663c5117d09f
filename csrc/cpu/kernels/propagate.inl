// Sums of gathered rows: what a graph's adjacency matrix does to a table of embeddings.
//
// Memory sets the pace, not arithmetic: rows are asked for kAhead edges before they are added, past
// the end of a row's list into the next one, so that short lists do not stall.

namespace adaptau {
namespace ADAPTAU_ISA {
namespace {

constexpr int64_t kAhead = 16;

// NV vectors of one row of the result, from column k.
template <class T, int NV, bool scaled>
ADAPTAU_INLINE void gather_columns(const GatheredRows<T>& g, int64_t r, int64_t k) {
  using V = Vec<T>;
  constexpr int W = simd<T>::lanes, line = 64 / static_cast<int>(sizeof(T));
  V sum[NV] = {};
  for (int64_t e = g.starts[r]; e < g.starts[r + 1]; ++e) {
    const int64_t later = e + kAhead < g.n_indices ? e + kAhead : g.n_indices - 1;
    const T* ahead = g.table + g.indices[later] * g.table_stride + k;
    const T* row = g.table + g.indices[e] * g.table_stride + k;
    ADAPTAU_UNROLL
    for (int c = 0; c < NV * W; c += line) __builtin_prefetch(ahead + c);
    ADAPTAU_UNROLL
    for (int i = 0; i < NV; ++i) {
      if constexpr (scaled) {
        sum[i] += load<V>(row + i * W) * g.table_scale[g.indices[e]];
      } else {
        sum[i] += load<V>(row + i * W);
      }
    }
  }
  constexpr int64_t drawn = kDropoutColumns * kWordLanes;
  uint16_t bits[NV * W + drawn];
  const int64_t first_block = k / kDropoutColumns, skipped = k % kDropoutColumns;
  if (g.dropout.steps > 0)
    for (int64_t c = 0; c < skipped + NV * W; c += drawn)
      dropout_columns(g.dropout.seed, g.table_row[r],
                      static_cast<uint32_t>(first_block + c / kDropoutColumns), bits + c);
  ADAPTAU_UNROLL
  for (int i = 0; i < NV; ++i) {
    V s = sum[i] * g.scale[r];
    if (g.own != nullptr) s += load<V>(g.own[r] + k + i * W) * g.own_scale[r];
    if (g.dropout.steps > 0) s = drop<T>(s, bits + skipped + i * W, g.dropout.steps);
    if (g.stream) {
      stream(g.out[r] + k + i * W, s);
    } else {
      store(g.out[r] + k + i * W, s);
    }
  }
}

template <class T, bool scaled>
ADAPTAU_INLINE void gather_all(const GatheredRows<T>& g) {
  constexpr int64_t W = simd<T>::lanes;
  for (int64_t r = 0; r < g.rows; ++r) {
    int64_t k = 0;
    for (; k + 8 * W <= g.d; k += 8 * W) gather_columns<T, 8, scaled>(g, r, k);
    if (k + 4 * W <= g.d) gather_columns<T, 4, scaled>(g, r, k), k += 4 * W;
    if (k + 2 * W <= g.d) gather_columns<T, 2, scaled>(g, r, k), k += 2 * W;
    if (k + W <= g.d) gather_columns<T, 1, scaled>(g, r, k);
  }
}

template <class T>
void gather_rows(const GatheredRows<T>& g) {
  if (g.table_scale != nullptr) {
    gather_all<T, true>(g);
  } else {
    gather_all<T, false>(g);
  }
  if (g.stream) fence_streams();
}

}  // namespace
}  // namespace ADAPTAU_ISA
}  // namespace adaptau
