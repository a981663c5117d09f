// The adaptive-temperature soft-max over every candidate, without a [B, M] matrix.
//
// First pass, one owner a group of 48 users: panels of 48 items stream by; a 48 x 48 tile of scores
// becomes exponentials in the first-level cache, and at once Z_b += sum_j e_bj and
// O_b += sum_j e_bj i^_j (flash attention with K = V = items). Z and O are all that loss, dL/du,
// dL/dtau need. Second pass, one owner a panel of items: dL/di^_j = sum_b e_bj w_b u^_b, from
// exponentials stashed by the first pass when a block of users fits the workspace, else recomputed.
// The products themselves are in softmax_products.h.
//
// The positive is masked out of every tile and put back exactly, so that p - 1 never cancels.
//
// Shifts. With both sides normalised the logit is at most k = 1 / tau: e = exp(k (s - 1)) needs no
// running maximum as long as exp(-2k) is representable. Otherwise the maximum is kept online, and
// moved only when a score exceeds it by 2^10.
//
// Every sum has a fixed order that depends on the shape alone: the result is the same bit for bit
// on any number of threads.
#include <algorithm>
#include <cmath>
#include <limits>

#include "loss_row.h"
#include "operators.h"
#include "rows.h"
#include "softmax_products.h"
#include "tile_masks.h"

namespace adaptau {
namespace {

constexpr double kMaxShiftLag = 10;  // in powers of two
constexpr int64_t kGroupsPerTask = 8, kPanelsPerTask = 16;
constexpr int64_t kGroupsPerBlock = 8;  // their rows stay in the second-level cache
constexpr int64_t kTasksPerBlock = 8;   // of the first pass, where there are items enough to split
constexpr int64_t kMostMasked = 256;    // of 2304 in a tile: more are taken out of a tile in memory

// The soft-max state of one group over one range of items.
template <class T>
struct GroupState {
  T shift[kTile], unit_shift[kTile];
  double sum[kTile], unit_sum[kTile];
};

// A worker's scratch.
template <class T, class Products>
struct Scratch {
  Buffer<T> panel_rows, inverse_norms, lane_max, grad;
  const T *panel, *inverse_norm;  // of the panel read last
  Buffer<typename Products::Cell> tile;
  TileMasks::Cursor cursor;
  typename Products::Scratch products;
};

template <class T, class Products>
class FusedSoftmax {
  using Cell = typename Products::Cell;
  using Worker = Scratch<T, Products>;

 public:
  FusedSoftmax(const SoftmaxProblem<T>& problem, const SoftmaxOutput<T>& out,
               const Parallel& parallel, int64_t workspace_bytes)
      : p_(problem),
        terms_(problem.terms),
        out_(out),
        parallel_(parallel),
        kernels_(active_kernels<T>()),
        B_(p_.users.rows),
        M_(p_.items.rows),
        d_(p_.users.cols),
        ld_(padded<T>(d_)),
        n_groups_((B_ + kTile - 1) / kTile),
        n_panels_((M_ + kTile - 1) / kTile),
        masks_(B_, p_.target, p_.masked),
        gradients_(out_.weight != nullptr),
        item_pass_(gradients_ && (out_.grad_items != nullptr || out_.grad_log_q != nullptr)),
        products_(kernels_, n_groups_, ld_, item_pass_) {
    online_ = !logits_are_bounded(terms_, B_);
    one_pass_ = !online_ && out_.unit_loss == nullptr;  // scores are needed for exponentials only

    // Everything below depends on the shape and the workspace alone, never on the threads.
    const int64_t item_bytes = n_panels_ * kTile * ld_ * static_cast<int64_t>(sizeof(T));
    keep_items_ = n_groups_ > kGroupsPerBlock && item_bytes <= workspace_bytes / 4;
    if (keep_items_) workspace_bytes -= item_bytes;
    constexpr int64_t line = kRowAlign / static_cast<int64_t>(sizeof(Cell));
    const int64_t fitting =
        (workspace_bytes /
             std::max<int64_t>(1, n_panels_ * kTile * static_cast<int64_t>(sizeof(Cell))) -
         line) /
        kTile;
    stash_ = item_pass_ && !online_ && (fitting >= 2 || fitting >= n_groups_);
    groups_a_block_ = std::min(n_groups_, stash_ ? std::min(fitting, kGroupsPerBlock) : n_groups_);
    // one cache line more than the users take, so that rows do not fall into the same few sets
    stash_stride_ = groups_a_block_ * kTile + line;
    if (stash_) stash_cells_ = Buffer<Cell>(n_panels_ * kTile * stash_stride_);
    splits_ = std::max<int64_t>(
        1, std::min(kTasksPerBlock / std::max<int64_t>(1, groups_a_block_), n_panels_ / 64));
    scratch_.resize(parallel_.workers);
  }

