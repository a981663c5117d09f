// The three matrix products of the soft-max loss: in the compute type, in 16-bit pairs, or in tile
// registers. The classes keep the users in the form their product needs, and offer the same steps:
//   exp_scores   panel x group -> exponentials       (or scores, then keep_tile)
//   add_items    O += exponentials^T x panel         (then finish_o once)
//   add_users    gradient of a panel's items += exponentials x weighted users
// A thread does them within a Session.
#pragma once

#include <type_traits>

#include "rows.h"

namespace adaptau {

constexpr int64_t kPanel = 2 * kTile;  // items at a time: two tiles

// Scores or exponentials of items and users; `cells` are [items][stride].
template <class Cell>
struct ExpTile {
  Cell* cells;
  int64_t stride;
  ExpTile from_item(int64_t item) const { return {cells + item * stride, stride}; }
};

struct NoSession {
  template <class T>
  explicit NoSession(const Kernels<T>&) {}
};

// O as rows of users.
template <class T>
struct UserRows {
  // Row l of O times a factor.
  static void rescale(int64_t l, int64_t ld, T factor, T* o) {
    for (int64_t k = l * ld; k < (l + 1) * ld; ++k) o[k] *= factor;
  }
  static void finish_o(int64_t, T*) {}
};

template <class T>
class PlainProducts : public UserRows<T> {
 public:
  using Cell = T;
  struct Panel {
    const T* rows;
  };
  struct Scratch {};
  using Session = NoSession;

  PlainProducts(const Kernels<T>& kernels, int64_t groups, int64_t ld, bool weighted)
      : kernels_(kernels),
        ld_(ld),
        users_(groups * kTile * ld),
        weighted_(weighted ? groups * kTile * ld : 0) {}

  Panel panel() const { return {}; }
  Scratch scratch() const { return {}; }
  // rows[n, ld] of group g, to be scored times scale[row].
  void set_users(int64_t g, int64_t n, const T* rows, const T* scale) {
    pack_group(rows, n, ld_, scale, users_of(g));
  }
  // rows [96, ld], which must outlive the panel.
  void set_panel(const T* rows, Panel& panel) const { panel.rows = rows; }

  // Items [first, first + items) of the panel, a tile; `tile` is theirs.
  void exp_scores(int64_t g, int64_t first, int64_t items, int64_t lanes, const Panel& panel,
                  const MaskedScores& masked, const ExpState<T>& state, const ExpTile<T>& tile,
                  Scratch&) const {
    kernels_.exp_scores(items, lanes, ld_, panel.rows + first * ld_, ld_, users_of(g), masked,
                        state, tile.cells, tile.stride);
  }
  // Scores are made where the exponentials will be: there is nothing left to keep.
  ExpTile<T> scores(int64_t g, int64_t first, int64_t items, int64_t lanes, const Panel& panel,
                    const ExpTile<T>& tile, Scratch&) const {
    kernels_.gemm(items, lanes, ld_, panel.rows + first * ld_, ld_, 1, users_of(g), kTile,
                  tile.cells, tile.stride, false);
    return tile;
  }
  void keep_tile(int64_t, int64_t, const ExpTile<T>&, const ExpTile<T>&, Scratch&) const {}

  // Items [first, first + items) of the panel; `tile` is theirs.
  void add_items(int64_t rows, int64_t first, int64_t items, const ExpTile<T>& tile,
                 const Panel& panel, T* o, const Scratch&) const {
    kernels_.gemm(rows, ld_, items, tile.cells, 1, tile.stride, panel.rows + first * ld_, ld_, o,
                  ld_, true);
  }
  // rows[n, ld]: the users' rows as they enter the items' gradient.
  void set_weighted(int64_t g, int64_t n, const T* rows) {
    std::copy_n(rows, n * ld_, weighted_.get() + g * kTile * ld_);
  }
  // Users [first group * 48, + n) against cells [items][n].
  void add_users(int64_t first_group, int64_t n, int64_t items, const ExpTile<T>& tile,
                 T* grad) const {
    kernels_.gemm(items, ld_, n, tile.cells, tile.stride, 1,
                  weighted_.get() + first_group * kTile * ld_, ld_, grad, ld_, true);
  }

