// The losses against the oracle in double, top-k and ranks against a sort, propagation against its
// equation, at one instruction set, with plain C++ threads.
#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <set>
#include <stdexcept>
#include <thread>

#include "check.h"
#include "core/oracle.h"
#include "core/philox.h"
#include "cpu/kernels.h"
#include "cpu/operators.h"

using namespace adaptau;

namespace {

Parallel threads(int n) {
  return {n, [](int workers, void (*body)(void*), void* context) {
            std::vector<std::thread> pool;
            for (int i = 0; i < workers; ++i) pool.emplace_back(body, context);
            for (auto& thread : pool) thread.join();
          }};
}

template <class T>
Matrix as_matrix(const std::vector<T>& x, int64_t rows, int64_t d) {
  return {x.data(), sizeof(T) == 4 ? DType::f32 : DType::f64, rows, d, d, 1};
}

template <class T>
oracle::Rows as_rows(const std::vector<T>& x, int64_t rows, int64_t d) {
  oracle::Rows out;
  for (int64_t r = 0; r < rows; ++r) out.emplace_back(x.begin() + r * d, x.begin() + (r + 1) * d);
  return out;
}

// Largest difference relative to the largest term of the sums, which may have cancelled.
template <class T>
double error(const std::vector<T>& actual, const std::vector<double>& expected, double size) {
  double worst = 0;
  for (size_t i = 0; i < expected.size(); ++i)
    worst = std::max(worst, std::abs(actual[i] - expected[i]));
  return worst / size;
}
template <class T>
double largest(const std::vector<T>& x) {
  double size = 0;
  for (T v : x) size = std::max(size, std::abs(static_cast<double>(v)));
  return size;
}
// 1 / |x| of the shortest row that gradients are divided by; 1 where they are not.
double longest_inverse(const oracle::Rows& rows, bool normalise) {
  double longest = 1;
  for (const auto& row : rows)
    if (normalise) longest = std::max(longest, 1 / oracle::norm(row));
  return longest;
}
std::vector<double> flat(const oracle::Rows& rows) {
  std::vector<double> out;
  for (const auto& row : rows) out.insert(out.end(), row.begin(), row.end());
  return out;
}

template <class T>
struct Outputs {
  std::vector<T> loss, unit_loss, weight, grad_users, grad_items, grad_tau, grad_positive_tau,
      grad_log_q;
  Outputs(int64_t B, int64_t M, int64_t d)
      : loss(B),
        unit_loss(B),
        weight(random_values<T>(B, 21)),
        grad_users(B * d),
        grad_items(M * d),
        grad_tau(B),
        grad_positive_tau(B),
        grad_log_q(M) {}
  SoftmaxOutput<T> pointers(bool log_q) {
    return {loss.data(),
            unit_loss.data(),
            weight.data(),
            grad_users.data(),
            grad_items.data(),
            grad_tau.data(),
            grad_positive_tau.data(),
            log_q ? grad_log_q.data() : nullptr,
            nullptr};
  }
  // Rounding of a logit, k (d + 4) u, counts twice in a probability; sums over M or B add their
  // own. k bounds |logit|, the inverses scale the gradients.
  void compare(const oracle::Loss& expected, bool log_q, int64_t d, double k, double inv_tau,
               int64_t longest, double inverse_user, double inverse_item) {
    const double u = std::numeric_limits<T>::epsilon() / 2;
    const double budget = 4 * k * (d + 4) * u + (longest / 48 + 60) * u;
    const double w = largest(weight), entry = k / inv_tau;  // |entry of i^|, |s| at most
    CHECK_NEAR(error(loss, expected.loss, std::max(1.0, largest(loss))), 0, budget);
    CHECK_NEAR(error(unit_loss, expected.unit_loss, std::max(1.0, largest(loss))), 0, budget);
    CHECK_NEAR(error(grad_users, flat(expected.grad_users), w * k * inverse_user), 0, budget);
    CHECK_NEAR(error(grad_items, flat(expected.grad_items),
                     std::max(w * k * inverse_item, largest(flat(expected.grad_items)))),
               0, budget);
    CHECK_NEAR(error(grad_tau, expected.grad_tau, w * inv_tau * inv_tau * entry), 0, budget);
    CHECK_NEAR(error(grad_positive_tau, expected.grad_positive_tau, w * inv_tau * inv_tau * entry),
               0, budget);
    if (log_q) CHECK_NEAR(error(grad_log_q, expected.grad_log_q, w), 0, budget);
  }
};

struct Options {
  Normalize normalize;
  Denominator denominator;
  bool own_positive_tau, log_q;
  double tau;
};
const Options kOptions[] = {
    {{true, true}, Denominator::all, false, false, 0.1},
    {{true, true}, Denominator::negatives, true, false, 0.07},
    {{true, true}, Denominator::all, false, false, 0.01},  // beyond the bound: online maximum
    {{true, false}, Denominator::all, true, true, 0.5},
    {{false, true}, Denominator::negatives, false, true, 1.0},
    {{false, false}, Denominator::all, false, false, 2.0},
};

// Random inputs of one loss, in T and (the same values) in double, and the comparison with the
// oracle.
template <class T>
struct LossCase {
  int64_t B, M, d;
  Options options;
  std::vector<T> users, items, tau, positive_tau, log_q;
  std::vector<double> tau64, positive64, log_q64;
  std::vector<int64_t> positives;
  std::vector<std::vector<int64_t>> candidates;  // filled by the test