  void run() {
    if (B_ == 0) {
      if (gradients_ && out_.grad_items != nullptr) std::fill_n(out_.grad_items, M_ * d_, T(0));
      if (gradients_ && out_.grad_log_q != nullptr) std::fill_n(out_.grad_log_q, M_, T(0));
      return;
    }
    prepare_users();
    if (keep_items_) prepare_items();
    for (int64_t first = 0; first < n_groups_; first += groups_a_block_) {
      const int64_t last = std::min(first + groups_a_block_, n_groups_);
      user_pass(first, last);
      if (item_pass_) item_pass(first, last);
    }
  }

 private:
  int64_t target(int64_t b) const { return masks_.target(b); }
  int64_t rows_in_group(int64_t g) const { return std::min<int64_t>(kTile, B_ - g * kTile); }
  int64_t items_in_panel(int64_t p) const { return std::min<int64_t>(kTile, M_ - p * kTile); }
  T positive_tau(int64_t b) const {
    return terms_.positive_tau != nullptr ? terms_.positive_tau[b] : terms_.tau[b];
  }
  // A panel's exponentials for a whole block of users lie together, [48][users of the block].
  ExpTile<Cell> stash(int64_t block_group, int64_t panel) const {
    return {stash_cells_.get() + panel * kTile * stash_stride_ + block_group * kTile,
            stash_stride_};
  }
  void prepare_users() {
    const int64_t rows = n_groups_ * kTile;
    users_ = Buffer<T>(rows * ld_);
    positives_ = Buffer<T>(rows * ld_);
    user_inverse_norm_ = Buffer<T>(rows);
    positive_score_ = Buffer<T>(rows);
    tau_lanes_ = Buffer<T>(rows, T(0));
    if (gradients_) {
      weighted_o_ = Buffer<T>(splits_ * groups_a_block_ * kTile * ld_);
      coefficient_ = Buffer<T>(rows, T(0));
      positive_coefficient_ = Buffer<T>(rows, T(0));
    }
    states_.resize(splits_ * groups_a_block_);
    for_each_task(parallel_, n_groups_, [&](int64_t g, int) {
      const int64_t first = g * kTile, n = rows_in_group(g);
      T* users = users_.get() + first * ld_;
      std::fill_n(users, kTile * ld_, T(0));
      read_rows(p_.users, first, n, terms_.normalize.user, kernels_, users, ld_,
                user_inverse_norm_.get() + first);
      T scale[kTile];
      for (int64_t l = 0; l < n; ++l) {
        const int64_t b = first + l;
        T* positive = positives_.get() + b * ld_;
        read_rows(p_.items, target(b), 1, terms_.normalize.item, kernels_, positive, ld_,
                  static_cast<T*>(nullptr));
        tau_lanes_[b] = terms_.tau[b];
        scale[l] = static_cast<T>(kLog2e / terms_.tau[b]);
      }
      kernels_.row_products(n, ld_, users, ld_, positives_.get() + first * ld_, ld_,
                            positive_score_.get() + first);
      products_.set_users(g, n, users, scale);
    });
  }

