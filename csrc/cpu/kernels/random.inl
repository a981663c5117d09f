// The counter generator of philox.h, a vector of blocks at a time: negatives and dropout.

namespace adaptau {
namespace ADAPTAU_ISA {
namespace {

// Words of the Philox blocks [first, first + kWordLanes) of one row, attempt 0: word[w], lane =
// block.
ADAPTAU_INLINE void philox_blocks(uint64_t seed, int64_t row, uint32_t first, Words (&word)[4]) {
  Words lane;
  ADAPTAU_UNROLL
  for (int l = 0; l < kWordLanes; ++l) lane[l] = l;
  Words c0 = lane + static_cast<uint64_t>(first),
        c1 = broadcast<Words>(static_cast<uint64_t>(static_cast<uint32_t>(row))),
        c2 = broadcast<Words>(static_cast<uint64_t>(row) >> 32), c3{};
  const Words m0 = broadcast<Words>(static_cast<uint64_t>(kPhiloxMultiplier0)),
              m1 = broadcast<Words>(static_cast<uint64_t>(kPhiloxMultiplier1));
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  ADAPTAU_UNROLL
  for (int round = 0; round < kPhiloxRounds; ++round) {
    // c1 and c3 keep rubbish in their high halves; only low halves are multiplied or returned
    const Words p0 = wide_multiply(c0, m0), p1 = wide_multiply(c2, m1);
    c0 = (p1 >> 32) ^ c1 ^ static_cast<uint64_t>(key0);
    c2 = (p0 >> 32) ^ c3 ^ static_cast<uint64_t>(key1);
    c1 = p1;
    c3 = p0;
    key0 += kPhiloxWeyl0;
    key1 += kPhiloxWeyl1;
  }
  word[0] = c0, word[1] = c1, word[2] = c2, word[3] = c3;
}

// a's and b's lanes in turns, the first or the second half of them.
template <int first, int... I>
ADAPTAU_INLINE Words interleave(Words a, Words b, Indices<I...>) {
  return __builtin_shufflevector(a, b, (first + I / 2 + I % 2 * kWordLanes)...);
}

void draw_row(uint64_t seed, int64_t row, int64_t n, uint32_t n_items, int32_t* ids) {
  constexpr int columns = 4 * kWordLanes;
  constexpr uint64_t low = 0xffffffffu;
  constexpr auto lanes = MakeIndices<kWordLanes>::type();
  const Words items = broadcast<Words>(static_cast<uint64_t>(n_items)),
              threshold = broadcast<Words>(static_cast<uint64_t>(rejection_threshold(n_items)));
  for (int64_t first = 0; first < n; first += columns) {
    Words word[4], product[4], rejected{};
    philox_blocks(seed, row, static_cast<uint32_t>(first / 4), word);
    ADAPTAU_UNROLL
    for (int w = 0; w < 4; ++w) {
      product[w] = wide_multiply(word[w], items);
      rejected |= (Words)((product[w] & low) < threshold);
    }
    // The ids are the high halves: columns 4 l, 4 l + 1 of block l, then 4 l + 2, 4 l + 3.
    const Words front = (product[0] >> 32) | (product[1] & ~low),
                back = (product[2] >> 32) | (product[3] & ~low);
    const int64_t count = n - first < columns ? n - first : columns;
    int32_t last[columns];
    int32_t* drawn = count == columns ? ids + first : last;
    store(drawn, interleave<0>(front, back, lanes));
    store(drawn + columns / 2, interleave<kWordLanes / 2>(front, back, lanes));
    if (mask_bits<double>((IVec<double>)rejected))
      for (int64_t i = 0; i < count; ++i)
        drawn[i] = static_cast<int32_t>(draw(seed, row, static_cast<uint32_t>(first + i), n_items));
    if (count < columns) memcpy(ids + first, last, sizeof(int32_t) * count);
  }
}

// The sixteen bits of dropout of 8 * kWordLanes columns of a row, from column 8 * block on.
ADAPTAU_INLINE void dropout_columns(uint64_t seed, int64_t row, uint32_t block, uint16_t* bits) {
  constexpr uint64_t low = 0xffffffffu;
  constexpr auto lanes = MakeIndices<kWordLanes>::type();
  Words word[4];
  philox_blocks(seed, row, block, word);
  const Words front = (word[0] & low) | (word[1] << 32), back = (word[2] & low) | (word[3] << 32);
  store(bits, interleave<0>(front, back, lanes));
  store(bits + 4 * kWordLanes, interleave<kWordLanes / 2>(front, back, lanes));
}

// x, zero where its bits are below `steps`.
template <class T>
ADAPTAU_INLINE Vec<T> drop(Vec<T> x, const uint16_t* bits, int64_t steps) {
  const IVec<T> drawn = __builtin_convertvector(load<typename simd<T>::halves>(bits), IVec<T>);
  return drawn < static_cast<typename simd<T>::Int>(steps) ? Vec<T>{} : x;
}

template <class T>
void dropout_row(const Dropout& dropout, int64_t row, int64_t d, const T* x, T* out) {
  constexpr int W = simd<T>::lanes, columns = kDropoutColumns * kWordLanes;
  const T factor = static_cast<T>(dropout.factor());
  for (int64_t first = 0; first < d; first += columns) {
    uint16_t bits[columns];
    dropout_columns(dropout.seed, row, static_cast<uint32_t>(first / kDropoutColumns), bits);
    for (int64_t k = first; k < d && k < first + columns; k += W) {
      const int64_t n = d - k;
      const Vec<T> v = n < W ? load_first(n, x + k) : load<Vec<T>>(x + k);
      const Vec<T> left = drop<T>(v * factor, bits + (k - first), dropout.steps);
      if (n < W) {
        memcpy(out + k, &left, sizeof(T) * n);
      } else {
        store(out + k, left);
      }
    }
  }
}

}  // namespace
}  // namespace ADAPTAU_ISA
}  // namespace adaptau