  LossCase(int64_t B, int64_t M, int64_t d, const Options& options)
      : B(B),
        M(M),
        d(d),
        options(options),
        users(random_values<T>(B * d, 11, 0.5)),
        items(random_values<T>(M * d, 12, 0.5)),
        tau(random_values<T>(B, 13)),
        positive_tau(random_values<T>(B, 14)),
        log_q(random_values<T>(M, 15)),
        candidates(B) {
    for (auto* t : {&tau, &positive_tau})
      for (T& v : *t) v = static_cast<T>(options.tau * (1 + 0.2 * std::tanh(v)));
    tau64.assign(tau.begin(), tau.end());
    positive64.assign(positive_tau.begin(), positive_tau.end());
    log_q64.assign(log_q.begin(), log_q.end());
    for (int64_t b = 0; b < B; ++b) positives.push_back((b * 37 + 5) % M);
  }
  template <class V>
  SoftmaxTerms<V> terms(const std::vector<V>& tau, const std::vector<V>& positive,
                        const std::vector<V>& log_q) const {
    return {tau.data(), options.own_positive_tau ? positive.data() : nullptr,
            options.log_q ? log_q.data() : nullptr, options.denominator, options.normalize};
  }
  SoftmaxTerms<T> terms() const { return terms(tau, positive_tau, log_q); }

  // run(output, threads) is the operator under test.
  template <class F>
  void check(int64_t longest_sum, F&& run) const {
    Outputs<T> out(B, M, d), again(B, M, d);
    const auto user_rows = as_rows(users, B, d), item_rows = as_rows(items, M, d);
    const auto expected =
        oracle::softmax(user_rows, item_rows, positives, candidates,
                        terms(tau64, positive64, log_q64), {out.weight.begin(), out.weight.end()});
    run(out.pointers(options.log_q), threads(1));
    const double size = options.normalize.user && options.normalize.item ? 1 : 0.5 * d;
    out.compare(expected, options.log_q, d, 1.25 * size / options.tau, 1.25 / options.tau,
                longest_sum, longest_inverse(user_rows, options.normalize.user),
                longest_inverse(item_rows, options.normalize.item));
    run(again.pointers(options.log_q), threads(3));
    CHECK(out.loss == again.loss && out.grad_users == again.grad_users &&
          out.grad_items == again.grad_items && out.grad_tau == again.grad_tau);
  }
};

template <class T>
void fused(int64_t B, int64_t M, int64_t d, const Options& options, int64_t workspace) {
  LossCase<T> c(B, M, d, options);
  MaskedCandidates masked;
  masked.indptr.push_back(0);
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t j = 0; j < M; ++j) {
      if (j == c.positives[b]) continue;
      auto& list = (j * 7 + b) % 11 == 0 ? masked.indices : c.candidates[b];
      list.push_back(j);
    }
    masked.indptr.push_back(static_cast<int64_t>(masked.indices.size()));
  }
  const SoftmaxProblem<T> problem{as_matrix(c.users, B, d), as_matrix(c.items, M, d),
                                  c.positives.data(), masked.csr(), c.terms()};
  c.check(std::max(B, M), [&](const SoftmaxOutput<T>& out, const Parallel& parallel) {
    fused_softmax(problem, out, parallel, workspace);
  });
}