  Worker& scratch(int worker) {
    Worker& s = scratch_[worker];
    if (s.panel_rows.get() == nullptr) {
      s.panel_rows = Buffer<T>(kTile * ld_);
      s.inverse_norms = Buffer<T>(kTile);
      s.tile = Buffer<Cell>(kTile * kTile);
      s.lane_max = Buffer<T>(kTile);
      if (item_pass_) s.grad = Buffer<T>(kTile * ld_);
      s.products = products_.scratch();
    }
    return s;
  }

  void read_items(int64_t panel, T* rows, T* inverse_norm) const {
    const int64_t items = items_in_panel(panel);
    read_rows(p_.items, panel * kTile, items, terms_.normalize.item, kernels_, rows, ld_,
              inverse_norm);
    std::fill_n(rows + items * ld_, (kTile - items) * ld_, T(0));
  }
  void prepare_items() {
    unit_rows_ = Buffer<T>(n_panels_ * kTile * ld_);
    unit_inverse_norms_ = Buffer<T>(n_panels_ * kTile);
    for_each_task(parallel_, n_panels_, [&](int64_t panel, int) {
      read_items(panel, unit_rows_.get() + panel * kTile * ld_,
                 unit_inverse_norms_.get() + panel * kTile);
    });
  }
  void read_panel(int64_t panel, Worker& s) {
    if (keep_items_) {
      s.panel = unit_rows_.get() + panel * kTile * ld_;
      s.inverse_norm = unit_inverse_norms_.get() + panel * kTile;
    } else {
      read_items(panel, s.panel_rows.get(), s.inverse_norms.get());
      s.panel = s.panel_rows.get(), s.inverse_norm = s.inverse_norms.get();
    }
    products_.set_panel(items_in_panel(panel), s.panel, s.products);
  }

  // Base-2 scores in memory, what is masked at -inf.
  ExpTile<T> score(int64_t panel, int64_t g, const MaskedScores& masked, const ExpTile<Cell>& out,
                   Worker& s) {
    const int64_t items = items_in_panel(panel), lanes = active_lanes<T>(rows_in_group(g));
    const ExpTile<T> tile = products_.scores(g, items, lanes, s.panel, out, s.products);
    for (int64_t m = 0; m < masked.count; ++m)
      tile.cells[masked.at[m] / kTile * tile.stride + masked.at[m] % kTile] =
          -std::numeric_limits<T>::infinity();
    return tile;
  }

  void subtract_log_q(int64_t panel, int64_t lanes, const ExpTile<T>& tile) {
    for (int64_t j = 0; j < items_in_panel(panel); ++j) {
      const T bias = static_cast<T>(terms_.log_q[panel * kTile + j] * kLog2e);
      for (int64_t l = 0; l < lanes; ++l) tile.cells[j * tile.stride + l] -= bias;
    }
  }

  // Moves shifts up to the tile's maximum where it exceeds them by far; returns the sums' and O's
  // factors in lane_max (1 where nothing moved), and whether anything moved.
  static bool raise_shift(int64_t lanes, const T* inv_k, T* lane_max, T* shift, double* sum) {
    bool moved = false;
    for (int64_t l = 0; l < lanes; ++l) {
      const T top = inv_k != nullptr ? lane_max[l] * inv_k[l] : lane_max[l];
      lane_max[l] = 1;
      if (!(top > shift[l] + T(kMaxShiftLag))) continue;
      lane_max[l] = std::exp2(shift[l] - top);
      sum[l] *= lane_max[l];
      shift[l] = top;
      moved = true;
    }
    return moved;
  }

