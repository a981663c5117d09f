// The adaptive-temperature soft-max over sampled negatives, without a [B, N, d] tensor.
//
// Gathering B * N item rows at random is bound by memory latency, so the samples are first sorted
// by bucket, a run of items whose rows fit the second-level cache (samples.h). Then, bucket by
// bucket,
//   scores and exponentials       owner: a run of users    e_bn, Z_b += e_bn, O_b += e_bn i^_n
//   gradient of the items         owner: the bucket        dL/di^_n += e_bn w_b u^_b
// A bucket's unit rows, then its gradients, are made in a scratch block that stays in cache; a
// user's row stays in registers. No row has two owners and every sum runs in the order of batch
// rows or buckets: bitwise the same on any number of threads.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "../core/loss_row.h"
#include "operators.h"
#include "rows.h"
#include "samples.h"

namespace adaptau {
namespace {

constexpr int64_t kRun = 32;  // items whose gradients are finished at a time

template <class T>
class SampledSoftmax {
 public:
  SampledSoftmax(const SampledProblem<T>& problem, const SoftmaxOutput<T>& out,
                 const Parallel& parallel)
      : p_(problem),
        terms_(problem.terms),
        out_(out),
        parallel_(parallel),
        kernels_(active_kernels<T>()),
        B_(p_.n_rows),
        d_(p_.item_table.cols),
        ld_(padded<T>(d_)),
        samples_(B_, p_.n_negatives, p_.item_table.rows, ld_ * static_cast<int64_t>(sizeof(T))) {
    gradients_ = out_.weight != nullptr;
    equal_ = std::all_of(out_.weight, out_.weight + (gradients_ ? B_ : 0),
                         [&](T weight) { return weight == out_.weight[0]; });
    row_squares_ = p_.item_l2 != 0 && out_.squares == nullptr;
    bounded_ = logits_are_bounded(terms_, B_);
  }

  void run() {
    samples_.sort(
        parallel_,
        [](const void* self, int64_t b, int32_t* ids) {
          static_cast<const SampledSoftmax*>(self)->draw(b, ids);
        },
        this);
    prepare_users();
    user_pass();
    const bool item_gradients =
        gradients_ && (out_.grad_items != nullptr || out_.grad_log_q != nullptr);
    if (item_gradients || out_.squares != nullptr) item_pass();
  }

 private:
  void draw(int64_t b, int32_t* ids) const {
    const int64_t n = p_.n_negatives;
    if (p_.negatives != nullptr) {
      std::copy_n(p_.negatives + b * n, n, ids);
    } else {
      kernels_.draw_row(p_.seed, b, n, static_cast<uint32_t>(p_.item_table.rows), ids);
    }
  }

  // Unit rows of items [first, first + n), and their 1 / |i| (1 where they are taken as they are).
  void read_items(int64_t first, int64_t n, T* rows, T* inverse_norm) const {
    read_rows(p_.item_table, first, n, terms_.normalize.item, kernels_, rows, ld_, inverse_norm);
  }
  // |i|^2 of the raw row, given what read_items made of it.
  T square_of_item(const T* row, T inverse_norm) const {
    if (terms_.normalize.item) return inverse_norm == 0 ? 0 : 1 / (inverse_norm * inverse_norm);
    T square;
    kernels_.row_products(1, ld_, row, ld_, row, ld_, &square);
    return square;
  }

  void prepare_users() {
    users_ = Buffer<T>(B_ * ld_);
    positives_ = Buffer<T>(B_ * ld_);
    user_inverse_norm_ = Buffer<T>(B_);
    positive_score_ = Buffer<T>(B_);
    scale_ = Buffer<T>(B_);
    shift_ = Buffer<T>(B_);
    unit_shift_ = Buffer<T>(B_, T(0));  // cosines are at most 1: none needed
    sum_ = Buffer<double>(B_, 0.0);
    unit_sum_ = Buffer<double>(B_, 0.0);
    squares_ = Buffer<double>(B_, 0.0);
    if (gradients_) {
      o_ = Buffer<T>(B_ * ld_, T(0));
      terms_of_row_.resize(B_);
    }
    for_each_task(parallel_, (B_ + kTile - 1) / kTile, [&](int64_t task, int) {
      const int64_t first = task * kTile, last = std::min(first + kTile, B_);
      for (int64_t b = first; b < last; ++b) {
        T* user = users_.get() + b * ld_;
        T* positive = positives_.get() + b * ld_;
        T item_inverse_norm;
        read_rows(p_.user_table, p_.users != nullptr ? p_.users[b] : b, 1, terms_.normalize.user,
                  kernels_, user, ld_, &user_inverse_norm_[b]);
        read_items(p_.positives[b], 1, positive, &item_inverse_norm);
        if (row_squares_) squares_[b] = square_of_item(positive, item_inverse_norm);
        shift_[b] = scale_[b] = static_cast<T>(kLog2e / terms_.tau[b]);
      }
      dot_users(first, last, positives_.get(), positive_score_.get() + first);
    });
  }