 private:
  T* users_of(int64_t g) const { return users_.get() + g * kTile * ld_; }

  const Kernels<T>& kernels_;
  int64_t ld_;
  Buffer<T> users_;     // [group][ld][48] times k log2 e
  Buffer<T> weighted_;  // [B, ld]
};

// Exponentials in bfloat16, kept in two orders: rounded for the product over users, paired for the
// one over items.
class PairedExponentials {
 public:
  using Cell = uint16_t;
  struct Scratch {
    Buffer<int32_t> paired_tile;
    Buffer<float> scores;
  };

  PairedExponentials(const Kernels<float>& kernels, int64_t groups, int64_t ld, bool weighted)
      : kernels_(kernels), ld_(ld), weighted_(weighted ? groups * kTile * ld / 2 : 0) {}

  Scratch scratch() const {
    return {Buffer<int32_t>(kPanel * kTile / 2), Buffer<float>(kTile * kTile)};
  }
  void keep_tile(int64_t first, int64_t items, const ExpTile<float>& from,
                 const ExpTile<uint16_t>& to, Scratch& s) const {
    kernels_.bf16_rows(items, kTile, from.cells, from.stride, to.cells, to.stride,
                       paired(s, first));
  }
  void set_weighted(int64_t g, int64_t n, const float* rows) {
    int32_t* words = weighted_.get() + g * kTile * ld_ / 2;
    std::fill_n(words, kTile * ld_ / 2, 0);
    kernels_.bf16_rows(n, ld_, rows, ld_, nullptr, 0, words);
  }

 protected:
  static int32_t* paired(const Scratch& s, int64_t first) {
    return s.paired_tile.get() + first / 2 * kTile;
  }
  const int32_t* weighted(int64_t first_group) const {
    return weighted_.get() + first_group * kTile * ld_ / 2;
  }

  const Kernels<float>& kernels_;
  int64_t ld_;

 private:
  Buffer<int32_t> weighted_;  // [B / 2][ld] words of two users in bfloat16
};

// Scores from 16-bit integers, products with exponentials in bfloat16: half the cost.
class Bf16Products : public PairedExponentials, public UserRows<float> {
 public:
  using Session = NoSession;
  struct Panel {
    Buffer<int32_t> words, paired;
    Buffer<float> scale;
  };

  Bf16Products(const Kernels<float>& kernels, int64_t groups, int64_t ld, bool weighted)
      : PairedExponentials(kernels, groups, ld, weighted),
        users_(groups * kTile * ld / 2),
        user_scale_(groups * kTile, 1.f) {}

  Panel panel() const {
    return {Buffer<int32_t>(kPanel * ld_ / 2), Buffer<int32_t>(kPanel * ld_ / 2),
            Buffer<float>(kPanel)};
  }
  void set_users(int64_t g, int64_t n, const float* rows, const float* scale) {
    Buffer<int32_t> words(n * ld_ / 2);
    float* user_scale = user_scale_.get() + g * kTile;
    kernels_.int16_rows(n, ld_, rows, ld_, reinterpret_cast<int16_t*>(words.get()), user_scale);
    for (int64_t l = 0; l < n; ++l) user_scale[l] *= scale[l];
    pack_group(words.get(), n, ld_ / 2, static_cast<const int32_t*>(nullptr),
               users_.get() + g * kTile * ld_ / 2);
  }
  void set_panel(const float* rows, Panel& panel) const {
    kernels_.int16_rows(kPanel, ld_, rows, ld_, reinterpret_cast<int16_t*>(panel.words.get()),
                        panel.scale.get());
    kernels_.bf16_rows(kPanel, ld_, rows, ld_, nullptr, 0, panel.paired.get());
  }