template <class T>
void sampled(int64_t B, int64_t N, int64_t M, int64_t d, const Options& options) {
  LossCase<T> c(B, M, d, options);
  for (int64_t b = 0; b < B; ++b)
    for (int64_t n = 0; n < N; ++n)
      c.candidates[b].push_back(draw(99, b, static_cast<uint32_t>(n), static_cast<uint32_t>(M)));
  const SampledProblem<T> problem{as_matrix(c.users, B, d),
                                  as_matrix(c.items, M, d),
                                  nullptr,
                                  c.positives.data(),
                                  nullptr,
                                  B,
                                  N,
                                  99,
                                  0,
                                  c.terms()};
  c.check(std::max(B, N), [&](const SoftmaxOutput<T>& out, const Parallel& parallel) {
    sampled_softmax(problem, out, parallel);
  });
}

// Scores by the kernels' own dot product; everything else by a plain sort.
template <class T>
void retrieval(int64_t B, int64_t M, int64_t d, int64_t k) {
  const auto users = random_values<T>(B * d, 31);
  auto items = random_values<T>(M * d, 32);
  for (int64_t j = 0; j + 3 < M; j += 5)  // exact ties
    std::copy_n(items.begin() + j * d, d, items.begin() + (j + 3) * d);
  if (M > 9) items[9 * d] = std::numeric_limits<T>::quiet_NaN();
  std::vector<int64_t> indptr{0}, indices, target_indptr{0}, target_indices, expected_ids,
      expected_ranks;
  for (int64_t b = 0; b < B; ++b) {
    std::vector<Candidate<T>> order;
    std::set<int64_t> gone;
    for (int64_t j = b % 7; j < M && static_cast<int64_t>(gone.size()) < M - k; j += 7)
      gone.insert(j);
    indices.insert(indices.end(), gone.begin(), gone.end());
    indptr.push_back(static_cast<int64_t>(indices.size()));
    for (int64_t j = 0; j < M; ++j)
      order.push_back(
          {score_key(active_kernels<T>().dot(d, users.data() + b * d, items.data() + j * d)),
           static_cast<int32_t>(j)});
    const auto by_id = order;
    std::sort(order.begin(), order.end(), precedes);
    int64_t found = 0;
    for (const auto& candidate : order)
      if (gone.count(candidate.id) == 0 && found++ < k) expected_ids.push_back(candidate.id);
    for (int64_t j = b % 3; j < M; j += 1 + M / (1 + b % 5)) {
      target_indices.push_back(j);
      int64_t rank = 1;
      for (const auto& other : by_id)
        rank += gone.count(other.id) == 0 && precedes(other, by_id[j]);
      expected_ranks.push_back(rank);
    }
    target_indptr.push_back(static_cast<int64_t>(target_indices.size()));
  }
  const Csr excluded{indptr.data(), indices.data()};
  for (int workers : {1, 3}) {
    std::vector<T> scores(B * k);
    std::vector<int64_t> ids(B * k), got(target_indices.size());
    topk<T>({as_matrix(users, B, d), as_matrix(items, M, d), excluded, {false, false}, k}, nullptr,
            scores.data(), ids.data(), threads(workers));
    CHECK(ids == expected_ids);
    ranks<T>({as_matrix(users, B, d),
              as_matrix(items, M, d),
              {target_indptr.data(), target_indices.data()},
              excluded,
              {false, false}},
             got.data(), threads(workers));
    CHECK(got == expected_ranks);
  }
}

// Every node of the other side with (u * 7 + i * 3) % 5 == 0; user 1 and item 2 have none.
struct Edges {
  std::vector<int64_t> indptr{0};
  std::vector<int32_t> indices;
  Edges(int64_t rows, int64_t columns, bool rows_are_users) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        const int64_t u = rows_are_users ? r : c, i = rows_are_users ? c : r;
        if (u != 1 && i != 2 && (u * 7 + i * 3) % 5 == 0)
          indices.push_back(static_cast<int32_t>(c));
      }
      indptr.push_back(static_cast<int64_t>(indices.size()));
    }
  }
  Adjacency adjacency() const {
    return {static_cast<int64_t>(indptr.size()) - 1, indptr.data(), indices.data()};
  }
  double degree(int64_t r) const { return static_cast<double>(indptr[r + 1] - indptr[r]); }
};

