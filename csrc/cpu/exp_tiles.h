// From scores to exponentials, a tile of the soft-max loss at a time.
//
// Shifts. With both sides normalised the logit is at most k = 1 / tau: e = exp(k (s - 1)) needs no
// running maximum as long as exp(-2k) is representable, and a tile is exponentiated while it is
// still in registers. Otherwise the maximum is kept online, and moved only when a score exceeds it
// by 2^10.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "../core/loss_row.h"
#include "softmax_products.h"
#include "tile_masks.h"

namespace adaptau {

constexpr double kMaxShiftLag = 10;   // in powers of two
constexpr int64_t kMostMasked = 256;  // of 2304 in a tile: more are taken out of a tile in memory

// The soft-max state of one group over one range of items.
template <class T>
struct GroupState {
  T shift[kTile], unit_shift[kTile];
  double sum[kTile], unit_sum[kTile];
};

// Which tile: items [row, row + items) of a panel, the first of them `first` in the catalogue.
struct TilePlace {
  int64_t g, first, row, items;
};

template <class T, class Products>
class ExpTiles {
  using Cell = typename Products::Cell;

 public:
  struct Worker {
    TileMasks::Cursor cursor;
    typename Products::Scratch products;
  };

  ExpTiles(const SoftmaxTerms<T>& terms, int64_t n_users, bool unit_loss, const Kernels<T>& kernels,
           const TileMasks& masks, const Products& products)
      : terms_(terms),
        n_users_(n_users),
        unit_loss_(unit_loss),
        online_(!logits_are_bounded(terms, n_users)),
        kernels_(kernels),
        masks_(masks),
        products_(products),
        tau_((n_users + kTile - 1) / kTile * kTile, T(0)) {
    std::copy_n(terms.tau, n_users, tau_.get());
  }

  bool online() const { return online_; }

  void reset(int64_t g, GroupState<T>& state) const {
    for (int64_t l = 0; l < kTile; ++l) {
      const int64_t b = g * kTile + l;
      const T unset = std::numeric_limits<T>::lowest() / 4;
      const T bound = static_cast<T>(kLog2e / (b < n_users_ ? terms_.tau[b] : 1));
      state.shift[l] = online_ ? unset : bound;
      state.unit_shift[l] = online_ ? unset : T(0);
      state.sum[l] = state.unit_sum[l] = 0;
    }
  }

  // Exponentials of a tile into `out`, sums into the state. Where a shift moves, the rows of O
  // (nullptr: none) are rescaled: they must hold every earlier tile.
  void make(const TilePlace& at, const typename Products::Panel& panel, const ExpTile<Cell>& out,
            T* o, int64_t ld, GroupState<T>& state, Worker& w) const {
    const ExpState<T> lanes{state.shift, state.sum, tau_.get() + at.g * kTile, state.unit_shift,
                            state.unit_sum};
    uint16_t places[kTile * kTile];
    const MaskedScores masked = masks_.of_tile(at.first, at.items, at.g, w.cursor, places);
    if (!online_ && !unit_loss_ && masked.count <= kMostMasked) {
      products_.exp_scores(at.g, at.row, at.items, active(at.g), panel, masked, lanes, out,
                           w.products);
      return;
    }
    const ExpTile<T> tile = score(at, panel, masked, out, w);
    if (unit_loss_) {
      T top[kTile];
      if (online_) {
        find_tops(at, tile, top);
        raise_shift(active(at.g), lanes.inv_k, top, state.unit_shift, state.unit_sum);
      }
      kernels_.unit_tile(at.items, active(at.g), tile.cells, tile.stride, lanes);
    }
    if (terms_.log_q != nullptr) subtract_log_q(at, masked, tile);
    if (online_) {
      T factor[kTile];
      find_tops(at, tile, factor);
      if (raise_shift(active(at.g), nullptr, factor, state.shift, state.sum) && o != nullptr)
        for (int64_t l = 0; l < users(at.g); ++l) Products::rescale(l, ld, factor[l], o);
    }
    kernels_.exp_tile(at.items, active(at.g), tile.cells, tile.stride, lanes);
    products_.keep_tile(at.row, at.items, tile, out, w.products);
  }

