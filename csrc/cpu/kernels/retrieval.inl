// Selection and counting on one tile of scores, by the integer keys of order.h.

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

template <class T>
void count_tile(int64_t items, int64_t lanes, const T* tile, const Key<T>* threshold,
                Key<T>* count) {
  for_each_vector<T>(lanes, [&](int64_t l) {
    const IVec<T> bound = load<IVec<T>>(threshold + l);
    IVec<T> n = load<IVec<T>>(count + l);
    for (int64_t j = 0; j < items; ++j)
      n -= keys<T>(load<Vec<T>>(tile + j * kTile + l)) >= bound;  // true is -1
    store(count + l, n);
  });
}

}  // namespace
}  // namespace ADAPTAU_ISA
}  // namespace adaptau
