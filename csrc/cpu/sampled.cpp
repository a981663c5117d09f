// The adaptive-temperature soft-max over sampled negatives, without a [B, N, d] tensor.
//
// Gathering B * N item rows at random is bound by memory latency, so the samples are first sorted
// by bucket, a run of items whose rows fit the second-level cache: count, prefix sum, fill, with
// ids that are drawn twice rather than stored. Then, bucket by bucket,
//   scores and exponentials       owner: a run of users    e_bn, Z_b += e_bn, O_b += e_bn i^_n
//   gradient of the items         owner: the bucket        dL/di^_n += e_bn w_b u^_b
// An item's row and its gradient stay in cache, a user's row in registers. No row has two owners
// and every sum runs in the order of batch rows or buckets: bitwise the same on any number of
// threads.
//
// Rows are read where they lie when the table is a contiguous array of the compute type with d a
// multiple of 16 (float); any other table is converted once a call.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "../core/philox.h"
#include "loss_row.h"
#include "operators.h"
#include "rows.h"

namespace adaptau {
namespace {

constexpr int64_t kBucketBytes = 128 * 1024;
constexpr int64_t kMaxStarts = 4 << 20;  // bounds the table of sample positions at 16 MiB
constexpr int64_t kItemsPerTask = 4096;

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
        N_(p_.n_negatives),
        M_(p_.item_table.rows),
        d_(p_.item_table.cols),
        ld_(padded<T>(d_)) {
    gradients_ = out_.weight != nullptr;
    item_pass_ = gradients_ && (out_.grad_items != nullptr || out_.grad_log_q != nullptr);
    bounded_ = logits_are_bounded(terms_, B_);
    bucket_shift_ = 5;
    while (bucket_shift_ < 16 &&
           (kBucketBytes >= (ld_ * static_cast<int64_t>(sizeof(T)) << (bucket_shift_ + 1)) ||
            (M_ >> bucket_shift_) * B_ > kMaxStarts))
      ++bucket_shift_;
    n_buckets_ = (M_ + (int64_t{1} << bucket_shift_) - 1) >> bucket_shift_;
  }

  void run() {
    prepare_items();
    if (p_.item_l2 != 0) square_items();
    prepare_users();
    sort_samples();
    user_pass();
    if (item_pass_) item_pass();
  }

 private:
  int64_t user_row(int64_t b) const { return p_.users != nullptr ? p_.users[b] : b; }
  int64_t first_item(int64_t bucket) const { return bucket << bucket_shift_; }
  const T* item_row(int64_t j) const { return items_ + j * item_stride_; }

  // Item rows are used raw, with 1 / |i| applied to their scores, when they can be read in place
  // and no norm is extreme; otherwise from a copy that holds the unit rows.
  void prepare_items() {
    items_in_place_ = readable_in_place<T>(p_.item_table) && ld_ == d_;
    item_inverse_norm_ = Buffer<T>(terms_.normalize.item ? M_ : 0);
    if (items_in_place_) {
      items_ = row_in_place<T>(p_.item_table, 0);
      item_stride_ = p_.item_table.row_stride;
      if (terms_.normalize.item && !invert_norms()) items_in_place_ = false;
    }
    if (items_in_place_) return;
    item_copy_ = Buffer<T>(M_ * ld_);
    items_ = item_copy_.get();
    item_stride_ = ld_;
    for_each_run_of_items([&](int64_t first, int64_t n) {
      read_rows(p_.item_table, first, n, terms_.normalize.item, kernels_,
                item_copy_.get() + first * ld_, ld_,
                terms_.normalize.item ? item_inverse_norm_.get() + first : nullptr);
    });
  }

  template <class F>
  void for_each_run_of_items(F&& f) const {
    for_each_task(parallel_, (M_ + kItemsPerTask - 1) / kItemsPerTask, [&](int64_t task, int) {
      const int64_t first = task * kItemsPerTask;
      f(first, std::min(kItemsPerTask, M_ - first));
    });
  }