  void exp_scores(int64_t g, int64_t first, int64_t items, int64_t lanes, const Panel& panel,
                  const MaskedScores& masked, const ExpState<float>& state,
                  const ExpTile<uint16_t>& tile, Scratch& s) const {
    kernels_.exp_scores_int16(items, lanes, ld_ / 2, rows_of(panel, first), users_of(g), masked,
                              state, tile.cells, tile.stride, paired(s, first));
  }
  ExpTile<float> scores(int64_t g, int64_t first, int64_t items, int64_t lanes, const Panel& panel,
                        const ExpTile<uint16_t>&, Scratch& s) const {
    kernels_.scores_int16(items, lanes, ld_ / 2, rows_of(panel, first), users_of(g),
                          s.scores.get());
    return {s.scores.get(), kTile};
  }

  void add_items(int64_t rows, int64_t first, int64_t items, const ExpTile<uint16_t>&,
                 const Panel& panel, float* o, const Scratch& s) const {
    kernels_.gemm_bf16(rows, ld_, (items + 1) / 2, paired(s, first), 1, kTile,
                       panel.paired.get() + first / 2 * ld_, ld_, o, ld_, true);
  }
  void add_users(int64_t first_group, int64_t n, int64_t items, const ExpTile<uint16_t>& tile,
                 float* grad) const {
    kernels_.gemm_bf16(items, ld_, (n + 1) / 2, reinterpret_cast<const int32_t*>(tile.cells),
                       tile.stride / 2, 1, weighted(first_group), ld_, grad, ld_, true);
  }

 private:
  Int16Factors users_of(int64_t g) const {
    return {users_.get() + g * kTile * ld_ / 2, user_scale_.get() + g * kTile};
  }
  Int16Factors rows_of(const Panel& panel, int64_t first) const {
    return {panel.words.get() + first * ld_ / 2, panel.scale.get() + first};
  }

  Buffer<int32_t> users_;     // [group][ld / 2][48] words of two integers
  Buffer<float> user_scale_;  // [B] of an integer, times k log2 e
};

// Scores from two bfloat16 factors a number, products with exponentials in one, all in tile
// registers, so that most of the time goes into exponentials. O is kept as [ld][48], which is how
// tiles make it, until finish_o. What is no whole tile is left to the 16-bit pairs.
class TileProducts : public PairedExponentials {
 public:
  struct Panel {
    Buffer<int32_t> high, low;  // [96][k] words
    Buffer<int32_t> columns;    // [ld][48] words of two items in bfloat16
  };
  class Session {
   public:
    explicit Session(const Kernels<float>& kernels) : kernels_(kernels) { kernels.start_tiles(); }
    ~Session() { kernels_.stop_tiles(); }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

   private:
    const Kernels<float>& kernels_;
  };

  TileProducts(const Kernels<float>& kernels, int64_t groups, int64_t ld, bool weighted)
      : PairedExponentials(kernels, groups, ld, weighted),
        k_((ld + 31) / 32 * 16),
        high_(groups * kTile * k_),
        low_(groups * kTile * k_) {}

  Panel panel() const {
    return {Buffer<int32_t>(kPanel * k_), Buffer<int32_t>(kPanel * k_),
            Buffer<int32_t>(kPanel / 2 * ld_)};
  }
  void set_users(int64_t g, int64_t n, const float* rows, const float* scale) {
    Buffer<int32_t> high(n * k_), low(n * k_);
    kernels_.split_rows(n, ld_, rows, ld_, scale, k_, high.get(), low.get());
    const int32_t* unscaled = nullptr;
    pack_group(high.get(), n, k_, unscaled, high_.get() + g * kTile * k_);
    pack_group(low.get(), n, k_, unscaled, low_.get() + g * kTile * k_);
  }
  void set_panel(const float* rows, Panel& panel) const {
    kernels_.split_rows(kPanel, ld_, rows, ld_, nullptr, k_, panel.high.get(), panel.low.get());
    Buffer<int32_t> pairs(kPanel / 2 * ld_);
    kernels_.bf16_rows(kPanel, ld_, rows, ld_, nullptr, 0, pairs.get());
    for (int64_t i = 0; i < ld_; ++i)
      for (int64_t pair = 0; pair < kPanel / 2; ++pair)
        panel.columns[i * (kPanel / 2) + pair] = pairs[pair * ld_ + i];
  }