  void reset(int64_t g, GroupState<T>& state) {
    for (int64_t l = 0; l < kTile; ++l) {
      const int64_t b = g * kTile + l;
      const T unset = std::numeric_limits<T>::lowest() / 4;
      const T bound = static_cast<T>(kLog2e / (b < B_ ? terms_.tau[b] : 1));
      state.shift[l] = online_ ? unset : bound;
      state.unit_shift[l] = online_ ? unset : T(0);
      state.sum[l] = state.unit_sum[l] = 0;
    }
  }

  // One tile of the first pass: scores -> exponentials, sums, O.
  void accumulate(int64_t panel, int64_t g, const ExpTile<Cell>& out, T* o, GroupState<T>& state,
                  Worker& s) {
    const int64_t items = items_in_panel(panel), lanes = active_lanes<T>(rows_in_group(g));
    const ExpState<T> lanes_state{state.shift, state.sum, tau_lanes_.get() + g * kTile,
                                  state.unit_shift, state.unit_sum};
    uint16_t at[kTile * kTile];
    const MaskedScores masked = masks_.of_tile(panel, items, g, s.cursor, at);
    if (one_pass_ && masked.count <= kMostMasked) {
      products_.exp_scores(g, items, lanes, s.panel, masked, lanes_state, out, s.products);
    } else {
      const ExpTile<T> tile = score(panel, g, masked, out, s);
      exponentiate(panel, g, tile, o, state, lanes_state, s);
      products_.keep_tile(items, tile, out, s.products);
    }
    if (gradients_) products_.add_items(rows_in_group(g), items, out, s.panel, o, s.products);
  }

  void exponentiate(int64_t panel, int64_t g, const ExpTile<T>& tile, T* o, GroupState<T>& state,
                    const ExpState<T>& lanes_state, Worker& s) {
    const int64_t items = items_in_panel(panel), lanes = active_lanes<T>(rows_in_group(g));
    auto tile_max = [&] {
      std::fill_n(s.lane_max.get(), kTile, -std::numeric_limits<T>::infinity());
      kernels_.max_tile(items, lanes, tile.cells, tile.stride, s.lane_max.get());
    };
    if (out_.unit_loss != nullptr) {
      if (online_) {
        tile_max();
        raise_shift(lanes, lanes_state.inv_k, s.lane_max.get(), state.unit_shift, state.unit_sum);
      }
      kernels_.unit_tile(items, lanes, tile.cells, tile.stride, lanes_state);
    }
    if (terms_.log_q != nullptr) subtract_log_q(panel, lanes, tile);
    if (online_) {
      tile_max();
      if (raise_shift(lanes, nullptr, s.lane_max.get(), state.shift, state.sum) && gradients_)
        for (int64_t l = 0; l < rows_in_group(g); ++l)
          for (int64_t k = 0; k < ld_; ++k) o[l * ld_ + k] *= s.lane_max[l];
    }
    kernels_.exp_tile(items, lanes, tile.cells, tile.stride, lanes_state);
  }

  T* weighted_o(int64_t split, int64_t block_group) const {
    return weighted_o_.get() + (split * groups_a_block_ + block_group) * kTile * ld_;
  }
  GroupState<T>& state(int64_t split, int64_t block_group) {
    return states_[split * groups_a_block_ + block_group];
  }