template <class T>
void propagation(int64_t n_users, int64_t n_items, int64_t d, int64_t n_layers, bool mean) {
  const int64_t rows[2] = {n_users, n_items};
  const Edges edges[2] = {{n_users, n_items, true}, {n_items, n_users, false}};
  std::vector<T> x[2];
  std::vector<double> layer[2], sum[2];
  for (int s : {0, 1}) {
    x[s] = random_values<T>(rows[s] * d, 41 + s);
    layer[s].assign(x[s].begin(), x[s].end());
    sum[s].assign(rows[s] * d, 0.0);
  }
  const auto add_layer = [&] {
    for (int s : {0, 1})
      for (size_t k = 0; k < sum[s].size(); ++k) sum[s][k] = (mean ? sum[s][k] : 0) + layer[s][k];
  };
  add_layer();
  for (int64_t l = 0; l < n_layers; ++l) {
    std::vector<double> next[2];
    for (int s : {0, 1}) {
      next[s].assign(rows[s] * d, 0.0);
      for (int64_t r = 0; r < rows[s]; ++r)
        for (int64_t e = edges[s].indptr[r]; e < edges[s].indptr[r + 1]; ++e) {
          const int64_t j = edges[s].indices[e];
          const double weight = 1 / std::sqrt(edges[s].degree(r) * edges[1 - s].degree(j));
          for (int64_t k = 0; k < d; ++k) next[s][r * d + k] += weight * layer[1 - s][j * d + k];
        }
    }
    for (int s : {0, 1}) layer[s] = next[s];
    add_layer();
  }
  // some rows, one of them twice
  const std::vector<int64_t> chosen[2] = {{n_users - 1, 0, n_users - 1}, {n_items / 2}};
  for (const bool all : {true, false}) {
    PropagationProblem problem{};
    for (int s : {0, 1}) {
      problem.side[s] = edges[s].adjacency();
      problem.x[s] = as_matrix(x[s], rows[s], d);
      problem.given[s] = {nullptr, rows[s]};
      if (all) {
        problem.wanted[s] = {nullptr, rows[s]};
      } else {
        problem.wanted[s] = {chosen[s].data(), static_cast<int64_t>(chosen[s].size())};
      }
    }
    problem.n_layers = n_layers;
    problem.layers = mean ? Layers::mean : Layers::last;
    std::vector<T> out[2], again[2];
    for (int s : {0, 1})
      for (auto* o : {out, again}) o[s].resize(problem.wanted[s].count * d);
    propagate<T>(problem, {out[0].data(), out[1].data()}, threads(1));
    propagate<T>(problem, {again[0].data(), again[1].data()}, threads(3));
    for (int s : {0, 1}) {
      CHECK(out[s] == again[s]);
      std::vector<double> expected;
      for (int64_t b = 0; b < problem.wanted[s].count; ++b)
        for (int64_t k = 0; k < d; ++k)
          expected.push_back(sum[s][(all ? b : chosen[s][b]) * d + k] /
                             static_cast<double>(mean ? n_layers + 1 : 1));
      const double longest = static_cast<double>(std::max(n_users, n_items)) / 5 + 1;
      const double u = std::numeric_limits<T>::epsilon() / 2;
      CHECK_NEAR(error(out[s], expected, largest(x[s]) * std::pow(longest, 0.5 * n_layers)), 0,
                 static_cast<double>(n_layers + 1) * (longest + 4) * u);
    }
  }
}

