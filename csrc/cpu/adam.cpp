// Adam for tables of which a step uses few rows. A row waits until it is used again, and then takes
// the steps that it missed at once: their gradient was zero, so that k steps after t
//   mean = beta1^k mean_t,  square = beta2^k square_t,
//   parameter -= lr / (1 - beta1^(t+k)) mean / (sqrt(square / (1 - beta2^(t+k))) + epsilon)
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "kernels.h"
#include "operators.h"

namespace adaptau {
namespace {

constexpr double kNoMore = 0x1p-60;  // of the first missed step: later ones change no bit

// What the missed steps of all rows have in common; entry k of the first three is k steps after a
// row's last one, entry s of the others is step first + 1 + s.
template <class T>
struct MissedSteps {
  std::vector<T> rate, decay_root, correct_mean, correct_root;
  std::vector<double> decay_mean, decay_square;
  int64_t first, longest;

  MissedSteps(const AdamProblem<T>& p, int64_t first, int64_t last) : first(first) {
    const int64_t n = last - first;
    decay_mean.assign(n + 1, 1.0);
    decay_square.assign(n + 1, 1.0);
    double power1 = std::pow(p.beta1, first), power2 = std::pow(p.beta2, first);
    for (int64_t k = 1; k <= n; ++k) {
      decay_mean[k] = decay_mean[k - 1] * p.beta1;
      decay_square[k] = decay_square[k - 1] * p.beta2;
      rate.push_back(static_cast<T>(p.lr * decay_mean[k]));
      decay_root.push_back(static_cast<T>(std::sqrt(decay_square[k])));
      power1 *= p.beta1;
      power2 *= p.beta2;
      correct_mean.push_back(static_cast<T>(1 / (1 - power1)));
      correct_root.push_back(static_cast<T>(1 / std::sqrt(1 - power2)));
    }
    longest = std::count_if(decay_mean.begin(), decay_mean.end(),
                            [](double decay) { return decay >= kNoMore; }) -
              1;
  }

  AdamMissed<T> since(int64_t last, int64_t steps, double epsilon) const {
    return {std::min(steps, longest),
            rate.data(),
            decay_root.data(),
            correct_mean.data() + (last - first),
            correct_root.data() + (last - first),
            static_cast<T>(decay_mean[steps]),
            static_cast<T>(decay_square[steps]),
            static_cast<T>(epsilon)};
  }
};

}  // namespace

template <class T>
void adam_rows(const AdamProblem<T>& p, const Parallel& parallel) {
  constexpr int64_t task_rows = 64;
  const Kernels<T>& kernels = active_kernels<T>();
  // Places in the batch by row: gradients of one row stand together, in the order of the batch.
  std::vector<int64_t> order, starts;  // starts: of a row's places in `order`
  if (p.rows != nullptr) {
    order.resize(p.n);
    std::iota(order.begin(), order.end(), int64_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return p.rows[a] < p.rows[b]; });
    for (int64_t i = 0; i < p.n; ++i)
      if (i == 0 || p.rows[order[i]] != p.rows[order[i - 1]]) starts.push_back(i);
  }
  const int64_t n = p.rows != nullptr ? static_cast<int64_t>(starts.size()) : p.n;
  starts.push_back(static_cast<int64_t>(order.size()));
  const auto row_of = [&](int64_t i) { return p.rows != nullptr ? p.rows[order[starts[i]]] : i; };

  const int64_t target = p.gradient != nullptr ? p.step - 1 : p.step;
  int64_t first = target;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t last = p.last_step[row_of(i)];
    if (last != 0) first = std::min(first, last);  // rows that had no step yet stay as they are
  }
  const MissedSteps<T> missed(p, first, target);
  const AdamStep<T> step{static_cast<T>(1 - p.beta1),
                         static_cast<T>(p.beta2),
                         static_cast<T>(1 - p.beta2),
                         static_cast<T>(p.lr / (1 - std::pow(p.beta1, p.step))),
                         static_cast<T>(1 / std::sqrt(1 - std::pow(p.beta2, p.step))),
                         static_cast<T>(p.epsilon)};
  for_each_task(parallel, (n + task_rows - 1) / task_rows, [&](int64_t task, int) {
    Buffer<T> sum(p.gradient != nullptr ? p.d : 0);
    for (int64_t i = task * task_rows; i < std::min(n, (task + 1) * task_rows); ++i) {
      const int64_t r = row_of(i), last = p.last_step[r];
      const AdamRow<T> row{p.parameter + r * p.d, p.mean + r * p.d, p.square + r * p.d};
      if (last != 0 && last < target)
        kernels.adam_missed(p.d, missed.since(last, target - last, p.epsilon), row);
      p.last_step[r] = p.step;
      if (p.gradient == nullptr) continue;
      const T* gradient = p.gradient + order[starts[i]] * p.d;
      if (starts[i + 1] - starts[i] > 1) {
        std::copy_n(gradient, p.d, sum.get());
        for (int64_t j = starts[i] + 1; j < starts[i + 1]; ++j)
          for (int64_t k = 0; k < p.d; ++k) sum[k] += p.gradient[order[j] * p.d + k];
        gradient = sum.get();
      }
      kernels.adam_step(p.d, step, gradient, row);
    }
  });
}
template void adam_rows<float>(const AdamProblem<float>&, const Parallel&);
template void adam_rows<double>(const AdamProblem<double>&, const Parallel&);

}  // namespace adaptau
