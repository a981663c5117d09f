// The three matrix products of the soft-max loss, in the compute type or in 16-bit pairs. Both
// classes keep the users in the form their product needs, and offer the same steps:
//   exp_scores   panel x group -> exponentials       (or scores, then keep_tile)
//   add_items    O += exponentials^T x panel
//   add_users    gradient of a panel's items += exponentials x weighted users
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

template <class T>
class PlainProducts {
 public:
  using Cell = T;
  struct Panel {
    const T* rows;
  };
  struct Scratch {};

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

// Scores from 16-bit integers, products with exponentials in bfloat16: half the cost.
class Bf16Products {
 public:
  using Cell = uint16_t;
  struct Panel {
    Buffer<int32_t> words, paired;
    Buffer<float> scale;
  };
  struct Scratch {
    Buffer<int32_t> paired_tile;
    Buffer<float> scores;
  };

  Bf16Products(const Kernels<float>& kernels, int64_t groups, int64_t ld, bool weighted)
      : kernels_(kernels),
        ld_(ld),
        users_(groups * kTile * ld / 2),
        user_scale_(groups * kTile, 1.f),
        weighted_(weighted ? groups * kTile * ld / 2 : 0) {}

  Panel panel() const {
    return {Buffer<int32_t>(kPanel * ld_ / 2), Buffer<int32_t>(kPanel * ld_ / 2),
            Buffer<float>(kPanel)};
  }
  Scratch scratch() const {
    return {Buffer<int32_t>(kPanel * kTile / 2), Buffer<float>(kTile * kTile)};
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
                              state, tile.cells, tile.stride,
                              s.paired_tile.get() + first / 2 * kTile);
  }
  ExpTile<float> scores(int64_t g, int64_t first, int64_t items, int64_t lanes, const Panel& panel,
                        const ExpTile<uint16_t>&, Scratch& s) const {
    kernels_.scores_int16(items, lanes, ld_ / 2, rows_of(panel, first), users_of(g),
                          s.scores.get());
    return {s.scores.get(), kTile};
  }
  void keep_tile(int64_t first, int64_t items, const ExpTile<float>& from,
                 const ExpTile<uint16_t>& to, Scratch& s) const {
    kernels_.bf16_rows(items, kTile, from.cells, from.stride, to.cells, to.stride,
                       s.paired_tile.get() + first / 2 * kTile);
  }

  void add_items(int64_t rows, int64_t first, int64_t items, const ExpTile<uint16_t>&,
                 const Panel& panel, float* o, const Scratch& s) const {
    kernels_.gemm_bf16(rows, ld_, (items + 1) / 2, s.paired_tile.get() + first / 2 * kTile, 1,
                       kTile, panel.paired.get() + first / 2 * ld_, ld_, o, ld_, true);
  }
  void set_weighted(int64_t g, int64_t n, const float* rows) {
    std::fill_n(weighted_.get() + g * kTile * ld_ / 2, kTile * ld_ / 2, 0);
    kernels_.bf16_rows(n, ld_, rows, ld_, nullptr, 0, weighted_.get() + g * kTile * ld_ / 2);
  }
  void add_users(int64_t first_group, int64_t n, int64_t items, const ExpTile<uint16_t>& tile,
                 float* grad) const {
    kernels_.gemm_bf16(items, ld_, (n + 1) / 2, reinterpret_cast<const int32_t*>(tile.cells),
                       tile.stride / 2, 1, weighted_.get() + first_group * kTile * ld_ / 2, ld_,
                       grad, ld_, true);
  }

 private:
  Int16Factors users_of(int64_t g) const {
    return {users_.get() + g * kTile * ld_ / 2, user_scale_.get() + g * kTile};
  }
  Int16Factors rows_of(const Panel& panel, int64_t first) const {
    return {panel.words.get() + first * ld_ / 2, panel.scale.get() + first};
  }

  const Kernels<float>& kernels_;
  int64_t ld_;
  Buffer<int32_t> users_;     // [group][ld / 2][48] words of two integers
  Buffer<float> user_scale_;  // [B] of an integer, times k log2 e
  Buffer<int32_t> weighted_;  // [B / 2][ld] words of two users in bfloat16
};

}  // namespace adaptau
