// Each micro-kernel of one instruction set against plain loops in double.
#include <limits>
#include <stdexcept>

#include "check.h"
#include "core/philox.h"
#include "cpu/kernels.h"
#include "cpu/rows.h"

using namespace adaptau;

namespace {

template <class T>
constexpr double roundoff() {
  return std::numeric_limits<T>::epsilon() / 2;
}

template <class T>
void gemm_matches_loops(const Kernels<T>& kernels) {
  const int64_t ns[] = {16, 32, 48, 64, 80, 112};
  for (int64_t m : {1, 5, 6, 8, 13, 48})
    for (int64_t n : ns)
      for (int64_t k : {0, 1, 7, 64}) {
        const auto a = random_values<T>(m * k + 1, 1), b = random_values<T>(k * n + 1, 2);
        const auto start = random_values<T>(m * n, 3);
        for (bool transposed : {false, true})
          for (bool accumulate : {false, true}) {
            auto c = start;
            const int64_t a_row = transposed ? 1 : k, a_col = transposed ? m : 1;
            kernels.gemm(m, n, k, a.data(), a_row, a_col, b.data(), n, c.data(), n, accumulate);
            for (int64_t r = 0; r < m; ++r)
              for (int64_t j = 0; j < n; ++j) {
                double expected = accumulate ? start[r * n + j] : 0, size = std::abs(expected);
                for (int64_t i = 0; i < k; ++i) {
                  const double term = static_cast<double>(a[r * a_row + i * a_col]) * b[i * n + j];
                  expected += term, size += std::abs(term);
                }
                CHECK_NEAR(c[r * n + j], expected, 2 * (k + 1) * roundoff<T>() * size);
              }
          }
      }
}

// The contract that ties retrieval together: gemm and dot round alike.
template <class T>
void dot_is_gemm(const Kernels<T>& kernels) {
  for (int64_t d : {1, 17, 64, 127, 300}) {
    const auto a = random_values<T>(48 * d, 4), u = random_values<T>(d, 5);
    std::vector<T> packed(d * 48, T(0)), c(48 * 48);
    for (int64_t k = 0; k < d; ++k) packed[k * 48 + 3] = u[k];
    kernels.gemm(48, 48, d, a.data(), d, 1, packed.data(), 48, c.data(), 48, false);
    for (int64_t j = 0; j < 48; ++j)
      CHECK(c[j * 48 + 3] == kernels.dot(d, a.data() + j * d, u.data()));
  }
}

template <class T>
void exponentials(const Kernels<T>& kernels) {
  const T inf = std::numeric_limits<T>::infinity();
  const double floor = sizeof(T) == 4 ? -126 : -1022;
  Buffer<T> tile(48 * 48), shift(48, T(0)), inv_k(48, T(0.25)), unit_shift(48, T(0));
  Buffer<double> sum(48, 0.0), unit_sum(48, 0.0);
  std::vector<T> x(48 * 48);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<T>(floor * (1 - (i / 1151.5)));
  x[7] = -inf, x[8] = T(floor * 2), x[9] = 0, x[10] = 1;
  std::copy(x.begin(), x.end(), tile.get());
  const ExpState<T> state{shift.get(), sum.get(), inv_k.get(), unit_shift.get(), unit_sum.get()};
  kernels.unit_tile(48, 48, tile.get(), state);
  kernels.exp_tile(48, 48, tile.get(), state);
  CHECK(tile[7] == 0);
  CHECK(tile[8] == 0);
  CHECK(tile[9] == 1);
  CHECK(tile[10] == 2);
  double column = 0, unit_column = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] < floor || x[i] > 120) continue;  // below: flushed to zero; above: never asked for
    const double expected = std::exp2(static_cast<double>(x[i]));
    CHECK_NEAR(tile[i], expected, 4 * roundoff<T>() * expected);
  }
  for (int j = 0; j < 48; ++j) {
    column += static_cast<double>(tile[j * 48 + 11]);
    unit_column += std::exp2(static_cast<double>(x[j * 48 + 11]) * 0.25);
  }
  CHECK_NEAR(sum[11], column, 48 * roundoff<T>() * column);
  CHECK_NEAR(unit_sum[11], unit_column, 52 * roundoff<T>() * unit_column);

  Buffer<T> top(48, -inf);
  std::copy(x.begin(), x.end(), tile.get());
  tile[48 + 5] = std::numeric_limits<T>::quiet_NaN();
  kernels.max_tile(48, 48, tile.get(), top.get());
  CHECK(top[5] == x[47 * 48 + 5]);
}