// Nodes numbered backwards inside, the lists in the same order.
struct Backwards {
  std::vector<int64_t> indptr{0};
  std::vector<int32_t> indices, order;  // its own inverse
  Backwards(const Edges& edges, int64_t columns) {
    const auto rows = static_cast<int64_t>(edges.indptr.size()) - 1;
    for (int64_t r = rows - 1; r >= 0; --r) {
      order.push_back(static_cast<int32_t>(r));
      for (int64_t e = edges.indptr[r]; e < edges.indptr[r + 1]; ++e)
        indices.push_back(static_cast<int32_t>(columns - 1 - edges.indices[e]));
      indptr.push_back(static_cast<int64_t>(indices.size()));
    }
  }
  Adjacency adjacency() const {
    return {static_cast<int64_t>(indptr.size()) - 1, indptr.data(), indices.data()};
  }
};

// Every layer, and the sum over layers that is its transpose, with dropout: numbers inside change
// no bit, <g, every(x)> = <sum(g), x>, and the mean of the layers without dropout is the mean.
template <class T>
void layers(int64_t n_users, int64_t n_items, int64_t d, int64_t n_layers) {
  const int64_t rows[2] = {n_users, n_items}, count = n_layers + 1;
  const Edges edges[2] = {{n_users, n_items, true}, {n_items, n_users, false}};
  const Backwards backwards[2] = {{edges[0], n_items}, {edges[1], n_users}};
  const std::vector<int64_t> chosen[2] = {{n_users - 1, 0, n_users - 1}, {n_items / 2}};
  for (const bool all : {true, false}) {
    PropagationProblem problem{};
    problem.n_layers = n_layers;
    std::vector<T> x[2], g[2], mean[2], every[2], sum[2];
    Selection nodes[2];
    for (int s : {0, 1}) {
      nodes[s] = all ? Selection{nullptr, rows[s]}
                     : Selection{chosen[s].data(), static_cast<int64_t>(chosen[s].size())};
      x[s] = random_values<T>(rows[s] * d, 51 + s);
      g[s] = random_values<T>(count * nodes[s].count * d, 61 + s);
      mean[s].resize(nodes[s].count * d);
      every[s].resize(count * nodes[s].count * d);
      sum[s].resize(rows[s] * d);
    }
    const auto run = [&](Layers layers, bool inside, int64_t steps, std::vector<T>(&out)[2]) {
      problem.layers = layers;
      problem.dropout = {steps, 12};
      for (int s : {0, 1}) {
        problem.side[s] = inside ? backwards[s].adjacency() : edges[s].adjacency();
        problem.order[s] = problem.place[s] = inside ? backwards[s].order.data() : nullptr;
        const bool is_sum = layers == Layers::sum;
        problem.x[s] =
            as_matrix(is_sum ? g[s] : x[s], is_sum ? count * nodes[s].count : rows[s], d);
        problem.given[s] = is_sum ? nodes[s] : Selection{nullptr, rows[s]};
        problem.wanted[s] = is_sum ? Selection{nullptr, rows[s]} : nodes[s];
      }
      propagate<T>(problem, {out[0].data(), out[1].data()}, threads(inside ? 3 : 1));
    };
    const double u = std::numeric_limits<T>::epsilon() / 2;
    run(Layers::mean, false, 0, mean);
    run(Layers::every, true, 0, every);
    for (int s : {0, 1}) {
      std::vector<double> expected(mean[s].size(), 0.0);
      for (size_t k = 0; k < every[s].size(); ++k)
        expected[k % expected.size()] +=
            static_cast<double>(every[s][k]) / static_cast<double>(count);
      const double longest = static_cast<double>(std::max(n_users, n_items)) / 5 + 1;
      CHECK_NEAR(error(mean[s], expected, largest(x[s]) * std::pow(longest, 0.5 * n_layers)), 0,
                 2 * static_cast<double>(count) * (longest + 6) * u);
    }
    for (const Layers kind : {Layers::mean, Layers::every, Layers::sum}) {
      std::vector<T> again[2], twice[2];
      for (int s : {0, 1}) {
        again[s].resize((kind == Layers::sum     ? sum[s]
                         : kind == Layers::every ? every[s]
                                                 : mean[s])
                            .size());
        twice[s].resize(again[s].size());
      }
      run(kind, false, kind == Layers::mean ? 0 : 20000, again);
      run(kind, true, kind == Layers::mean ? 0 : 20000, twice);
      for (int s : {0, 1}) {
        CHECK(again[s] == twice[s]);
        if (kind == Layers::every) every[s] = again[s];
        if (kind == Layers::sum) sum[s] = again[s];
      }
    }
    double outside = 0, inside = 0, size = 0;
    for (int s : {0, 1}) {
      for (size_t k = 0; k < g[s].size(); ++k) {
        outside += static_cast<double>(g[s][k]) * static_cast<double>(every[s][k]);
        size += std::abs(static_cast<double>(g[s][k]) * static_cast<double>(every[s][k]));
      }
      for (size_t k = 0; k < x[s].size(); ++k)
        inside += static_cast<double>(x[s][k]) * static_cast<double>(sum[s][k]);
    }
    CHECK_NEAR(inside, outside, 200 * static_cast<double>(count) * u * (size + 1));
  }
}