  void user_pass(int64_t first_group, int64_t last_group) {
    const int64_t n = last_group - first_group;
    // every task reads all of its panels: few, large ones, but one for each worker
    const int64_t a_task =
        std::max<int64_t>(1, std::min(kGroupsPerTask, n * splits_ / parallel_.workers));
    const int64_t blocks = (n + a_task - 1) / a_task;
    for_each_task(parallel_, blocks * splits_, [&](int64_t task, int worker) {
      Worker& s = scratch(worker);
      const int64_t split = task / blocks, i0 = task % blocks * a_task;
      const int64_t i1 = std::min(i0 + a_task, n);
      const int64_t p0 = n_panels_ * split / splits_, p1 = n_panels_ * (split + 1) / splits_;
      for (int64_t i = i0; i < i1; ++i) {
        reset(first_group + i, state(split, i));
        if (gradients_) std::fill_n(weighted_o(split, i), kTile * ld_, T(0));
      }
      s.cursor.seek(masks_, first_group + i0, first_group + i1, p0);
      for (int64_t panel = p0; panel < p1; ++panel) {
        read_panel(panel, s);
        for (int64_t i = i0; i < i1; ++i)
          accumulate(panel, first_group + i,
                     stash_ ? stash(i, panel) : ExpTile<Cell>{s.tile.get(), kTile},
                     gradients_ ? weighted_o(split, i) : nullptr, state(split, i), s);
      }
    });
    for_each_task(parallel_, n, [&](int64_t i, int) {
      merge_splits(i, rows_in_group(first_group + i));
      finish_group(first_group + i, state(0, i), gradients_ ? weighted_o(0, i) : nullptr);
    });
  }

  void merge_splits(int64_t block_group, int64_t rows) {
    GroupState<T>& into = state(0, block_group);
    for (int64_t split = 1; split < splits_; ++split) {
      const GroupState<T>& from = state(split, block_group);
      for (int64_t l = 0; l < rows; ++l) {
        const T top = std::max(into.shift[l], from.shift[l]);
        const T keep = std::exp2(into.shift[l] - top), add = std::exp2(from.shift[l] - top);
        into.sum[l] = into.sum[l] * keep + from.sum[l] * add;
        into.shift[l] = top;
        const T unit_top = std::max(into.unit_shift[l], from.unit_shift[l]);
        into.unit_sum[l] = into.unit_sum[l] * std::exp2(into.unit_shift[l] - unit_top) +
                           from.unit_sum[l] * std::exp2(from.unit_shift[l] - unit_top);
        into.unit_shift[l] = unit_top;
        if (!gradients_) continue;
        T* o = weighted_o(0, block_group) + l * ld_;
        const T* other = weighted_o(split, block_group) + l * ld_;
        for (int64_t k = 0; k < ld_; ++k) o[k] = o[k] * keep + other[k] * add;
      }
    }
  }

  void finish_group(int64_t g, const GroupState<T>& state, T* o) {
    Buffer<T> weighted(item_pass_ ? kTile * ld_ : 0);
    T along[kTile] = {};
    if (gradients_)
      kernels_.row_products(rows_in_group(g), ld_, users_.get() + g * kTile * ld_, ld_, o, ld_,
                            along);
    for (int64_t l = 0; l < rows_in_group(g); ++l)
      finish_row(g * kTile + l, l, state, along[l], o + (gradients_ ? l * ld_ : 0),
                 weighted.get() + (item_pass_ ? l * ld_ : 0));
    if (item_pass_) products_.set_weighted(g, rows_in_group(g), weighted.get());
  }

  // Loss and the user's side of the gradient, from Z and O.
  // user_dot_o = <u^, O>; weighted receives the user's row as the item pass wants it.
  void finish_row(int64_t b, int64_t l, const GroupState<T>& state, T user_dot_o, T* o,
                  T* weighted) {
    const double s = positive_score_[b];
    const RowTerms row = finish_losses(
        terms_, b, target(b),
        {state.shift[l] * kLn2, state.sum[l], state.unit_shift[l] * kLn2, state.unit_sum[l], s},
        out_);
    if (!gradients_) return;
    coefficient_[b] = static_cast<T>(row.coefficient);
    positive_coefficient_[b] = static_cast<T>(row.positive);
    const T* user = users_.get() + b * ld_;
    const T* positive = positives_.get() + b * ld_;
    finish_temperatures(terms_, b, row, user_dot_o, s, out_);
    const T from_negatives = static_cast<T>(row.coefficient * row.inv_tau);
    const T from_positive = static_cast<T>(row.positive * row.inv_positive_tau);
    if (item_pass_)
      for (int64_t k = 0; k < ld_; ++k) weighted[k] = user[k] * from_negatives;
    if (out_.grad_users == nullptr) return;
    for (int64_t k = 0; k < ld_; ++k) o[k] = o[k] * from_negatives + positive[k] * from_positive;
    if (terms_.normalize.user) kernels_.normalize_backward(1, ld_, user, &user_inverse_norm_[b], o);
    std::copy_n(o, d_, out_.grad_users + b * d_);
  }