template <class T>
void normalisation(const Kernels<T>& kernels) {
  const double tiny = sizeof(T) == 4 ? 1e-40 : 1e-310, small = sizeof(T) == 4 ? 1e-30 : 1e-200;
  for (double scale : {1.0, small, 1 / small, tiny, sizeof(T) == 4 ? 3e38 : 1e308})
    for (int64_t d : {1, 3, 17, 64}) {
      const int64_t ld = padded<T>(d);
      Buffer<T> x(ld, T(0)), inverse(1);
      const auto values = random_values<T>(d, 6);
      double square = 0;
      for (int64_t k = 0; k < d; ++k) {
        x[k] = static_cast<T>(values[k] / 4 * scale);  // rounded where subnormal
        square += std::pow(static_cast<double>(x[k]) / scale, 2);
      }
      std::vector<double> expected(d);
      for (int64_t k = 0; k < d; ++k)
        expected[k] = static_cast<double>(x[k]) / scale / std::sqrt(square);
      kernels.normalize(1, ld, x.get(), ld, x.get(), inverse.get());
      for (int64_t k = 0; k < d; ++k) CHECK_NEAR(x[k], expected[k], (d + 8) * roundoff<T>());
      for (int64_t k = d; k < ld; ++k) CHECK(x[k] == 0);
      const double inverse_norm = 1 / std::sqrt(square) / scale;
      if (inverse_norm < std::numeric_limits<T>::max())
        CHECK_NEAR(inverse[0] / inverse_norm, 1, (d + 8) * roundoff<T>());
      else
        CHECK(inverse[0] == std::numeric_limits<T>::max());
    }
  Buffer<T> zero(16, T(0)), inverse(1, T(1));
  kernels.normalize(1, 16, zero.get(), 16, zero.get(), inverse.get());
  CHECK(inverse[0] == 0 && zero[0] == 0);
  zero[1] = std::numeric_limits<T>::infinity();
  kernels.normalize(1, 16, zero.get(), 16, zero.get(), inverse.get());
  CHECK(std::isnan(zero[0]) && std::isnan(inverse[0]));
}

template <class T>
void selection(const Kernels<T>& kernels) {
  auto scores = random_values<T>(48 * 48, 8);
  scores[100] = std::numeric_limits<T>::quiet_NaN();
  scores[101] = -std::numeric_limits<T>::infinity();
  std::vector<Key<T>> threshold(48);
  for (int l = 0; l < 48; ++l) threshold[l] = score_key(T(0.02) * (l - 24));
  threshold[100 % 48] = std::numeric_limits<Key<T>>::min();  // lets NaN through
  Buffer<T> tile(48 * 48);
  std::copy(scores.begin(), scores.end(), tile.get());
  std::vector<uint16_t> hits(48 * 48), expected;
  std::vector<Key<T>> count(48, 0), expected_count(48, 0);
  for (int i = 0; i < 48 * 48; ++i)
    if (score_key(scores[i]) >= threshold[i % 48]) {
      expected.push_back(static_cast<uint16_t>(i));
      ++expected_count[i % 48];
    }
  hits.resize(kernels.scan_tile(48, 48, tile.get(), threshold.data(), hits.data()));
  CHECK(hits == expected);
  kernels.count_tile(48, 48, tile.get(), threshold.data(), count.data());
  CHECK(count == expected_count);
}

template <class T>
void drawn_rows(const Kernels<T>& kernels) {
  for (uint32_t n : {1u, 3u, 40981u, 3u << 29, 0x7fffffffu})
    for (int64_t columns : {1, 5, 64, 1021}) {
      std::vector<int32_t> ids(columns);
      kernels.draw_row(0x123456789abcdefull, (int64_t{1} << 33) + 5, columns, n, ids.data());
      for (int64_t c = 0; c < columns; ++c)
        CHECK(ids[c] == static_cast<int32_t>(draw(0x123456789abcdefull, (int64_t{1} << 33) + 5,
                                                  static_cast<uint32_t>(c), n)));
    }
}

template <class T>
void all() {
  const Kernels<T>& kernels = active_kernels<T>();
  gemm_matches_loops(kernels);
  dot_is_gemm(kernels);
  exponentials(kernels);
  normalisation(kernels);
  selection(kernels);
  drawn_rows(kernels);
}

}  // namespace

int main(int, char** argv) {
  try {
    CHECK(active_kernels<float>().name == std::string(argv[1]));
  } catch (const std::runtime_error& missing) {
    std::printf("skipped: %s\n", missing.what());
    return 77;
  }
  all<float>();
  all<double>();
  return report();
}