  // out[i] = <u^_b, x_b> of rows b = first + i < last, at most kTile
  void dot_users(int64_t first, int64_t last, const T* x, T* out) const {
    const T *a[kTile], *b[kTile];
    for (int64_t r = first; r < last; ++r) {
      a[r - first] = users_.get() + r * ld_;
      b[r - first] = x + r * ld_;
    }
    kernels_.dots(last - first, d_, a, b, out);
  }

  void user_pass() {
    values_ = Buffer<T>(B_ * p_.n_negatives);
    samples_.for_each_run(parallel_, [&](int64_t first, int64_t last) {
      const int64_t first_row = samples_.first_row(first),
                    last_row = std::min(samples_.first_row(last), B_);
      if (bounded_) {
        visit_buckets(first, last, {true, true, gradients_});
      } else {
        visit_buckets(first, last, {true, false, false});
        for (int64_t b = first_row; b < last_row; ++b) find_shift(b);
        visit_buckets(first, last, {false, true, gradients_});
      }
      for (int64_t b = first_row; b < last_row; b += kTile) {
        const int64_t end = std::min(b + kTile, last_row);
        T user_dot_o[kTile];
        if (gradients_) dot_users(b, end, o_.get(), user_dot_o);
        for (int64_t r = b; r < end; ++r) finish_row(r, user_dot_o[r - b]);
      }
    });
  }

  void visit_buckets(int64_t first, int64_t last, const SampledSteps& steps) {
    const bool unit = out_.unit_loss != nullptr && terms_.log_q == nullptr;
    Buffer<T> items(samples_.bucket_items() * ld_), inverse_norm(samples_.bucket_items());
    for (int64_t bucket = 0; bucket < samples_.n_buckets(); ++bucket) {
      const int64_t n = samples_.items_in(bucket);
      if (steps.score || steps.accumulate)
        read_items(samples_.first_item(bucket), n, items.get(), inverse_norm.get());
      const bool squares = steps.score && row_squares_;
      if (squares)
        for (int64_t j = 0; j < n; ++j)
          inverse_norm[j] = square_of_item(items.get() + j * ld_, inverse_norm[j]);
      for (int64_t block = first; block < last; ++block) {
        const int64_t b = samples_.first_row(block);
        const BucketSamples<T> samples = samples_.in_bucket<T>(block, bucket, items.get(), ld_);
        const SampledState<T> state{scale_.get() + b,      shift_.get() + b,
                                    sum_.get() + b,        unit ? terms_.tau + b : nullptr,
                                    unit_shift_.get() + b, unit_sum_.get() + b};
        kernels_.sampled_users(samples, users_.get() + b * ld_, steps, state, values_.get(),
                               gradients_ ? o_.get() + b * ld_ : nullptr);
        if (squares) add_squares(samples, inverse_norm.get(), squares_.get() + b);
      }
    }
  }

  static void add_squares(const BucketSamples<T>& samples, const T* square, double* sum) {
    for (int64_t r = 0; r < samples.rows; ++r) {
      T part = 0;
      for (uint32_t p = samples.starts[r]; p < samples.starts[r + 1]; ++p)
        part += square[samples.local[p]];
      sum[r] += static_cast<double>(part);
    }
  }

  // The row's largest scores, where no bound is known beforehand; log_q comes off on the way, and
  // then the sum at temperature 1 has to be taken from the scores before it does.
  void find_shift(int64_t b) {
    constexpr T lowest = -std::numeric_limits<T>::infinity();
    T top = lowest;
    samples_.for_each_of_row(
        b, [&](uint32_t p, int64_t) { top = values_[p] > top ? values_[p] : top; });
    shift_[b] = finite_shift(top);
    unit_shift_[b] = shift_[b] * terms_.tau[b];
    if (terms_.log_q == nullptr) return;
    top = lowest;
    samples_.for_each_of_row(b, [&](uint32_t p, int64_t j) {
      if (out_.unit_loss != nullptr)
        unit_sum_[b] += std::exp2(values_[p] * terms_.tau[b] - unit_shift_[b]);
      values_[p] -= static_cast<T>(terms_.log_q[j] * kLog2e);
      top = values_[p] > top ? values_[p] : top;
    });
    shift_[b] = finite_shift(top);
  }
  // Rows of -inf alone sum to zero.
  static T finite_shift(T top) { return top < std::numeric_limits<T>::lowest() ? 0 : top; }