  // The same exponentials once more, with shifts that are final.
  void remake(const TilePlace& at, const typename Products::Panel& panel, const ExpTile<Cell>& out,
              const GroupState<T>& state, Worker& w) const {
    double unused[kTile] = {};
    const ExpState<T> lanes{const_cast<T*>(state.shift), unused, nullptr, nullptr, nullptr};
    uint16_t places[kTile * kTile];
    const MaskedScores masked = masks_.of_tile(at.first, at.items, at.g, w.cursor, places);
    if (terms_.log_q == nullptr && masked.count <= kMostMasked) {
      products_.exp_scores(at.g, at.row, at.items, active(at.g), panel, masked, lanes, out,
                           w.products);
      return;
    }
    const ExpTile<T> tile = score(at, panel, masked, out, w);
    if (terms_.log_q != nullptr) subtract_log_q(at, masked, tile);
    kernels_.exp_tile(at.items, active(at.g), tile.cells, tile.stride, lanes);
    products_.keep_tile(at.row, at.items, tile, out, w.products);
  }

 private:
  int64_t users(int64_t g) const { return std::min<int64_t>(kTile, n_users_ - g * kTile); }
  int64_t active(int64_t g) const { return active_lanes<T>(users(g)); }

  // Base-2 scores in memory, what is masked at -inf.
  ExpTile<T> score(const TilePlace& at, const typename Products::Panel& panel,
                   const MaskedScores& masked, const ExpTile<Cell>& out, Worker& w) const {
    const ExpTile<T> tile =
        products_.scores(at.g, at.row, at.items, active(at.g), panel, out, w.products);
    hide(masked, tile);
    return tile;
  }

  static void hide(const MaskedScores& masked, const ExpTile<T>& tile) {
    for (int64_t m = 0; m < masked.count; ++m)
      tile.cells[masked.at[m] / kTile * tile.stride + masked.at[m] % kTile] =
          -std::numeric_limits<T>::infinity();
  }

  // What is masked stays so, whatever its log_q.
  void subtract_log_q(const TilePlace& at, const MaskedScores& masked,
                      const ExpTile<T>& tile) const {
    for (int64_t j = 0; j < at.items; ++j) {
      const T bias = static_cast<T>(terms_.log_q[at.first + j] * kLog2e);
      for (int64_t l = 0; l < active(at.g); ++l) tile.cells[j * tile.stride + l] -= bias;
    }
    hide(masked, tile);
  }

  void find_tops(const TilePlace& at, const ExpTile<T>& tile, T* top) const {
    std::fill_n(top, kTile, -std::numeric_limits<T>::infinity());
    kernels_.max_tile(at.items, active(at.g), tile.cells, tile.stride, top);
  }

  // Moves shifts up to the tile's maximum where it exceeds them by far. `top` becomes the factor of
  // sums and O (1 where nothing moved); true when anything moved.
  static bool raise_shift(int64_t lanes, const T* inv_k, T* top, T* shift, double* sum) {
    bool moved = false;
    for (int64_t l = 0; l < lanes; ++l) {
      const T reached = inv_k != nullptr ? top[l] * inv_k[l] : top[l];
      top[l] = 1;
      if (!(reached > shift[l] + T(kMaxShiftLag))) continue;
      top[l] = std::exp2(shift[l] - reached);
      sum[l] *= top[l];
      shift[l] = reached;
      moved = true;
    }
    return moved;
  }

  const SoftmaxTerms<T>& terms_;
  const int64_t n_users_;
  const bool unit_loss_, online_;
  const Kernels<T>& kernels_;
  const TileMasks& masks_;
  const Products& products_;
  Buffer<T> tau_;  // [groups * 48]
};

// Adds what ranges of items found for the same group: states and their rows of O.
template <class T>
void merge_state(const GroupState<T>& from, int64_t users, int64_t ld, const T* from_o,
                 GroupState<T>& into, T* into_o) {
  for (int64_t l = 0; l < users; ++l) {
    const T top = std::max(into.shift[l], from.shift[l]);
    const T keep = std::exp2(into.shift[l] - top), add = std::exp2(from.shift[l] - top);
    into.sum[l] = into.sum[l] * keep + from.sum[l] * add;
    into.shift[l] = top;
    const T unit_top = std::max(into.unit_shift[l], from.unit_shift[l]);
    into.unit_sum[l] = into.unit_sum[l] * std::exp2(into.unit_shift[l] - unit_top) +
                       from.unit_sum[l] * std::exp2(from.unit_shift[l] - unit_top);
    into.unit_shift[l] = unit_top;
    if (into_o == nullptr) continue;
    for (int64_t k = l * ld; k < (l + 1) * ld; ++k) into_o[k] = into_o[k] * keep + from_o[k] * add;
  }
}

}  // namespace adaptau