  // 1 / |i| of the raw rows; false when a square over- or underflows.
  bool invert_norms() {
    std::atomic<bool> safe{true};
    for_each_run_of_items([&](int64_t first, int64_t n) {
      T* inverse = item_inverse_norm_.get() + first;
      kernels_.row_products(n, d_, item_row(first), item_stride_, item_row(first), item_stride_,
                            inverse);
      constexpr T largest = sizeof(T) == 4 ? T(1e30) : T(1e280);
      for (int64_t j = 0; j < n; ++j) {
        const bool extreme = !(inverse[j] < largest && inverse[j] > 1 / largest);
        const T* row = item_row(first + j);
        if (extreme && std::any_of(row, row + d_, [](T x) { return x != 0; })) safe = false;
        inverse[j] = inverse[j] == 0 ? 0 : 1 / std::sqrt(inverse[j]);
      }
    });
    return safe;
  }

  // |i|^2 of every item, for the regulariser.
  void square_items() {
    item_square_ = Buffer<T>(M_);
    for_each_run_of_items([&](int64_t first, int64_t n) {
      for (int64_t j = first; j < first + n; ++j) {
        if (terms_.normalize.item) {
          const T inverse = item_inverse_norm_[j];
          item_square_[j] = inverse == 0 ? 0 : 1 / (inverse * inverse);
        } else {
          kernels_.row_products(1, ld_, item_row(j), ld_, item_row(j), ld_, &item_square_[j]);
        }
      }
    });
  }

  void unit_item(int64_t j, T* out) const {
    const T scale = items_in_place_ && terms_.normalize.item ? item_inverse_norm_[j] : T(1);
    for (int64_t k = 0; k < ld_; ++k) out[k] = item_row(j)[k] * scale;
  }