  void exp_scores(int64_t g, int64_t first, int64_t items, int64_t lanes, const Panel& panel,
                  const MaskedScores& masked, const ExpState<float>& state,
                  const ExpTile<uint16_t>& tile, Scratch& s) const {
    kernels_.exp_scores_tiles(items, lanes, k_, rows_of(panel, first), users_of(g), masked, state,
                              tile.cells, tile.stride, paired(s, first));
  }
  ExpTile<float> scores(int64_t g, int64_t first, int64_t items, int64_t, const Panel& panel,
                        const ExpTile<uint16_t>&, Scratch& s) const {
    kernels_.scores_tiles(items, k_, rows_of(panel, first), users_of(g), s.scores.get());
    return {s.scores.get(), kTile};
  }

  void add_items(int64_t rows, int64_t first, int64_t items, const ExpTile<uint16_t>&,
                 const Panel& panel, float* o, const Scratch& s) const {
    multiply(ld_, active_lanes<float>(rows), (items + 1) / 2, panel.columns.get() + first / 2,
             kPanel / 2, paired(s, first), kTile, o, kTile);
  }
  static void rescale(int64_t l, int64_t ld, float factor, float* o) {
    for (int64_t k = 0; k < ld; ++k) o[k * kTile + l] *= factor;
  }
  static void finish_o(int64_t ld, float* o) {
    Buffer<float> columns(ld * kTile);
    std::copy_n(o, ld * kTile, columns.get());
    for (int64_t l = 0; l < kTile; ++l)
      for (int64_t k = 0; k < ld; ++k) o[l * ld + k] = columns[k * kTile + l];
  }

  void add_users(int64_t first_group, int64_t n, int64_t items, const ExpTile<uint16_t>& tile,
                 float* grad) const {
    multiply(items, ld_, (n + 1) / 2, reinterpret_cast<const int32_t*>(tile.cells), tile.stride / 2,
             weighted(first_group), ld_, grad, ld_);
  }

 private:
  // C += A B; whole tiles, then the rest of k, then the rest of the rows.
  void multiply(int64_t m, int64_t n, int64_t k, const int32_t* a, int64_t a_row, const int32_t* b,
                int64_t ldb, float* c, int64_t ldc) const {
    const int64_t rows = m / 16 * 16, depth = k / 16 * 16;
    kernels_.gemm_tiles(rows, n, depth, a, a_row, b, ldb, c, ldc);
    if (depth < k)
      kernels_.gemm_bf16(rows, n, k - depth, a + depth, a_row, 1, b + depth * ldb, ldb, c, ldc,
                         true);
    if (rows < m)
      kernels_.gemm_bf16(m - rows, n, k, a + rows * a_row, a_row, 1, b, ldb, c + rows * ldc, ldc,
                         true);
  }
  SplitFactors users_of(int64_t g) const {
    return {high_.get() + g * kTile * k_, low_.get() + g * kTile * k_};
  }
  SplitFactors rows_of(const Panel& panel, int64_t first) const {
    return {panel.high.get() + first * k_, panel.low.get() + first * k_};
  }

  int64_t k_;                   // words of a row, whole tiles
  Buffer<int32_t> high_, low_;  // [group][k][48] words, times k log2 e
};

}  // namespace adaptau