// Tables so large that hops write past the caches: a chain of nodes, numbered backwards or not.
template <class T>
void large_tables() {
  const int64_t n = 40000, d = 128 / static_cast<int64_t>(sizeof(T));
  std::vector<int64_t> indptr(n + 1);
  std::vector<int32_t> ids(n), backwards(n);
  for (int64_t r = 0; r <= n; ++r) indptr[r] = r;
  for (int64_t r = 0; r < n; ++r) {
    ids[r] = static_cast<int32_t>(r);
    backwards[r] = static_cast<int32_t>(n - 1 - r);
  }
  const std::vector<T> x[2] = {random_values<T>(n * d, 71), random_values<T>(n * d, 72)};
  for (const bool inside : {false, true}) {
    PropagationProblem problem{};
    std::vector<T> out[2] = {std::vector<T>(4 * n * d), std::vector<T>(4 * n * d)};
    for (int s : {0, 1}) {
      // user r knows item r alone: the order of each side gives the same lists
      problem.side[s] = {n, indptr.data(), ids.data()};
      problem.order[s] = problem.place[s] = inside ? backwards.data() : nullptr;
      problem.x[s] = as_matrix(x[s], n, d);
      problem.given[s] = problem.wanted[s] = {nullptr, n};
    }
    problem.n_layers = 3;
    problem.layers = Layers::every;
    propagate<T>(problem, {out[0].data(), out[1].data()}, threads(2));
    for (int s : {0, 1})  // of degree one everywhere: each hop exchanges the sides
      for (int64_t l = 0; l < 4; ++l)
        CHECK(std::equal(x[(s + l) % 2].begin(), x[(s + l) % 2].end(), out[s].begin() + l * n * d));
  }
}

template <class T>
void all() {
  const int64_t roomy = int64_t{64} << 20, none = 0, few_groups = 48 * 48 * 8 * 4 * 8;
  for (const Options& options : kOptions) {
    fused<T>(1, 2, 1, options, roomy);
    fused<T>(5, 49, 17, options, roomy);
    fused<T>(130, 211, 64, options, roomy);
    fused<T>(130, 211, 64, options, none);        // recomputed exponentials
    fused<T>(200, 150, 33, options, few_groups);  // stashed, in blocks of users
    fused<T>(3, 7000, 8, options, roomy);         // split over items
    sampled<T>(1, 1, 2, 1, options);
    sampled<T>(50, 33, 1000, 17, options);
    sampled<T>(70, 129, 5000, 64, options);
    sampled<T>(20, 40, 300, 96, options);
  }
  retrieval<T>(1, 1, 1, 1);
  retrieval<T>(5, 49, 17, 40);
  retrieval<T>(100, 500, 64, 10);
  retrieval<T>(2, 20000, 8, 33);
  retrieval<T>(60, 2500, 24, 30);  // float32 by bytes where the level has them
  retrieval<T>(50, 7000, 16, 100);
  for (int64_t n_layers : {0, 1, 3}) {
    propagation<T>(3, 3, 1, n_layers, true);
    propagation<T>(70, 200, 33, n_layers, true);
    propagation<T>(500, 300, 64, n_layers, true);
  }
  for (int64_t n_layers : {0, 1, 3}) {
    layers<T>(3, 3, 1, n_layers);
    layers<T>(70, 200, 33, n_layers);
    layers<T>(300, 200, 64, n_layers);
  }
  large_tables<T>();
  propagation<T>(70, 200, 64, 1, false);
  propagation<T>(500, 300, 48, 2, false);
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
  return report();
}
