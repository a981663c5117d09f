// Scores of listed items, and their gradients, without a [B, N, d] tensor.
//
// Sorted by bucket like the samples of the sampled loss (samples.h), and on its kernels: a bucket's
// unit rows, or its gradients, stay in cache. A user's gradient is summed up bucket after bucket,
// an item's in the order of batch rows: bitwise the same on any number of threads.
#include <algorithm>

#include "operators.h"
#include "rows.h"
#include "samples.h"

namespace adaptau {
namespace {

constexpr int64_t kRun = 32;  // items whose gradients are finished at a time

template <class T>
class SampledScores {
 public:
  SampledScores(const ScoresProblem& problem, const Parallel& parallel)
      : p_(problem),
        parallel_(parallel),
        kernels_(active_kernels<T>()),
        B_(p_.users.rows),
        N_(p_.n_listed),
        d_(p_.items.cols),
        ld_(padded<T>(d_)),
        samples_(B_, N_, p_.items.rows, ld_ * static_cast<int64_t>(sizeof(T))),
        users_(B_ * ld_),
        inverse_norm_(B_),
        values_(B_ * N_),
        ones_(B_, T(1)) {
    samples_.sort(
        parallel_,
        [](const void* self, int64_t b, int32_t* ids) {
          const ScoresProblem& p = static_cast<const SampledScores*>(self)->p_;
          std::copy_n(p.listed + b * p.n_listed, p.n_listed, ids);
        },
        this);
    for_each_task(parallel_, B_, [&](int64_t b, int) {
      read_rows(p_.users, b, 1, p_.normalize.user, kernels_, users_.get() + b * ld_, ld_,
                &inverse_norm_[b]);
    });
  }

  void scores(T* out) {
    samples_.for_each_run(parallel_, [&](int64_t first, int64_t last) {
      visit_buckets(first, last, {true, false, false}, nullptr);
      for_each_place(first, last, [&](int64_t at, uint32_t place) { out[at] = values_[place]; });
    });
  }

  void gradients(const T* grad, T* grad_users, T* grad_items) {
    const Buffer<T> o(grad_users != nullptr ? B_ * ld_ : 0, T(0));
    samples_.for_each_run(parallel_, [&](int64_t first, int64_t last) {
      for_each_place(first, last, [&](int64_t at, uint32_t place) { values_[place] = grad[at]; });
      if (grad_users == nullptr) return;
      visit_buckets(first, last, {false, false, true}, o.get());
      for (int64_t b = samples_.first_row(first); b < last_row(last); ++b) {
        T* row = o.get() + b * ld_;
        if (p_.normalize.user)
          kernels_.normalize_backward(1, ld_, users_.get() + b * ld_, &inverse_norm_[b], row);
        std::copy_n(row, d_, grad_users + b * d_);
      }
    });
    if (grad_items == nullptr) return;
    for_each_task(parallel_, samples_.n_buckets(),
                  [&](int64_t bucket, int) { item_gradient(bucket, grad_items); });
  }

 private:
  int64_t last_row(int64_t last) const { return std::min(samples_.first_row(last), B_); }

  // f(position in [B, N], place among the sorted samples), of the rows of some blocks.
  template <class F>
  void for_each_place(int64_t first, int64_t last, F&& f) const {
    Buffer<uint32_t> next(samples_.n_buckets());
    for (int64_t b = samples_.first_row(first); b < last_row(last); ++b)
      samples_.for_each_listed(b, p_.listed + b * N_, next.get(),
                               [&](int64_t n, uint32_t place) { f(b * N_ + n, place); });
  }

  void visit_buckets(int64_t first, int64_t last, const SampledSteps& steps, T* o) {
    const Buffer<T> rows(samples_.bucket_items() * ld_);
    for (int64_t bucket = 0; bucket < samples_.n_buckets(); ++bucket) {
      read_rows(p_.items, samples_.first_item(bucket), samples_.items_in(bucket), p_.normalize.item,
                kernels_, rows.get(), ld_, static_cast<T*>(nullptr));
      for (int64_t block = first; block < last; ++block) {
        const int64_t b = samples_.first_row(block);
        const SampledState<T> state{ones_.get() + b, ones_.get() + b, nullptr,
                                    nullptr,         nullptr,         nullptr};
        kernels_.sampled_users(samples_.in_bucket<T>(block, bucket, rows.get(), ld_),
                               users_.get() + b * ld_, steps, state, values_.get(),
                               o != nullptr ? o + b * ld_ : nullptr);
      }
    }
  }

  void item_gradient(int64_t bucket, T* grad_items) {
    const int64_t first = samples_.first_item(bucket), items = samples_.items_in(bucket);
    const Buffer<T> own(ld_ == d_ ? 0 : items * ld_);
    T* grad = ld_ == d_ ? grad_items + first * d_ : own.get();
    std::fill_n(grad, items * ld_, T(0));
    for (int64_t block = 0; block < samples_.n_blocks(); ++block) {
      const int64_t b = samples_.first_row(block);
      kernels_.sampled_scatter(samples_.in_bucket<T>(block, bucket, nullptr, ld_),
                               users_.get() + b * ld_, ones_.get() + b, values_.get(), grad);
    }
    if (p_.normalize.item) {
      const Buffer<T> rows(kRun * ld_), inverse_norm(kRun);
      for (int64_t run = 0; run < items; run += kRun) {
        const int64_t n = std::min(kRun, items - run);
        read_rows(p_.items, first + run, n, true, kernels_, rows.get(), ld_, inverse_norm.get());
        kernels_.normalize_backward(n, ld_, rows.get(), inverse_norm.get(), grad + run * ld_);
      }
    }
    if (ld_ == d_) return;
    for (int64_t j = 0; j < items; ++j)
      std::copy_n(grad + j * ld_, d_, grad_items + (first + j) * d_);
  }

  const ScoresProblem& p_;
  const Parallel& parallel_;
  const Kernels<T>& kernels_;
  const int64_t B_, N_, d_, ld_;
  SortedSamples samples_;
  Buffer<T> users_, inverse_norm_, values_, ones_;  // [B, ld], [B], [B N] in order of places, [B]
};

}  // namespace

template <class T>
void sampled_scores(const ScoresProblem& problem, T* scores, const Parallel& parallel) {
  SampledScores<T>(problem, parallel).scores(scores);
}
template <class T>
void sampled_scores_backward(const ScoresProblem& problem, const T* grad, T* grad_users,
                             T* grad_items, const Parallel& parallel) {
  SampledScores<T>(problem, parallel).gradients(grad, grad_users, grad_items);
}

template void sampled_scores<float>(const ScoresProblem&, float*, const Parallel&);
template void sampled_scores<double>(const ScoresProblem&, double*, const Parallel&);
template void sampled_scores_backward<float>(const ScoresProblem&, const float*, float*, float*,
                                             const Parallel&);
template void sampled_scores_backward<double>(const ScoresProblem&, const double*, double*, double*,
                                              const Parallel&);

}  // namespace adaptau
