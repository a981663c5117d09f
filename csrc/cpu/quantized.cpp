#include "quantized.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace adaptau {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr double kUlp = 5.9604644775390625e-8;  // 2^-24, half a unit in the last place of 1

// A float that is not below x.
float round_up(double x) {
  const float f = static_cast<float>(x);
  return static_cast<double>(f) >= x ? f : std::nextafter(f, kInfinity);
}

// x[d] -> q = round(x / scale), written by put(k, q). Returns |scale q|^2 and |x - scale q|^2.
struct Squares {
  double rounded, residual;
};
template <class Put>
Squares quantize(int64_t d, const float* x, float scale, Put&& put) {
  const float inverse = 1 / scale;
  Squares squares{0, 0};
  for (int64_t k = 0; k < d; ++k) {
    const float q = std::nearbyint(x[k] * inverse);
    put(k, static_cast<int>(q));
    const double back = static_cast<double>(scale) * q, off = x[k] - back;
    squares.rounded += back * back;
    squares.residual += off * off;
  }
  return squares;
}

// max |x[k]| / limit, or 1 where that is no usable scale.
float scale_of(int64_t n, const float* x, int limit) {
  float largest = 0;
  for (int64_t k = 0; k < n; ++k) largest = std::max(largest, std::abs(x[k]));
  const float scale = largest / static_cast<float>(limit);
  return scale > std::numeric_limits<float>::min() * 4 ? scale : 1.f;
}

bool all_finite(int64_t n, const float* x) {
  bool finite = true;
  for (int64_t k = 0; k < n; ++k) finite &= std::isfinite(x[k]);
  return finite;
}

}  // namespace

std::vector<float> item_centre(const Matrix& items, Normalize normalize,
                               const Kernels<float>& kernels) {
  constexpr int64_t most = 2048;
  const int64_t n = std::min(items.rows, most), ld = byte_row(items.cols);
  Buffer<float> row(ld);
  std::vector<double> sum(items.cols, 0.0);
  int64_t used = 0;
  for (int64_t s = 0; s < n; ++s) {
    read_rows(items, items.rows * s / n, 1, normalize.item, kernels, row.get(), ld,
              static_cast<float*>(nullptr));
    if (!all_finite(items.cols, row.get())) continue;
    ++used;
    for (int64_t k = 0; k < items.cols; ++k) sum[k] += row[k];
  }
  std::vector<float> centre(ld, 0.f);  // padded like the rows
  for (int64_t k = 0; k < items.cols && used > 0; ++k) {
    centre[k] = static_cast<float>(sum[k] / static_cast<double>(used));
    if (!std::isfinite(centre[k])) centre[k] = 0;
  }
  return centre;
}

void pack_panel(const Matrix& items, Normalize normalize, const float* centre, int64_t panel,
                const Kernels<float>& kernels, float* rows, uint8_t* bytes, float* meta) {
  const int64_t first = panel * kTile, n = std::min<int64_t>(kTile, items.rows - first);
  const int64_t ld = byte_row(items.cols);
  const float* x = rows;
  int64_t stride = ld;
  if (readable_in_place<float>(items) && !normalize.item && items.cols == ld) {
    x = row_in_place<float>(items, first);
    stride = items.row_stride;
  } else {
    read_rows(items, first, n, normalize.item, kernels, rows, ld, static_cast<float*>(nullptr));
  }
  kernels.quantize_panel(n, ld, stride, x, centre, bytes, meta);
}

void pack_items(const Matrix& items, Normalize normalize, const float* centre,
                const Parallel& parallel, uint8_t* bytes, float* meta) {
  const Kernels<float>& kernels = active_kernels<float>();
  const int64_t panels = (items.rows + kTile - 1) / kTile, ld = byte_row(items.cols);
  constexpr int64_t a_task = 64;
  for_each_task(parallel, (panels + a_task - 1) / a_task, [&](int64_t task, int) {
    Buffer<float> rows(kTile * ld);
    for (int64_t p = task * a_task; p < std::min((task + 1) * a_task, panels); ++p)
      pack_panel(items, normalize, centre, p, kernels, rows.get(), bytes + p * kTile * ld,
                 meta + p * 4);
  });
}

QuantizedUsers::QuantizedUsers(int64_t n_users, int64_t d, int64_t ld, const float* rows,
                               const float* centre, int limit, const Parallel& parallel)
    : d_(d) {
  const int64_t lanes = (n_users + kTile - 1) / kTile * kTile, stride = byte_row(d);
  bytes_ = Buffer<int8_t>(lanes * stride, int8_t{0});
  offset_ = Buffer<int32_t>(lanes, 0);
  scale_ = Buffer<float>(lanes, 1.f);
  norm_ = Buffer<float>(lanes, 0.f);
  residual_ = Buffer<float>(lanes, 0.f);
  slack_ = Buffer<float>(lanes, 0.f);
  lift_ = Buffer<double>(lanes, 0.0);
  constexpr double up = 1 + 1e-12;
  auto quantize_user = [&](int64_t b) {
    const float* u = rows + b * ld;
    int8_t* group = bytes_.get() + b / kTile * kTile * stride;
    if (!all_finite(d, u)) {
      residual_[b] = norm_[b] = slack_[b] = kInfinity;
      return;
    }
    scale_[b] = scale_of(d, u, limit);
    const Squares squares = quantize(d, u, scale_[b], [&](int64_t k, int q) {
      group[(k / 4 * kTile + b % kTile) * 4 + k % 4] = static_cast<int8_t>(q);
      offset_[b] += 128 * q;
    });
    double square = 0, lift = 0;
    for (int64_t k = 0; k < d; ++k) {
      square += static_cast<double>(u[k]) * u[k];
      lift += static_cast<double>(u[k]) * centre[k];
    }
    const double length = std::sqrt(square) * up;
    norm_[b] = round_up(std::sqrt(squares.rounded) * up);
    // x' is rounded once, by half an ulp of each entry
    residual_[b] = round_up((std::sqrt(squares.residual) + 2 * kUlp * length) * up);
    // d products and additions of a score, and the double sum of the lift
    slack_[b] = round_up((static_cast<double>(d) + 16) * 1.01 * kUlp * length);
    lift_[b] = lift;
  };
  for_each_task(parallel, lanes / kTile, [&](int64_t g, int) {
    for (int64_t b = g * kTile; b < std::min((g + 1) * kTile, n_users); ++b) quantize_user(b);
  });
}

}  // namespace adaptau
