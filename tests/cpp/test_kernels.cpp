// Each micro-kernel of one instruction set against plain loops in double.
#include <algorithm>
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

// The contract that ties retrieval together: gemm, dot, dots and dots_with round alike.
template <class T>
void dot_is_gemm(const Kernels<T>& kernels) {
  for (int64_t d : {1, 17, 64, 127, 300}) {
    const auto a = random_values<T>(48 * d, 4), u = random_values<T>(d, 5);
    std::vector<T> packed(d * 48, T(0)), c(48 * 48);
    for (int64_t k = 0; k < d; ++k) packed[k * 48 + 3] = u[k];
    kernels.gemm(48, 48, d, a.data(), d, 1, packed.data(), 48, c.data(), 48, false);
    std::vector<const T*> rows(47), users(47, u.data());
    std::vector<T> products(47);
    for (int64_t j = 0; j < 47; ++j) rows[j] = a.data() + j * d;
    kernels.dots(47, d, rows.data(), users.data(), products.data());
    std::vector<T> with(47);
    kernels.dots_with(47, d, rows.data(), u.data(), with.data());
    for (int64_t j = 0; j < 47; ++j) {
      CHECK(c[j * 48 + 3] == kernels.dot(d, rows[j], u.data()));
      CHECK(c[j * 48 + 3] == products[j]);
      CHECK(c[j * 48 + 3] == with[j]);
    }
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
  kernels.unit_tile(48, 48, tile.get(), 48, state);
  kernels.exp_tile(48, 48, tile.get(), 48, state);
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
  kernels.max_tile(48, 48, tile.get(), 48, top.get());
  CHECK(top[5] == x[47 * 48 + 5]);
}

// Scores -> exponentials in one go: every strip width, masks, rows beyond the items.
template <class T>
void exponentials_of_scores(const Kernels<T>& kernels) {
  for (int64_t items : {1, 5, 8, 13, 48})
    for (int64_t lanes : {16, 32, 48})
      for (int64_t k : {1, 20, 64}) {
        const int64_t stride = 48 + 32;
        const auto rows = random_values<T>(48 * k, 11, 0.3), users = random_values<T>(k * 48, 12);
        std::vector<T> tile(48 * stride, T(-7)), shift(48);
        for (int l = 0; l < 48; ++l) shift[l] = static_cast<T>(l) / 8;
        std::vector<double> sum(48, 1.0);
        std::vector<uint16_t> masked;
        uint64_t masked_rows = 0;
        for (int64_t i = 3; i < items * 48; i += 77)
          if (i % 48 < lanes)
            masked.push_back(static_cast<uint16_t>(i)), masked_rows |= uint64_t{1} << i / 48;
        const ExpState<T> state{shift.data(), sum.data(), nullptr, nullptr, nullptr};
        kernels.exp_scores(items, lanes, k, rows.data(), k, users.data(),
                           {masked_rows, static_cast<int64_t>(masked.size()), masked.data()}, state,
                           tile.data(), stride);
        for (int64_t l = 0; l < lanes; ++l) {
          double expected_sum = 1;
          for (int64_t j = 0; j < items; ++j) {
            double score = 0, size = 0;
            for (int64_t i = 0; i < k; ++i) {
              const double term = static_cast<double>(rows[j * k + i]) * users[i * 48 + l];
              score += term, size += std::abs(term);
            }
            const bool out = std::count(masked.begin(), masked.end(), j * 48 + l) != 0;
            const double expected = out ? 0 : std::exp2(score - shift[l]);
            // an error of the exponent, which |shift| magnifies too, is one of the logarithm
            const double budget = (2 * (k + 1) * (size + shift[l]) + 6) * roundoff<T>();
            CHECK_NEAR(tile[j * stride + l], expected, budget * expected);
            expected_sum += expected;
          }
          CHECK_NEAR(sum[l], expected_sum, expected_sum * (k + 60) * 8 * roundoff<T>());
          CHECK(tile[48 + l % 32] == T(-7));  // beyond the lanes
        }
      }
}

// Words of two bfloat16 numbers that are exact: element 2 k of a row in the lower half.
int32_t exact_pair(float lower, float upper) {
  uint32_t low, high;
  std::memcpy(&low, &lower, 4), std::memcpy(&high, &upper, 4);
  return static_cast<int32_t>(low >> 16 | (high & 0xffff0000u));
}

// 16-bit factors, where the level has them: rows are right to their stated precision, and the
// products to that of the rows.
void products_of_pairs(const Kernels<float>& kernels) {
  if (kernels.gemm_bf16 == nullptr) return;
  const int64_t n = 47, ld = 64;
  auto x = random_values<float>(48 * ld, 13), u = random_values<float>(48 * ld, 14);
  std::fill_n(x.begin() + 5 * ld, ld, 0.f);
  x[6 * ld + 3] = std::numeric_limits<float>::infinity();
  for (int64_t k = 0; k < ld; ++k) x[7 * ld + k] *= 1e-30f, x[8 * ld + k] *= 1e30f;

  std::vector<int16_t> q(48 * ld), qu(48 * ld);
  std::vector<float> scale(48), user_scale(48);
  kernels.int16_rows(48, ld, x.data(), ld, q.data(), scale.data());
  kernels.int16_rows(48, ld, u.data(), ld, qu.data(), user_scale.data());
  CHECK(scale[5] > 0 && std::isnan(scale[6]));
  for (int64_t j = 0; j < 48; ++j) {
    if (j == 6) continue;
    double norm = 0, square = 0;
    for (int64_t k = 0; k < ld; ++k) norm += std::pow(static_cast<double>(x[j * ld + k]), 2);
    for (int64_t k = 0; k < ld; ++k) {
      CHECK_NEAR(scale[j] * static_cast<double>(q[j * ld + k]), x[j * ld + k],
                 0.51 / 32000 * std::sqrt(norm));
      square += std::pow(static_cast<double>(q[j * ld + k]), 2);
    }
    CHECK(square < std::pow(32100.0, 2));  // so that no sum of products leaves 32 bits
  }

  std::vector<int32_t> rows(48 * ld / 2), packed(48 * ld / 2);
  std::memcpy(rows.data(), q.data(), q.size() * 2);
  for (int64_t k = 0; k < ld / 2; ++k)
    for (int64_t l = 0; l < 48; ++l) std::memcpy(&packed[k * 48 + l], &qu[l * ld + 2 * k], 4);
  Buffer<float> scores(48 * 48);
  kernels.scores_int16(n, 48, ld / 2, {rows.data(), scale.data()},
                       {packed.data(), user_scale.data()}, scores.get());
  std::vector<float> shift(48, 3.f);
  std::vector<double> sum(48, 0.0);
  Buffer<uint16_t> rounded(48 * 64);
  Buffer<int32_t> paired(24 * 48);
  kernels.exp_scores_int16(n, 48, ld / 2, {rows.data(), scale.data()},
                           {packed.data(), user_scale.data()}, {0, 0, nullptr},
                           {shift.data(), sum.data(), nullptr, nullptr, nullptr}, rounded.get(), 64,
                           paired.get());
  for (int64_t j = 0; j < n; ++j)
    for (int64_t l = 0; l < 48; ++l) {
      int64_t exact = 0;
      for (int64_t k = 0; k < ld; ++k) exact += int64_t{q[j * ld + k]} * qu[l * ld + k];
      const double expected = static_cast<double>(exact) * scale[j] * user_scale[l];
      if (j == 6) {
        CHECK(std::isnan(scores[j * 48 + l]));
        continue;
      }
      CHECK_NEAR(scores[j * 48 + l], expected, 4 * roundoff<float>() * std::abs(expected));
      if (std::abs(expected) > 60) continue;
      const double e = std::exp2(expected - 3);
      const uint16_t pair =
          static_cast<uint16_t>(static_cast<uint32_t>(paired[j / 2 * 48 + l]) >> (j % 2 * 16));
      CHECK_NEAR(bf16_to_f32(rounded[j * 64 + l]), e, e / 255);
      CHECK(pair == rounded[j * 64 + l]);
    }

  // C = A B with bfloat16 factors that are exact: small integers
  const int64_t m = 13, k = 6, columns = 48;
  std::vector<float> a(m * 2 * k), b(2 * k * columns), c(m * columns, 1.f);
  for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(static_cast<int>(i * 7 % 13) - 6);
  for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(static_cast<int>(i * 5 % 17) - 8);
  std::vector<int32_t> wa(m * k), wb(k * columns);
  for (int64_t r = 0; r < m; ++r)
    for (int64_t i = 0; i < k; ++i)
      wa[r * k + i] = exact_pair(a[r * 2 * k + 2 * i], a[r * 2 * k + 2 * i + 1]);
  kernels.bf16_rows(2 * k, columns, b.data(), columns, nullptr, 0, wb.data());
  kernels.gemm_bf16(m, columns, k, wa.data(), k, 1, wb.data(), columns, c.data(), columns, true);
  for (int64_t r = 0; r < m; ++r)
    for (int64_t j = 0; j < columns; ++j) {
      float expected = 1;
      for (int64_t i = 0; i < 2 * k; ++i) expected += a[r * 2 * k + i] * b[i * columns + j];
      CHECK(c[r * columns + j] == expected);
    }
}

// Tile registers, where the level has them.
void products_of_tiles(const Kernels<float>& kernels) {
  if (kernels.gemm_tiles == nullptr) return;
  const int64_t ld = 48, words = 32;  // the second tile is half beyond the rows
  auto x = random_values<float>(48 * ld, 15), u = random_values<float>(48 * ld, 16);
  for (int64_t k = 0; k < ld; ++k) x[7 * ld + k] *= 1e-30f, x[8 * ld + k] *= 1e30f;
  x[6 * ld + 3] = std::numeric_limits<float>::infinity();
  std::vector<float> factor(48, 0.5f);
  std::vector<int32_t> high(48 * words), low(48 * words), user_high(48 * words),
      user_low(48 * words);
  kernels.split_rows(48, ld, x.data(), ld, nullptr, words, high.data(), low.data());
  kernels.split_rows(48, ld, u.data(), ld, factor.data(), words, user_high.data(), user_low.data());
  const auto element = [&](const std::vector<int32_t>& from, int64_t row, int64_t k) {
    const auto word = static_cast<uint32_t>(from[row * words + k / 2]);
    return bf16_to_f32(static_cast<uint16_t>(word >> (k % 2 * 16)));
  };
  for (int64_t j = 0; j < 48; ++j)
    for (int64_t k = 0; k < 2 * words; ++k) {
      const double whole = static_cast<double>(element(high, j, k)) + element(low, j, k);
      if (j != 6) {
        const double exact = k < ld ? x[j * ld + k] : 0;
        CHECK_NEAR(whole, exact, std::ldexp(std::abs(exact), -16));
      }
      const double user = static_cast<double>(element(user_high, j, k)) + element(user_low, j, k);
      const double exact = k < ld ? u[j * ld + k] / 2 : 0;
      CHECK_NEAR(user, exact, std::ldexp(std::abs(exact), -16));
    }

  std::vector<int32_t> packed_high(48 * words), packed_low(48 * words);
  pack_group<int32_t>(user_high.data(), 48, words, nullptr, packed_high.data());
  pack_group<int32_t>(user_low.data(), 48, words, nullptr, packed_low.data());
  const SplitFactors rows{high.data(), low.data()};
  const SplitFactors users{packed_high.data(), packed_low.data()};
  Buffer<float> scores(48 * 48);
  kernels.start_tiles();
  kernels.scores_tiles(48, words, rows, users, scores.get());
  kernels.stop_tiles();
  for (int64_t j = 0; j < 48; ++j)
    for (int64_t l = 0; l < 48; ++l) {
      if (j == 6) {
        CHECK(std::isnan(scores[j * 48 + l]));
        continue;
      }
      double exact = 0, size = 0;
      for (int64_t k = 0; k < ld; ++k) {
        const double product = static_cast<double>(x[j * ld + k]) * u[l * ld + k] / 2;
        exact += product, size += std::abs(product);
      }
      CHECK_NEAR(scores[j * 48 + l], exact, std::ldexp(size, -15));
    }

  x[6 * ld + 3] = 1;
  kernels.split_rows(48, ld, x.data(), ld, nullptr, words, high.data(), low.data());
  std::vector<float> shift(48, 3.f);
  const uint16_t hidden[] = {2 * 48 + 5, 20 * 48 + 31};
  for (int64_t items : {1, 16, 30, 48})
    for (int64_t lanes : {16, 32, 48}) {
      std::vector<double> sum(48, 0.0);
      Buffer<uint16_t> rounded(48 * 64, uint16_t{0x4242});
      Buffer<int32_t> paired(24 * 48, 0x42424242);
      kernels.start_tiles();
      kernels.scores_tiles(items, words, rows, users, scores.get());
      kernels.exp_scores_tiles(items, lanes, words, rows, users, {0x100004, 2, hidden},
                               {shift.data(), sum.data(), nullptr, nullptr, nullptr}, rounded.get(),
                               64, paired.get());
      kernels.stop_tiles();
      const int64_t written = (items + 7) / 8 * 8;
      for (int64_t l = 0; l < 48; ++l) {
        double expected_sum = 0;
        for (int64_t j = 0; j < written; ++j) {
          const auto word = static_cast<uint32_t>(paired[j / 2 * 48 + l]);
          const auto pair = static_cast<uint16_t>(word >> (j % 2 * 16));
          if (l >= lanes) {
            CHECK(rounded[j * 64 + l] == 0x4242 && pair == 0x4242);
            continue;
          }
          const bool gone = j >= items || j * 48 + l == hidden[0] || j * 48 + l == hidden[1];
          const double e = gone ? 0 : std::exp2(static_cast<double>(scores[j * 48 + l]) - 3);
          expected_sum += e;
          CHECK(pair == rounded[j * 64 + l]);
          if (std::abs(scores[j * 48 + l]) < 60 || gone) CHECK_NEAR(bf16_to_f32(pair), e, e / 255);
        }
        if (l < lanes && expected_sum < 1e30)
          CHECK_NEAR(sum[l], expected_sum, expected_sum * 200 * roundoff<float>());
      }
    }

  for (int64_t m : {16, 32, 48})
    for (int64_t n : {16, 48, 64})
      for (int64_t k : {16, 48}) {
        const int64_t a_row = k + 16, ldb = n + 16, ldc = n + 32;
        const auto a = [](int64_t r, int64_t i) {
          return static_cast<float>((r * 7 + i * 3) % 13 - 6);
        };
        const auto b = [](int64_t i, int64_t j) {
          return static_cast<float>((i * 5 + j * 2) % 17 - 8);
        };
        std::vector<int32_t> wa(m * a_row), wb(k * ldb);
        for (int64_t i = 0; i < k; ++i) {
          for (int64_t r = 0; r < m; ++r)
            wa[r * a_row + i] = exact_pair(a(r, 2 * i), a(r, 2 * i + 1));
          for (int64_t j = 0; j < n; ++j)
            wb[i * ldb + j] = exact_pair(b(2 * i, j), b(2 * i + 1, j));
        }
        std::vector<float> c(m * ldc, 1.f);
        kernels.start_tiles();
        kernels.gemm_tiles(m, n, k, wa.data(), a_row, wb.data(), ldb, c.data(), ldc);
        kernels.stop_tiles();
        for (int64_t r = 0; r < m; ++r)
          for (int64_t j = 0; j < ldc; ++j) {
            float expected = 1;
            for (int64_t i = 0; i < 2 * k && j < n; ++i) expected += a(r, i) * b(i, j);
            CHECK(c[r * ldc + j] == expected);
          }
      }
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
  for (int i = 0; i < 48 * 48; ++i)
    if (score_key(scores[i]) >= threshold[i % 48]) expected.push_back(static_cast<uint16_t>(i));
  hits.resize(kernels.scan_tile(48, 48, tile.get(), threshold.data(), hits.data()));
  CHECK(hits == expected);
}

// Scores counted as they are made: every strip width, rows beside the register tile's, and the tile
// where it is wanted.
template <class T>
void counting(const Kernels<T>& kernels) {
  const T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  for (int64_t items : {1, 8, 13, 47, 48})
    for (int64_t lanes : {16, 24, 32, 48})
      for (int64_t depth : {1, 2, 5}) {
        if (lanes * sizeof(T) % 64 != 0) continue;
        const int64_t k = 20, stride = k + 3;
        auto rows = random_values<T>(48 * stride, 15), users = random_values<T>(k * 48, 16);
        rows[0] = nan, rows[7 * stride] = inf, rows[12 * stride + 1] = -inf;
        std::vector<T> score(48 * 48, T(7)), bound(depth * 48);
        kernels.gemm(items, lanes, k, rows.data(), stride, 1, users.data(), 48, score.data(), 48,
                     false);
        for (int64_t i = 0; i < depth; ++i)
          for (int64_t l = 0; l < 48; ++l) {
            const T special[] = {nan, inf, -inf, T(0)};
            bound[i * 48 + l] =
                (l + i) % 3 == 0 ? special[l / 3 % 4] : score[(l * 5 + i) % items * 48 + l];
          }
        std::vector<Key<T>> count(depth * 48, 3), expected = count;
        for (int64_t i = 0; i < depth; ++i)
          for (int64_t l = 0; l < lanes; ++l)
            for (int64_t j = 0; j < items; ++j)
              expected[i * 48 + l] += score[j * 48 + l] >= bound[i * 48 + l];
        auto wanted = count;
        std::vector<T> tile(48 * 48, T(7));
        const RankThresholds<T> alone{depth, bound.data(), count.data()};
        kernels.count_scores(items, lanes, k, rows.data(), stride, users.data(), alone, nullptr);
        CHECK(count == expected);
        const RankThresholds<T> both{depth, bound.data(), wanted.data()};
        kernels.count_scores(items, lanes, k, rows.data(), stride, users.data(), both, tile.data());
        CHECK(wanted == expected);
        for (int64_t i = 0; i < 48 * 48; ++i) CHECK(score_key(tile[i]) == score_key(score[i]));
      }
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
  exponentials_of_scores(kernels);
  normalisation(kernels);
  selection(kernels);
  counting(kernels);
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
  products_of_pairs(active_kernels<float>());
  products_of_tiles(active_kernels<float>());
  return report();
}