  void finish_row(int64_t b, T user_dot_o) {
    const RowTotals totals{shift_[b] * kLn2, sum_[b], unit_shift_[b] * kLn2, unit_sum_[b],
                           finite_or_nan(positive_score_[b])};
    const RowTerms row = finish_losses(terms_, b, p_.positives[b], totals, out_);
    if (row_squares_) out_.loss[b] += static_cast<T>(p_.item_l2 / 2 * squares_[b]);
    if (!gradients_) return;
    terms_of_row_[b] = row;
    T* o = o_.get() + b * ld_;
    const T* user = users_.get() + b * ld_;
    finish_temperatures(terms_, b, row, user_dot_o, totals.positive_score, out_);
    scale_[b] = static_cast<T>(row.coefficient * row.inv_tau);  // from here on of the gradients
    if (out_.grad_users == nullptr) return;
    const T from_positive = static_cast<T>(row.positive * row.inv_positive_tau);
    for (int64_t k = 0; k < ld_; ++k)
      o[k] = o[k] * scale_[b] + positives_[b * ld_ + k] * from_positive;
    if (terms_.normalize.user) kernels_.normalize_backward(1, ld_, user, &user_inverse_norm_[b], o);
    std::copy_n(o, d_, out_.grad_users + b * d_);
  }

  void item_pass() {
    std::vector<int64_t> by_positive(B_);
    for (int64_t b = 0; b < B_; ++b) by_positive[b] = b;
    std::stable_sort(by_positive.begin(), by_positive.end(),
                     [&](int64_t a, int64_t b) { return p_.positives[a] < p_.positives[b]; });
    std::vector<double> squares(samples_.n_buckets());
    for_each_task(parallel_, samples_.n_buckets(), [&](int64_t bucket, int) {
      double* sum = out_.squares != nullptr ? &squares[bucket] : nullptr;
      if (gradients_ && out_.grad_items != nullptr) {
        item_gradient(bucket, by_positive, sum);
      } else if (sum != nullptr) {
        finish_items(bucket, by_positive, nullptr, sum);
      }
      if (gradients_ && out_.grad_log_q != nullptr) log_q_gradient(bucket, by_positive);
    });
    if (out_.squares != nullptr)
      *out_.squares = std::accumulate(squares.begin(), squares.end(), 0.0);
  }

  void item_gradient(int64_t bucket, const std::vector<int64_t>& by_positive, double* squares) {
    const int64_t first = samples_.first_item(bucket), items = samples_.items_in(bucket);
    Buffer<T> own(ld_ == d_ ? 0 : items * ld_);
    T* grad = ld_ == d_ ? out_.grad_items + first * d_ : own.get();
    std::fill_n(grad, items * ld_, T(0));
    for (int64_t block = 0; block < samples_.n_blocks(); ++block) {
      const int64_t b = samples_.first_row(block);
      kernels_.sampled_scatter(samples_.in_bucket<T>(block, bucket, nullptr, ld_),
                               users_.get() + b * ld_, scale_.get() + b, values_.get(), grad);
    }
    for_each_positive(bucket, by_positive, [&](int64_t b, int64_t local) {
      const RowTerms& row = terms_of_row_[b];
      kernels_.axpy(ld_, static_cast<T>(row.positive * row.inv_positive_tau),
                    users_.get() + b * ld_, grad + local * ld_);
    });
    finish_items(bucket, by_positive, grad, squares);
    if (ld_ == d_) return;
    for (int64_t j = 0; j < items; ++j)
      std::copy_n(grad + j * ld_, d_, out_.grad_items + (first + j) * d_);
  }