  void item_pass(int64_t first_group, int64_t last_group) {
    const bool first = first_group == 0, last = last_group == n_groups_;
    const int64_t users = std::min(last_group * kTile, B_) - first_group * kTile;
    const int64_t a_task =
        std::max<int64_t>(1, std::min(kPanelsPerTask, n_panels_ / (4 * parallel_.workers)));
    for_each_task(parallel_, (n_panels_ + a_task - 1) / a_task, [&](int64_t task, int worker) {
      Worker& s = scratch(worker);
      const int64_t p0 = task * a_task, p1 = std::min(p0 + a_task, n_panels_);
      if (!stash_) s.cursor.seek(masks_, first_group, last_group, p0);
      for (int64_t panel = p0; panel < p1; ++panel) {
        T* grad = open_rows(panel, first, s);
        if (!stash_ || last) read_panel(panel, s);
        if (stash_) {
          add_tile(panel, first_group, users, stash(0, panel), grad);
        } else {
          for (int64_t g = first_group; g < last_group; ++g)
            add_tile(panel, g, rows_in_group(g), recompute(panel, g, state(0, g - first_group), s),
                     grad);
        }
        if (last) finish_items(panel, grad, s);
        close_rows(panel, grad);
      }
    });
  }

  // Gradient of a panel's items from users [first group * 48, + n).
  void add_tile(int64_t panel, int64_t first_group, int64_t n, const ExpTile<Cell>& tile, T* grad) {
    products_.add_users(first_group, n, items_in_panel(panel), tile, grad);
    if (out_.grad_log_q != nullptr) add_log_q_gradient(panel, first_group, n, tile);
  }

  ExpTile<Cell> recompute(int64_t panel, int64_t g, const GroupState<T>& state, Worker& s) {
    const int64_t items = items_in_panel(panel), lanes = active_lanes<T>(rows_in_group(g));
    const ExpTile<Cell> out{s.tile.get(), kTile};
    double unused[kTile] = {};
    const ExpState<T> shifts{const_cast<T*>(state.shift), unused, nullptr, nullptr, nullptr};
    uint16_t at[kTile * kTile];
    const MaskedScores masked = masks_.of_tile(panel, items, g, s.cursor, at);
    if (terms_.log_q == nullptr && masked.count <= kMostMasked) {
      products_.exp_scores(g, items, lanes, s.panel, masked, shifts, out, s.products);
      return out;
    }
    const ExpTile<T> tile = score(panel, g, masked, out, s);
    if (terms_.log_q != nullptr) subtract_log_q(panel, lanes, tile);
    kernels_.exp_tile(items, lanes, tile.cells, tile.stride, shifts);
    products_.keep_tile(items, tile, out, s.products);
    return out;
  }

  void add_log_q_gradient(int64_t panel, int64_t first_group, int64_t n,
                          const ExpTile<Cell>& tile) {
    const T* coefficient = coefficient_.get() + first_group * kTile;
    for (int64_t j = 0; j < items_in_panel(panel); ++j) {
      T& grad = out_.grad_log_q[panel * kTile + j];
      T sum = 0;
      for (int64_t l = 0; l < n; ++l)
        sum += as_value(tile.cells[j * tile.stride + l]) * coefficient[l];
      grad = (first_group == 0 ? T(0) : grad) - sum;
    }
  }
  static T as_value(T cell) { return cell; }
  static float as_value(uint16_t cell) { return bf16_to_f32(cell); }

