#include "rows.h"

#include <algorithm>

namespace adaptau {
namespace {

template <class T, class S, class Convert>
void read_strided(const Matrix& m, int64_t index, T* out, Convert convert) {
  const S* row = static_cast<const S*>(m.data) + index * m.row_stride;
  if (m.col_stride == 1) {
    for (int64_t k = 0; k < m.cols; ++k) out[k] = convert(row[k]);
  } else {
    for (int64_t k = 0; k < m.cols; ++k) out[k] = convert(row[k * m.col_stride]);
  }
}

}  // namespace

template <class T>
void read_row(const Matrix& m, int64_t index, T* out, int64_t ld) {
  switch (m.dtype) {
    case DType::f32:
      read_strided<T, float>(m, index, out, [](float x) { return static_cast<T>(x); });
      break;
    case DType::f64:
      read_strided<T, double>(m, index, out, [](double x) { return static_cast<T>(x); });
      break;
    case DType::bf16:
      read_strided<T, uint16_t>(m, index, out, [](uint16_t x) { return T(bf16_to_f32(x)); });
      break;
    case DType::f16:
      read_strided<T, uint16_t>(m, index, out, [](uint16_t x) { return T(f16_to_f32(x)); });
      break;
  }
  for (int64_t k = m.cols; k < ld; ++k) out[k] = 0;
}

template <class T>
void read_rows(const Matrix& m, int64_t first, int64_t n, bool normalise, const Kernels<T>& kernels,
               T* out, int64_t ld, T* inverse_norm) {
  if (normalise && m.cols == ld && readable_in_place<T>(m)) {
    kernels.normalize(n, ld, row_in_place<T>(m, first), m.row_stride, out, inverse_norm);
    return;
  }
  for (int64_t r = 0; r < n; ++r) read_row(m, first + r, out + r * ld, ld);
  if (normalise) {
    kernels.normalize(n, ld, out, ld, out, inverse_norm);
  } else if (inverse_norm != nullptr) {
    std::fill_n(inverse_norm, n, T(1));
  }
}

#define ADAPTAU_INSTANTIATE(T)                                                             \
  template void read_row<T>(const Matrix&, int64_t, T*, int64_t);                          \
  template void read_rows<T>(const Matrix&, int64_t, int64_t, bool, const Kernels<T>&, T*, \
                             int64_t, T*);
ADAPTAU_INSTANTIATE(float)
ADAPTAU_INSTANTIATE(double)

}  // namespace adaptau