  // From dL/di^ to dL/di, if there is a gradient. The regulariser comes on top, item_l2 * (the
  // rows' weights, summed over the uses of the item) * i; where all rows count the same, its
  // squares are added up.
  void finish_items(int64_t bucket, const std::vector<int64_t>& by_positive, T* grad,
                    double* squares) {
    const bool l2 = p_.item_l2 != 0, backward = grad != nullptr && terms_.normalize.item;
    if (!l2 && !backward) return;
    const int64_t first = samples_.first_item(bucket), items = samples_.items_in(bucket);
    Buffer<double> uses(l2 ? items : 0, 0.0);
    if (l2) count_uses(bucket, by_positive, uses.get());
    const double weight = equal_ && gradients_ && B_ > 0 ? out_.weight[0] : 1;
    Buffer<T> rows(kRun * ld_), inverse_norm(kRun);
    for (int64_t run = 0; run < items; run += kRun) {
      const int64_t n = std::min(kRun, items - run);
      T* own = grad != nullptr ? grad + run * ld_ : nullptr;
      read_items(first + run, n, rows.get(), inverse_norm.get());
      if (backward) kernels_.normalize_backward(n, ld_, rows.get(), inverse_norm.get(), own);
      for (int64_t j = 0; l2 && j < n; ++j) {
        const T* row = rows.get() + j * ld_;
        const double used = uses[run + j], inverse = inverse_norm[j];
        if (used == 0 || inverse == 0) continue;
        if (squares != nullptr) *squares += used * square_of_item(row, inverse_norm[j]);
        if (grad != nullptr)
          kernels_.axpy(ld_, static_cast<T>(p_.item_l2 * weight * used / inverse), row,
                        own + j * ld_);
      }
    }
  }

  // How often each item is used; the sum of the weights of the rows that do, unless these are
  // equal.
  void count_uses(int64_t bucket, const std::vector<int64_t>& by_positive, double* uses) const {
    if (equal_) {
      samples_.for_each_use(bucket, [&](int64_t local) { ++uses[local]; });
      for_each_positive(bucket, by_positive, [&](int64_t, int64_t local) { ++uses[local]; });
    } else {
      samples_.for_each_of_bucket(bucket, [&](int64_t b, uint32_t, int64_t local) {
        uses[local] += static_cast<double>(out_.weight[b]);
      });
      for_each_positive(bucket, by_positive, [&](int64_t b, int64_t local) {
        uses[local] += static_cast<double>(out_.weight[b]);
      });
    }
  }

  void log_q_gradient(int64_t bucket, const std::vector<int64_t>& by_positive) {
    T* grad = out_.grad_log_q + samples_.first_item(bucket);
    std::fill_n(grad, samples_.items_in(bucket), T(0));
    samples_.for_each_of_bucket(bucket, [&](int64_t b, uint32_t p, int64_t local) {
      grad[local] -= static_cast<T>(terms_of_row_[b].coefficient * values_[p]);
    });
    if (terms_.denominator == Denominator::negatives) return;
    for_each_positive(bucket, by_positive, [&](int64_t b, int64_t local) {
      grad[local] -= static_cast<T>(terms_of_row_[b].positive);
    });
  }

  // f(batch row, item within the bucket) for every positive in the bucket, by item, then by row.
  template <class F>
  void for_each_positive(int64_t bucket, const std::vector<int64_t>& by_positive, F&& f) const {
    const int64_t first = samples_.first_item(bucket), last = first + samples_.items_in(bucket);
    auto b = std::lower_bound(by_positive.begin(), by_positive.end(), first,
                              [&](int64_t b, int64_t j) { return p_.positives[b] < j; });
    for (; b != by_positive.end() && p_.positives[*b] < last; ++b) f(*b, p_.positives[*b] - first);
  }

  const SampledProblem<T>& p_;
  const SoftmaxTerms<T>& terms_;
  const SoftmaxOutput<T>& out_;
  const Parallel& parallel_;
  const Kernels<T>& kernels_;
  const int64_t B_, d_, ld_;
  SortedSamples samples_;
  bool gradients_, bounded_;
  bool equal_;        // the rows' weights
  bool row_squares_;  // the regulariser is a part of each row's loss

  Buffer<T> users_, positives_, o_;                                            // [B, ld]
  Buffer<T> user_inverse_norm_, positive_score_, scale_, shift_, unit_shift_;  // [B]
  Buffer<double> sum_, unit_sum_, squares_;                                    // [B]
  Buffer<T> values_;  // [B N] scores, then exponentials
  std::vector<RowTerms> terms_of_row_;
};

}  // namespace

template <class T>
void sampled_softmax(const SampledProblem<T>& problem, const SoftmaxOutput<T>& out,
                     const Parallel& parallel) {
  SampledSoftmax<T>(problem, out, parallel).run();
}

template void sampled_softmax<float>(const SampledProblem<float>&, const SoftmaxOutput<float>&,
                                     const Parallel&);
template void sampled_softmax<double>(const SampledProblem<double>&, const SoftmaxOutput<double>&,
                                      const Parallel&);

}  // namespace adaptau