  void prepare_users() {
    users_ = Buffer<T>(B_ * ld_);
    scaled_users_ = Buffer<T>(B_ * ld_);
    positives_ = Buffer<T>(B_ * ld_);
    user_inverse_norm_ = Buffer<T>(B_);
    positive_score_ = Buffer<T>(B_);
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
      for (int64_t b = task * kTile; b < std::min((task + 1) * kTile, B_); ++b) {
        T* user = users_.get() + b * ld_;
        T* positive = positives_.get() + b * ld_;
        read_rows(p_.user_table, user_row(b), 1, terms_.normalize.user, kernels_, user, ld_,
                  &user_inverse_norm_[b]);
        unit_item(p_.positives[b], positive);
        positive_score_[b] = kernels_.dot(d_, user, positive);
        const T scale = static_cast<T>(kLog2e / terms_.tau[b]);
        for (int64_t k = 0; k < ld_; ++k) scaled_users_[b * ld_ + k] = user[k] * scale;
        shift_[b] = scale;
      }
    });
  }

  // f(n, item id) for every sample of row b, in order.
  template <class F>
  void for_each_sample(int64_t b, int32_t* ids, F&& f) const {
    if (p_.negatives != nullptr) {
      for (int64_t n = 0; n < N_; ++n) f(n, p_.negatives[b * N_ + n]);
    } else {
      kernels_.draw_row(p_.seed, b, N_, static_cast<uint32_t>(M_), ids);
      for (int64_t n = 0; n < N_; ++n) f(n, ids[n]);
    }
  }

  // starts_[bucket][b] .. starts_[bucket][b + 1] are the places of row b's samples in the bucket.
  void sort_samples() {
    starts_ = Buffer<uint32_t>(n_buckets_ * (B_ + 1));
    local_ = Buffer<uint16_t>(B_ * N_);
    const int64_t tasks = (B_ + kTile - 1) / kTile;
    for_each_task(parallel_, tasks, [&](int64_t task, int) {
      Buffer<int32_t> ids(N_);
      for (int64_t b = task * kTile; b < std::min((task + 1) * kTile, B_); ++b) {
        Buffer<uint32_t> count(n_buckets_, 0u);
        for_each_sample(b, ids.get(), [&](int64_t, int64_t j) { ++count[j >> bucket_shift_]; });
        for (int64_t bucket = 0; bucket < n_buckets_; ++bucket)
          starts_[bucket * (B_ + 1) + b] = count[bucket];
      }
    });
    for (int64_t bucket = 0; bucket < n_buckets_; ++bucket) starts_[bucket * (B_ + 1) + B_] = 0;
    uint32_t total = 0;
    for (int64_t bucket = 0; bucket < n_buckets_; ++bucket)
      for (int64_t b = 0; b <= B_; ++b) {
        uint32_t& start = starts_[bucket * (B_ + 1) + b];
        const uint32_t count = start;
        start = total;
        total += count;
      }
    const int64_t mask = (int64_t{1} << bucket_shift_) - 1;
    for_each_task(parallel_, tasks, [&](int64_t task, int) {
      Buffer<int32_t> ids(N_);
      Buffer<uint32_t> next(n_buckets_);
      for (int64_t b = task * kTile; b < std::min((task + 1) * kTile, B_); ++b) {
        for (int64_t bucket = 0; bucket < n_buckets_; ++bucket)
          next[bucket] = starts_[bucket * (B_ + 1) + b];
        for_each_sample(b, ids.get(), [&](int64_t, int64_t j) {
          local_[next[j >> bucket_shift_]++] = static_cast<uint16_t>(j & mask);
        });
      }
    });
  }

  BucketSamples<T> samples(int64_t bucket, int64_t first_row, int64_t rows) const {
    const int64_t first = first_item(bucket);
    return {rows,
            starts_.get() + bucket * (B_ + 1) + first_row,
            local_.get(),
            item_row(first),
            item_stride_,
            ld_,
            items_in_place_ && terms_.normalize.item ? item_inverse_norm_.get() + first : nullptr};
  }

  void user_pass() {
    values_ = Buffer<T>(B_ * N_);
    // Long runs of rows keep a bucket in cache; enough runs keep the threads busy.
    const int64_t run = std::max<int64_t>(32, (B_ + parallel_.workers - 1) / parallel_.workers);
    for_each_task(parallel_, (B_ + run - 1) / run, [&](int64_t task, int) {
      const int64_t first = task * run, rows = std::min(run, B_ - first);
      if (p_.item_l2 != 0) add_squares(first, rows);
      if (bounded_) {
        visit_buckets(first, rows, {true, true, gradients_});
      } else {
        visit_buckets(first, rows, {true, false, false});
        for (int64_t b = first; b < first + rows; ++b) find_shift(b);
        visit_buckets(first, rows, {false, true, gradients_});
      }
      for (int64_t b = first; b < first + rows; ++b) finish_row(b);
    });
  }

  void visit_buckets(int64_t first, int64_t rows, const SampledSteps& steps) {
    const bool unit = out_.unit_loss != nullptr && terms_.log_q == nullptr;
    const SampledState<T> state{shift_.get() + first, sum_.get() + first,
                                unit ? terms_.tau + first : nullptr, unit_shift_.get() + first,
                                unit_sum_.get() + first};
    for (int64_t bucket = 0; bucket < n_buckets_; ++bucket)
      kernels_.sampled_users(samples(bucket, first, rows), scaled_users_.get() + first * ld_, steps,
                             state, values_.get(), gradients_ ? o_.get() + first * ld_ : nullptr);
  }

  void add_squares(int64_t first, int64_t rows) {
    for (int64_t bucket = 0; bucket < n_buckets_; ++bucket) {
      const T* square = item_square_.get() + first_item(bucket);
      const uint32_t* starts = starts_.get() + bucket * (B_ + 1) + first;
      for (int64_t r = 0; r < rows; ++r) {
        T sum = 0;
        for (uint32_t p = starts[r]; p < starts[r + 1]; ++p) sum += square[local_[p]];
        squares_[first + r] += static_cast<double>(sum);
      }
    }
  }

  // The row's largest scores, where no bound is known beforehand; log_q comes off on the way, and
  // then the sum at temperature 1 has to be taken from the scores before it does.
  void find_shift(int64_t b) {
    constexpr T lowest = -std::numeric_limits<T>::infinity();
    T top = lowest;
    for_each_value(b, [&](uint32_t p, int64_t) { top = values_[p] > top ? values_[p] : top; });
    shift_[b] = top;
    unit_shift_[b] = top * terms_.tau[b];
    if (terms_.log_q == nullptr) return;
    top = lowest;
    for_each_value(b, [&](uint32_t p, int64_t j) {
      if (out_.unit_loss != nullptr)
        unit_sum_[b] += std::exp2(values_[p] * terms_.tau[b] - unit_shift_[b]);
      values_[p] -= static_cast<T>(terms_.log_q[j] * kLog2e);
      top = values_[p] > top ? values_[p] : top;
    });
    shift_[b] = top;
  }

  template <class F>
  void for_each_value(int64_t b, F&& f) const {
    for (int64_t bucket = 0; bucket < n_buckets_; ++bucket) {
      const uint32_t* starts = starts_.get() + bucket * (B_ + 1) + b;
      for (uint32_t p = starts[0]; p < starts[1]; ++p) f(p, first_item(bucket) + local_[p]);
    }
  }

  void finish_row(int64_t b) {
    const RowTotals totals{shift_[b] * kLn2, sum_[b], unit_shift_[b] * kLn2, unit_sum_[b],
                           static_cast<double>(positive_score_[b])};
    const int64_t t = p_.positives[b];
    const RowTerms row = finish_losses(terms_, b, t, totals, out_);
    if (p_.item_l2 != 0)
      out_.loss[b] += static_cast<T>(p_.item_l2 / 2 * (squares_[b] + item_square_[t]));
    if (!gradients_) return;
    terms_of_row_[b] = row;
    T* o = o_.get() + b * ld_;
    const T* user = users_.get() + b * ld_;
    finish_temperatures(terms_, b, row, kernels_.dot(d_, user, o), totals.positive_score, out_);
    if (item_pass_) {  // rows for the item pass replace the scaled users
      const T scale = static_cast<T>(row.coefficient * row.inv_tau);
      for (int64_t k = 0; k < ld_; ++k) scaled_users_[b * ld_ + k] = user[k] * scale;
    }
    if (out_.grad_users == nullptr) return;
    const T from_negatives = static_cast<T>(row.coefficient * row.inv_tau);
    const T from_positive = static_cast<T>(row.positive * row.inv_positive_tau);
    for (int64_t k = 0; k < ld_; ++k)
      o[k] = o[k] * from_negatives + positives_[b * ld_ + k] * from_positive;
    if (terms_.normalize.user) kernels_.normalize_backward(1, ld_, user, &user_inverse_norm_[b], o);
    std::copy_n(o, d_, out_.grad_users + b * d_);
  }

  void item_pass() {
    std::vector<int64_t> by_positive(B_);
    for (int64_t b = 0; b < B_; ++b) by_positive[b] = b;
    std::stable_sort(by_positive.begin(), by_positive.end(),
                     [&](int64_t a, int64_t b) { return p_.positives[a] < p_.positives[b]; });
    const bool in_place = ld_ == d_;
    for_each_task(parallel_, n_buckets_, [&](int64_t bucket, int) {
      const int64_t first = first_item(bucket);
      const int64_t items = std::min<int64_t>(int64_t{1} << bucket_shift_, M_ - first);
      const BucketSamples<T> all = samples(bucket, 0, B_);
      Buffer<T> own(in_place && out_.grad_items != nullptr ? 0 : items * ld_);
      T* grad = own.size() == 0 ? out_.grad_items + first * d_ : own.get();
      std::fill_n(grad, items * ld_, T(0));
      kernels_.sampled_scatter(all, values_.get(), scaled_users_.get(), grad);
      for_each_positive(first, items, by_positive, [&](int64_t b, int64_t j) {
        const RowTerms& row = terms_of_row_[b];
        kernels_.axpy(ld_, static_cast<T>(row.positive * row.inv_positive_tau),
                      users_.get() + b * ld_, grad + (j - first) * ld_);
      });
      if (out_.grad_items != nullptr) {
        if (terms_.normalize.item) {
          Buffer<T> unit(ld_);
          for (int64_t j = 0; j < items; ++j) {
            unit_item(first + j, unit.get());
            kernels_.normalize_backward(1, ld_, unit.get(), &item_inverse_norm_[first + j],
                                        grad + j * ld_);
          }
        }
        if (p_.item_l2 != 0) add_l2_gradient(all, first, items, by_positive, grad);
        if (own.size() != 0)
          for (int64_t j = 0; j < items; ++j)
            std::copy_n(grad + j * ld_, d_, out_.grad_items + (first + j) * d_);
      }
      if (out_.grad_log_q != nullptr) log_q_gradient(all, first, items, by_positive);
    });
  }

  // item_l2 * (the rows' weights, summed over the uses of the item) * i, on top of the gradient.
  void add_l2_gradient(const BucketSamples<T>& bucket, int64_t first, int64_t items,
                       const std::vector<int64_t>& by_positive, T* grad) {
    Buffer<double> uses(items, 0.0);
    for (int64_t b = 0; b < B_; ++b)
      for (uint32_t p = bucket.starts[b]; p < bucket.starts[b + 1]; ++p)
        uses[local_[p]] += static_cast<double>(out_.weight[b]);
    for_each_positive(first, items, by_positive,
                      [&](int64_t b, int64_t j) { uses[j - first] += out_.weight[b]; });
    Buffer<T> row(ld_);
    for (int64_t j = 0; j < items; ++j) {
      if (uses[j] == 0) continue;
      read_row(p_.item_table, first + j, row.get(), ld_);
      kernels_.axpy(ld_, static_cast<T>(p_.item_l2 * uses[j]), row.get(), grad + j * ld_);
    }
  }

  // f(batch row, item) for every positive among items [first, first + items), by item, then by row.
  template <class F>
  void for_each_positive(int64_t first, int64_t items, const std::vector<int64_t>& by_positive,
                         F&& f) const {
    auto b = std::lower_bound(by_positive.begin(), by_positive.end(), first,
                              [&](int64_t b, int64_t j) { return p_.positives[b] < j; });
    for (; b != by_positive.end() && p_.positives[*b] < first + items; ++b) f(*b, p_.positives[*b]);
  }

  void log_q_gradient(const BucketSamples<T>& bucket, int64_t first, int64_t items,
                      const std::vector<int64_t>& by_positive) {
    std::fill_n(out_.grad_log_q + first, items, T(0));
    for (int64_t b = 0; b < B_; ++b)
      for (uint32_t p = bucket.starts[b]; p < bucket.starts[b + 1]; ++p)
        out_.grad_log_q[first + local_[p]] -=
            static_cast<T>(terms_of_row_[b].coefficient * values_[p]);
    if (terms_.denominator == Denominator::negatives) return;
    for_each_positive(first, items, by_positive, [&](int64_t b, int64_t j) {
      out_.grad_log_q[j] -= static_cast<T>(terms_of_row_[b].positive);
    });
  }

  const SampledProblem<T>& p_;
  const SoftmaxTerms<T>& terms_;
  const SoftmaxOutput<T>& out_;
  const Parallel& parallel_;
  const Kernels<T>& kernels_;
  const int64_t B_, N_, M_, d_, ld_;
  bool gradients_, item_pass_, bounded_, items_in_place_ = false;
  int bucket_shift_;
  int64_t n_buckets_, item_stride_ = 0;
  const T* items_ = nullptr;

  Buffer<T> item_copy_;                                                // [M, ld], where needed
  Buffer<T> item_inverse_norm_, item_square_;                          // [M], where needed
  Buffer<T> users_, scaled_users_, positives_, o_;                     // [B, ld]
  Buffer<T> user_inverse_norm_, positive_score_, shift_, unit_shift_;  // [B]
  Buffer<double> sum_, unit_sum_, squares_;                            // [B]
  Buffer<uint32_t> starts_;                                            // [bucket][B + 1]
  Buffer<uint16_t> local_;  // [B N] item within its bucket
  Buffer<T> values_;        // [B N] scores, then exponentials
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