  // The positives' share, and the chain rule through the items' normalisation.
  void finish_items(int64_t panel, T* grad, const Worker& s) {
    const int64_t items = items_in_panel(panel), first = panel * kTile;
    masks_.for_each_positive(first, items, [&](int64_t b) {
      kernels_.axpy(ld_, positive_coefficient_[b] / positive_tau(b), users_.get() + b * ld_,
                    grad + (target(b) - first) * ld_);
      if (out_.grad_log_q != nullptr && terms_.denominator == Denominator::all)
        out_.grad_log_q[target(b)] -= positive_coefficient_[b];
    });
    if (terms_.normalize.item)
      kernels_.normalize_backward(items, ld_, s.panel, s.inverse_norm, grad);
  }

  // The gradient's rows of a panel, padded to ld: in place where they are as long as that.
  bool rows_in_place() const { return out_.grad_items != nullptr && d_ == ld_; }
  T* open_rows(int64_t panel, bool first, const Worker& s) {
    const int64_t items = items_in_panel(panel);
    T* out = out_.grad_items + (rows_in_place() ? panel * kTile * d_ : 0);
    T* grad = rows_in_place() ? out : s.grad.get();
    if (first) {
      std::fill_n(grad, items * ld_, T(0));
    } else if (out_.grad_items != nullptr && !rows_in_place()) {
      for (int64_t j = 0; j < items; ++j)
        std::copy_n(out_.grad_items + (panel * kTile + j) * d_, d_, grad + j * ld_);
    }
    return grad;
  }
  void close_rows(int64_t panel, const T* grad) {
    if (out_.grad_items == nullptr || rows_in_place()) return;
    for (int64_t j = 0; j < items_in_panel(panel); ++j)
      std::copy_n(grad + j * ld_, d_, out_.grad_items + (panel * kTile + j) * d_);
  }

  const SoftmaxProblem<T>& p_;
  const SoftmaxTerms<T>& terms_;
  const SoftmaxOutput<T>& out_;
  const Parallel& parallel_;
  const Kernels<T>& kernels_;
  const int64_t B_, M_, d_, ld_, n_groups_, n_panels_;
  const TileMasks masks_;
  const bool gradients_, item_pass_;
  bool online_, one_pass_, keep_items_, stash_;
  int64_t splits_, groups_a_block_, stash_stride_;

  Products products_;
  Buffer<T> users_, positives_;                               // [B, ld] normalised as asked
  Buffer<T> user_inverse_norm_, positive_score_, tau_lanes_;  // [B]
  Buffer<T> coefficient_, positive_coefficient_;              // [B]
  Buffer<T> unit_rows_, unit_inverse_norms_;  // [M, ld], [M]: where they fit, read once
  Buffer<T> weighted_o_;                      // [split][block users, ld] O, then dL/du
  Buffer<Cell> stash_cells_;                  // [panel][48][block users]
  std::vector<GroupState<T>> states_;         // [split][block group]
  std::vector<Worker> scratch_;
};

}  // namespace

template <class T>
void fused_softmax(const SoftmaxProblem<T>& problem, const SoftmaxOutput<T>& out,
                   const Parallel& parallel, int64_t workspace_bytes) {
  if constexpr (std::is_same_v<T, float>) {
    if (problem.precision == Precision::bfloat16 && active_kernels<T>().gemm_bf16 != nullptr)
      return FusedSoftmax<T, Bf16Products>(problem, out, parallel, workspace_bytes).run();
  }
  FusedSoftmax<T, PlainProducts<T>>(problem, out, parallel, workspace_bytes).run();
}

template void fused_softmax<float>(const SoftmaxProblem<float>&, const SoftmaxOutput<float>&,
                                   const Parallel&, int64_t);
template void fused_softmax<double>(const SoftmaxProblem<double>&, const SoftmaxOutput<double>&,
                                    const Parallel&, int64_t);

}  // namespace adaptau
