// The adaptive-temperature soft-max over every candidate, without a [B, M] matrix.
//
// First pass, one owner a group of 48 users: panels of 96 items stream by; their scores become
// exponentials in registers (exp_tiles.h), and at once Z_b += sum_j e_bj and
// O_b += sum_j e_bj i^_j (flash attention with K = V = items). Z and O are all that loss, dL/du,
// dL/dtau need. Second pass, one owner a panel of items: dL/di^_j = sum_b e_bj w_b u^_b, from
// exponentials stashed by the first pass when a block of users fits the workspace, else recomputed.
// The products themselves are in softmax_products.h.
//
// The positive is masked out of every tile and put back exactly, so that p - 1 never cancels.
//
// Every sum has a fixed order that depends on the shape and the workspace alone: the result is the
// same bit for bit on any number of threads.
#include "exp_tiles.h"
#include "operators.h"

namespace adaptau {
namespace {

constexpr int64_t kGroupsPerTask = 8, kPanelsPerTask = 8;
constexpr int64_t kGroupsPerBlock = 8;  // their rows stay in the second-level cache
constexpr int64_t kTasksPerBlock = 8;   // of the first pass, where there are items enough to split

template <class T, class Products>
class FusedSoftmax {
  using Cell = typename Products::Cell;

  struct Panel {
    Buffer<T> rows, inverse_norm;  // [96, ld] normalised as asked, zero beyond the items; [96]
    typename Products::Panel factors;
  };
  struct Worker {
    Panel panel;
    Buffer<T> grad;
    Buffer<Cell> cells;  // exponentials of a panel and a group, where nothing is stashed
    typename ExpTiles<T, Products>::Worker tiles;
  };

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
        n_panels_((M_ + kPanel - 1) / kPanel),
        gradients_(out_.weight != nullptr),
        item_pass_(gradients_ && (out_.grad_items != nullptr || out_.grad_log_q != nullptr)),
        masks_(B_, p_.target, p_.masked),
        products_(kernels_, n_groups_, ld_, item_pass_),
        tiles_(terms_, B_, out_.unit_loss != nullptr, kernels_, masks_, products_) {
    divide(workspace_bytes);
    workers_.resize(parallel_.workers);
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
  int64_t items_in_panel(int64_t p) const { return std::min<int64_t>(kPanel, M_ - p * kPanel); }
  T positive_tau(int64_t b) const {
    return terms_.positive_tau != nullptr ? terms_.positive_tau[b] : terms_.tau[b];
  }

  // What is kept, and how the work is cut: by the shape and the workspace alone, never the threads.
  void divide(int64_t workspace_bytes) {
    const int64_t item_bytes = n_panels_ * kPanel * ld_ * static_cast<int64_t>(sizeof(T));
    keep_items_ = n_groups_ > kGroupsPerBlock && item_bytes <= workspace_bytes / 4;
    if (keep_items_) workspace_bytes -= item_bytes;

    constexpr int64_t cell = sizeof(Cell), line = kRowAlign / cell;
    const int64_t users = workspace_bytes / std::max<int64_t>(1, n_panels_ * kPanel * cell) - line;
    const int64_t fitting = std::max<int64_t>(0, users / kTile);
    stash_ = item_pass_ && !tiles_.online() && (fitting >= 2 || fitting >= n_groups_);
    groups_a_block_ = std::min(n_groups_, stash_ ? std::min(fitting, kGroupsPerBlock) : n_groups_);
    // one cache line more than the users take, so that rows do not fall into the same few sets
    stash_stride_ = groups_a_block_ * kTile + line;
    if (stash_) stash_cells_ = Buffer<Cell>(n_panels_ * kPanel * stash_stride_);
    splits_ = std::max<int64_t>(
        1, std::min(kTasksPerBlock / std::max<int64_t>(1, groups_a_block_), n_panels_ / 32));
  }

  // A panel's exponentials for a whole block of users lie together, [96][users of the block].
  ExpTile<Cell> stash(int64_t block_group, int64_t panel) const {
    return {stash_cells_.get() + panel * kPanel * stash_stride_ + block_group * kTile,
            stash_stride_};
  }

  void prepare_users() {
    const int64_t rows = n_groups_ * kTile;
    users_ = Buffer<T>(rows * ld_);
    positives_ = Buffer<T>(rows * ld_);
    user_inverse_norm_ = Buffer<T>(rows);
    positive_score_ = Buffer<T>(rows);
    if (gradients_) {
      weighted_o_ = Buffer<T>(splits_ * groups_a_block_ * kTile * ld_);
      coefficient_ = Buffer<T>(rows, T(0));
      positive_coefficient_ = Buffer<T>(rows, T(0));
    }
    states_.resize(splits_ * groups_a_block_);
    for_each_task(parallel_, n_groups_, [&](int64_t g, int) {
      const int64_t first = g * kTile, n = rows_in_group(g);
      T* users = users_.get() + first * ld_;
      T* positives = positives_.get() + first * ld_;
      read_rows(p_.users, first, n, terms_.normalize.user, kernels_, users, ld_,
                user_inverse_norm_.get() + first);
      T scale[kTile];
      for (int64_t l = 0; l < n; ++l) {
        if (target(first + l) >= 0) {
          read_rows(p_.items, target(first + l), 1, terms_.normalize.item, kernels_,
                    positives + l * ld_, ld_, static_cast<T*>(nullptr));
        } else {
          std::fill_n(positives + l * ld_, ld_, T(0));
        }
        scale[l] = static_cast<T>(kLog2e / terms_.tau[first + l]);
      }
      kernels_.row_products(n, ld_, users, ld_, positives, ld_, positive_score_.get() + first);
      products_.set_users(g, n, users, scale);
    });
  }

  Worker& worker(int index) {
    Worker& w = workers_[index];
    if (w.cells.get() != nullptr) return w;
    w.panel = new_panel();
    w.cells = Buffer<Cell>(kPanel * kTile);
    if (item_pass_) w.grad = Buffer<T>(kPanel * ld_);
    w.tiles.products = products_.scratch();
    return w;
  }

  Panel new_panel() const {
    return {Buffer<T>(kPanel * ld_), Buffer<T>(kPanel), products_.panel()};
  }
  void read_items(int64_t p, Panel& panel) const {
    const int64_t items = items_in_panel(p);
    read_rows(p_.items, p * kPanel, items, terms_.normalize.item, kernels_, panel.rows.get(), ld_,
              panel.inverse_norm.get());
    std::fill_n(panel.rows.get() + items * ld_, (kPanel - items) * ld_, T(0));
    products_.set_panel(panel.rows.get(), panel.factors);
  }
  void prepare_items() {
    panels_.resize(n_panels_);
    for_each_task(parallel_, n_panels_, [&](int64_t p, int) {
      panels_[p] = new_panel();
      read_items(p, panels_[p]);
    });
  }
  const Panel& panel(int64_t p, Worker& w) const {
    if (keep_items_) return panels_[p];
    read_items(p, w.panel);
    return w.panel;
  }

  // f(place, its exponentials) for the tiles of a panel and a group.
  template <class F>
  void for_each_tile(int64_t panel, int64_t g, const ExpTile<Cell>& out, F&& f) const {
    for (int64_t row = 0; row < items_in_panel(panel); row += kTile)
      f(TilePlace{g, panel * kPanel + row, row,
                  std::min<int64_t>(kTile, items_in_panel(panel) - row)},
        out.from_item(row));
  }

  // --- first pass ------------------------------------------------------------------------------

  T* weighted_o(int64_t split, int64_t block_group) const {
    if (!gradients_) return nullptr;
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
    const int64_t tasks = (n + a_task - 1) / a_task;
    for_each_task(parallel_, tasks * splits_, [&](int64_t task, int index) {
      Worker& w = worker(index);
      [[maybe_unused]] const typename Products::Session session(kernels_);
      const int64_t split = task / tasks, i0 = task % tasks * a_task, i1 = std::min(i0 + a_task, n);
      const int64_t p0 = n_panels_ * split / splits_, p1 = n_panels_ * (split + 1) / splits_;
      for (int64_t i = i0; i < i1; ++i) {
        tiles_.reset(first_group + i, state(split, i));
        if (gradients_) std::fill_n(weighted_o(split, i), kTile * ld_, T(0));
      }
      w.tiles.cursor.seek(masks_, first_group + i0, first_group + i1, p0 * kPanel);
      for (int64_t p = p0; p < p1; ++p) {
        const Panel& items = panel(p, w);
        for (int64_t i = i0; i < i1; ++i) {
          const ExpTile<Cell> out = stash_ ? stash(i, p) : ExpTile<Cell>{w.cells.get(), kTile};
          accumulate(p, items, first_group + i, out, weighted_o(split, i), state(split, i), w);
        }
      }
      if (gradients_)
        for (int64_t i = i0; i < i1; ++i) Products::finish_o(ld_, weighted_o(split, i));
    });
    for_each_task(parallel_, n, [&](int64_t i, int) {
      const int64_t rows = rows_in_group(first_group + i);
      for (int64_t split = 1; split < splits_; ++split)
        merge_state(state(split, i), rows, ld_, weighted_o(split, i), state(0, i),
                    weighted_o(0, i));
      finish_group(first_group + i, state(0, i), weighted_o(0, i));
    });
  }

  // A panel and a group: exponentials, sums, O.
  void accumulate(int64_t p, const Panel& items, int64_t g, const ExpTile<Cell>& out, T* o,
                  GroupState<T>& state, Worker& w) {
    for_each_tile(p, g, out, [&](const TilePlace& at, const ExpTile<Cell>& tile) {
      tiles_.make(at, items.factors, tile, o, ld_, state, w.tiles);
      if (tiles_.online() && gradients_)  // before the next tile moves the shift
        products_.add_items(rows_in_group(g), at.row, at.items, tile, items.factors, o,
                            w.tiles.products);
    });
    if (!tiles_.online() && gradients_)
      products_.add_items(rows_in_group(g), 0, items_in_panel(p), out, items.factors, o,
                          w.tiles.products);
  }

  // Losses and the users' side of the gradient, from Z and O.
  void finish_group(int64_t g, const GroupState<T>& state, T* o) {
    const int64_t first = g * kTile, rows = rows_in_group(g);
    Buffer<T> weighted(item_pass_ ? kTile * ld_ : 0);  // users as the item pass wants them
    T user_dot_o[kTile] = {};
    if (gradients_)
      kernels_.row_products(rows, ld_, users_.get() + first * ld_, ld_, o, ld_, user_dot_o);
    for (int64_t l = 0; l < rows; ++l) {
      const RowTerms row =
          finish_losses(terms_, first + l, target(first + l),
                        {state.shift[l] * kLn2, state.sum[l], state.unit_shift[l] * kLn2,
                         state.unit_sum[l], finite_or_nan(positive_score_[first + l])},
                        out_);
      if (gradients_)
        finish_row(first + l, row, user_dot_o[l], o + l * ld_,
                   item_pass_ ? weighted.get() + l * ld_ : nullptr);
    }
    if (item_pass_) products_.set_weighted(g, rows, weighted.get());
  }

  void finish_row(int64_t b, const RowTerms& row, T user_dot_o, T* o, T* weighted) {
    coefficient_[b] = static_cast<T>(row.coefficient);
    positive_coefficient_[b] = static_cast<T>(row.positive);
    finish_temperatures(terms_, b, row, user_dot_o, positive_score_[b], out_);
    const T* user = users_.get() + b * ld_;
    const T* positive = positives_.get() + b * ld_;
    const T from_negatives = static_cast<T>(row.coefficient * row.inv_tau);
    const T from_positive = static_cast<T>(row.positive * row.inv_positive_tau);
    if (weighted != nullptr)
      for (int64_t k = 0; k < ld_; ++k) weighted[k] = user[k] * from_negatives;
    if (out_.grad_users == nullptr) return;
    for (int64_t k = 0; k < ld_; ++k) o[k] = o[k] * from_negatives + positive[k] * from_positive;
    if (terms_.normalize.user) kernels_.normalize_backward(1, ld_, user, &user_inverse_norm_[b], o);
    std::copy_n(o, d_, out_.grad_users + b * d_);
  }

  // --- second pass -----------------------------------------------------------------------------

  void item_pass(int64_t first_group, int64_t last_group) {
    const bool first = first_group == 0, last = last_group == n_groups_;
    const int64_t users = std::min(last_group * kTile, B_) - first_group * kTile;
    const int64_t a_task =
        std::max<int64_t>(1, std::min(kPanelsPerTask, n_panels_ / (4 * parallel_.workers)));
    for_each_task(parallel_, (n_panels_ + a_task - 1) / a_task, [&](int64_t task, int index) {
      Worker& w = worker(index);
      [[maybe_unused]] const typename Products::Session session(kernels_);
      const int64_t p0 = task * a_task, p1 = std::min(p0 + a_task, n_panels_);
      if (!stash_) w.tiles.cursor.seek(masks_, first_group, last_group, p0 * kPanel);
      for (int64_t p = p0; p < p1; ++p) {
        T* grad = open_rows(p, first, w);
        const Panel* items = !stash_ || last ? &panel(p, w) : nullptr;
        if (stash_) {
          add_users(p, first_group, users, stash(0, p), grad);
        } else {
          for (int64_t g = first_group; g < last_group; ++g) {
            const ExpTile<Cell> out{w.cells.get(), kTile};
            for_each_tile(p, g, out, [&](const TilePlace& at, const ExpTile<Cell>& tile) {
              tiles_.remake(at, items->factors, tile, state(0, g - first_group), w.tiles);
            });
            add_users(p, g, rows_in_group(g), out, grad);
          }
        }
        if (last) finish_items(p, *items, grad);
        close_rows(p, grad);
      }
    });
  }

  // Gradient of a panel's items from users [first group * 48, + n).
  void add_users(int64_t panel, int64_t first_group, int64_t n, const ExpTile<Cell>& tile,
                 T* grad) {
    products_.add_users(first_group, n, items_in_panel(panel), tile, grad);
    if (out_.grad_log_q == nullptr) return;
    const T* coefficient = coefficient_.get() + first_group * kTile;
    for (int64_t j = 0; j < items_in_panel(panel); ++j) {
      T& log_q_grad = out_.grad_log_q[panel * kPanel + j];
      T sum = 0;
      for (int64_t l = 0; l < n; ++l)
        sum += as_value(tile.cells[j * tile.stride + l]) * coefficient[l];
      log_q_grad = (first_group == 0 ? T(0) : log_q_grad) - sum;
    }
  }
  static T as_value(T cell) { return cell; }
  static float as_value(uint16_t cell) { return bf16_to_f32(cell); }

  // The positives' share, and the chain rule through the items' normalisation.
  void finish_items(int64_t p, const Panel& panel, T* grad) {
    const int64_t items = items_in_panel(p), first = p * kPanel;
    masks_.for_each_positive(first, items, [&](int64_t b) {
      kernels_.axpy(ld_, positive_coefficient_[b] / positive_tau(b), users_.get() + b * ld_,
                    grad + (target(b) - first) * ld_);
      if (out_.grad_log_q != nullptr && terms_.denominator == Denominator::all)
        out_.grad_log_q[target(b)] -= positive_coefficient_[b];
    });
    if (terms_.normalize.item)
      kernels_.normalize_backward(items, ld_, panel.rows.get(), panel.inverse_norm.get(), grad);
  }

  // The gradient's rows of a panel, padded to ld: in place where they are as long as that.
  bool rows_in_place() const { return out_.grad_items != nullptr && d_ == ld_; }
  T* open_rows(int64_t panel, bool first, const Worker& w) {
    const int64_t items = items_in_panel(panel);
    T* grad = rows_in_place() ? out_.grad_items + panel * kPanel * d_ : w.grad.get();
    if (first) {
      std::fill_n(grad, items * ld_, T(0));
    } else if (out_.grad_items != nullptr && !rows_in_place()) {
      for (int64_t j = 0; j < items; ++j)
        std::copy_n(out_.grad_items + (panel * kPanel + j) * d_, d_, grad + j * ld_);
    }
    return grad;
  }
  void close_rows(int64_t panel, const T* grad) {
    if (out_.grad_items == nullptr || rows_in_place()) return;
    for (int64_t j = 0; j < items_in_panel(panel); ++j)
      std::copy_n(grad + j * ld_, d_, out_.grad_items + (panel * kPanel + j) * d_);
  }

  const SoftmaxProblem<T>& p_;
  const SoftmaxTerms<T>& terms_;
  const SoftmaxOutput<T>& out_;
  const Parallel& parallel_;
  const Kernels<T>& kernels_;
  const int64_t B_, M_, d_, ld_, n_groups_, n_panels_;
  const bool gradients_, item_pass_;
  const TileMasks masks_;
  Products products_;
  const ExpTiles<T, Products> tiles_;
  bool keep_items_ = false, stash_ = false;
  int64_t splits_ = 1, groups_a_block_ = 0, stash_stride_ = 0;

  Buffer<T> users_, positives_;                   // [B, ld] normalised as asked
  Buffer<T> user_inverse_norm_, positive_score_;  // [B]
  Buffer<T> coefficient_, positive_coefficient_;  // [B]
  Buffer<T> weighted_o_;                          // [split][block users, ld] O, then dL/du
  Buffer<Cell> stash_cells_;                      // [panel][96][block users]
  std::vector<GroupState<T>> states_;             // [split][block group]
  std::vector<Panel> panels_;                     // where they fit, read once
  std::vector<Worker> workers_;
};

}  // namespace

template <class T>
void fused_softmax(const SoftmaxProblem<T>& problem, const SoftmaxOutput<T>& out,
                   const Parallel& parallel, int64_t workspace_bytes) {
  if constexpr (std::is_same_v<T, float>) {
    if (problem.precision == Precision::bfloat16 && active_kernels<T>().gemm_tiles != nullptr)
      return FusedSoftmax<T, TileProducts>(problem, out, parallel, workspace_bytes).run();
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
