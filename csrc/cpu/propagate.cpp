// Propagation over a bipartite graph, in Horner form: x + A (x + A (x + A x)).
//
// With c = degree^-1/2, A z = c * neighbours' sum of (c * z): tables are kept multiplied by c, so
// that an edge needs no value and its row is only added: y' = c * (x + c * sum of y). Every row has
// one owner and adds its edges in the order they lie in; owners get about the same number of edges.
//
// Where only some rows of x are given, the first hop adds those alone (a row's list is reduced to
// the given neighbours); where only some results are wanted, the last hop computes those alone.
#include <algorithm>
#include <cmath>
#include <vector>

#include "operators.h"
#include "rows.h"

namespace adaptau {
namespace {

constexpr int64_t kBlock = 64;            // rows a kernel call
constexpr int64_t kTaskEdges = 16 << 10;  // edges and rows a task, about
constexpr int64_t kTaskRows = 512;        // rows a task where edges do not matter
constexpr int32_t kNotGiven = -1;

template <class T>
class Propagation {
 public:
  Propagation(const PropagationProblem& problem, T* const (&out)[2], const Parallel& parallel)
      : p_(problem),
        out_{out[0], out[1]},
        parallel_(parallel),
        kernels_(active_kernels<T>()),
        d_(problem.x[0].cols),
        ld_(padded<T>(d_)),
        zero_row_(ld_, T(0)),
        no_edges_(std::max(problem.side[0].rows, problem.side[1].rows) + 1, int64_t{0}) {}

  void run() {
    for (int s : {0, 1}) prepare(side_[s], p_.side[s], p_.x[s], p_.given[s]);
    const int64_t hops = std::max<int64_t>(p_.n_layers, 1);  // the one of no layers adds no edges
    for (int64_t h = 1; h < hops; ++h) {
      Buffer<T> next[2];
      for (int s : {0, 1}) next[s] = Buffer<T>(p_.side[s].rows * ld_);
      hop(false, {next[0].get(), next[1].get()});
      for (int s : {0, 1}) {
        side_[s].scaled = std::move(next[s]);
        side_[s].scaled_is_compact = false;
      }
    }
    hop(true, out_);
  }

 private:
  struct Side {
    int64_t rows;
    const int64_t* indptr;
    const int32_t* indices;
    Buffer<T> inverse_root;      // [rows] c, zero for a node without edges
    Buffer<int32_t> position;    // [rows] row of a node in compact tables, if only some are given
    std::vector<int32_t> given;  // node of each row of compact tables
    const T* x;                  // rows of d elements that may be read as ld, x_stride apart
    int64_t x_stride;
    Buffer<T> x_copy;
    Buffer<T> scaled;  // [rows or compact, ld] c * (what has been propagated so far)
    bool scaled_is_compact;

    bool compact() const { return position.size() > 0; }
  };

  // Rows [first, last) of a side's results, with so many edges.
  struct Run {
    int side;
    int64_t first, last, edges;
  };

  template <class F>
  void for_each_row(int64_t rows, F&& f) const {
    for_each_task(parallel_, (rows + kTaskRows - 1) / kTaskRows, [&](int64_t task, int) {
      for (int64_t r = task * kTaskRows; r < std::min(rows, (task + 1) * kTaskRows); ++r) f(r);
    });
  }

  void prepare(Side& side, const Adjacency& graph, const Matrix& x, const Selection& given) const {
    side.rows = graph.rows;
    side.indptr = p_.n_layers > 0 ? graph.indptr : no_edges_.get();
    side.indices = graph.indices;
    side.inverse_root = Buffer<T>(side.rows);
    for_each_row(side.rows, [&](int64_t r) {
      const int64_t degree = side.indptr[r + 1] - side.indptr[r];
      side.inverse_root[r] = degree > 0 ? 1 / std::sqrt(static_cast<T>(degree)) : T(0);
    });
    int64_t rows = side.rows;
    const bool in_place = given.ids == nullptr && readable_in_place<T>(x) && d_ == ld_;
    if (given.ids != nullptr) {
      add_up_rows(side, x, given);
      rows = static_cast<int64_t>(side.given.size());
    } else if (!in_place) {
      side.x_copy = Buffer<T>(rows * ld_);
    }
    side.x = in_place ? row_in_place<T>(x, 0) : side.x_copy.get();
    side.x_stride = in_place ? x.row_stride : ld_;
    side.scaled = Buffer<T>(rows * ld_);
    side.scaled_is_compact = side.compact();
    for_each_row(rows, [&](int64_t r) {
      if (given.ids == nullptr && !in_place) read_row(x, r, side.x_copy.get() + r * ld_, ld_);
      const T c = side.inverse_root[side.compact() ? side.given[r] : r];
      const T* from = side.x + r * side.x_stride;
      T* to = side.scaled.get() + r * ld_;
      for (int64_t k = 0; k < ld_; ++k) to[k] = c * from[k];
    });
  }

  // Given rows of the same node become one row, in the order of their first.
  void add_up_rows(Side& side, const Matrix& x, const Selection& given) const {
    side.position = Buffer<int32_t>(std::max<int64_t>(side.rows, 1), kNotGiven);
    side.x_copy = Buffer<T>(std::min(given.count, side.rows) * ld_);
    const Buffer<T> row(ld_);
    for (int64_t b = 0; b < given.count; ++b) {
      int32_t& position = side.position[given.ids[b]];
      if (position == kNotGiven) {
        position = static_cast<int32_t>(side.given.size());
        side.given.push_back(static_cast<int32_t>(given.ids[b]));
        read_row(x, b, side.x_copy.get() + position * ld_, ld_);
      } else {
        read_row(x, b, row.get(), ld_);
        kernels_.axpy(d_, T(1), row.get(), side.x_copy.get() + position * ld_);
      }
    }
  }

  // One hop for every node, or the last one for the nodes that are wanted.
  void hop(bool last, T* const (&to)[2]) const {
    std::vector<Run> runs;
    Buffer<int64_t> edges_before[2];
    for (int s : {0, 1}) {
      const Side& side = side_[s];
      const Selection& wanted = p_.wanted[s];
      if (last && wanted.ids != nullptr) {
        edges_before[s] = Buffer<int64_t>(wanted.count + 1, int64_t{0});
        for (int64_t b = 0; b < wanted.count; ++b)
          edges_before[s][b + 1] =
              edges_before[s][b] + side.indptr[wanted.ids[b] + 1] - side.indptr[wanted.ids[b]];
        cut(s, wanted.count, edges_before[s].get(), runs);
      } else {
        cut(s, side.rows, side.indptr, runs);
      }
    }
    for_each_task(parallel_, static_cast<int64_t>(runs.size()),
                  [&](int64_t task, int) { compute(runs[task], last, to[runs[task].side]); });
  }

  static void cut(int side, int64_t rows, const int64_t* edges_before, std::vector<Run>& runs) {
    for (int64_t first = 0, last = 0; first < rows; first = last) {
      const int64_t enough = edges_before[first] + first + kTaskEdges;
      while (last < rows && (last == first || edges_before[last] + last < enough)) ++last;
      runs.push_back({side, first, last, edges_before[last] - edges_before[first]});
    }
  }

  void compute(const Run& run, bool last, T* to) const {
    const Side &side = side_[run.side], &source = side_[1 - run.side];
    const int64_t* ids = last ? p_.wanted[run.side].ids : nullptr;
    const T mean = p_.mean ? T(1) / static_cast<T>(p_.n_layers + 1) : T(1);
    const bool lists_in_place = ids == nullptr && !source.scaled_is_compact;
    const bool out_in_place = !last || d_ == ld_;
    const Buffer<int32_t> list(lists_in_place ? 0 : run.edges);
    const Buffer<T> block(out_in_place ? 0 : kBlock * ld_);
    int64_t starts[kBlock + 1];
    T scale[kBlock], own_scale[kBlock];
    const T* own[kBlock];
    GatheredRows<T> g{};
    g.d = ld_;
    g.table = source.scaled.get();
    g.scale = scale;
    g.own = p_.mean ? own : nullptr;
    g.own_scale = own_scale;
    for (int64_t first = run.first; first < run.last; first += kBlock) {
      g.rows = std::min(kBlock, run.last - first);
      starts[0] = 0;
      for (int64_t r = 0; r < g.rows; ++r) {
        const int64_t node = ids != nullptr ? ids[first + r] : first + r;
        const T c = side.inverse_root[node];
        own_scale[r] = last ? mean : c;
        scale[r] = own_scale[r] * c;
        own[r] = own_row(side, node);
        if (!lists_in_place)
          starts[r + 1] = starts[r] + neighbours(side, node, list.get() + starts[r]);
      }
      if (lists_in_place) {
        g.starts = side.indptr + first;
        g.indices = side.indices;
        g.n_indices = side.indptr[side.rows];
      } else {
        g.starts = starts;
        g.indices = list.get();
        g.n_indices = starts[g.rows];
      }
      kernels_.gather_rows(g, out_in_place ? to + first * ld_ : block.get());
      if (!out_in_place)
        for (int64_t r = 0; r < g.rows; ++r)
          std::copy_n(block.get() + r * ld_, d_, to + (first + r) * d_);
    }
  }

  const T* own_row(const Side& side, int64_t node) const {
    if (!side.compact()) return side.x + node * side.x_stride;
    const int32_t position = side.position[node];
    return position == kNotGiven ? zero_row_.get() : side.x + position * side.x_stride;
  }

  // The node's neighbours that have a row in the other side's table, as rows of it; how many.
  int64_t neighbours(const Side& side, int64_t node, int32_t* list) const {
    const Side& source = side_[&side == side_ ? 1 : 0];
    const int32_t *first = side.indices + side.indptr[node],
                  *end = side.indices + side.indptr[node + 1];
    if (!source.scaled_is_compact) return std::copy(first, end, list) - list;
    int64_t n = 0;
    for (; first != end; ++first) {
      list[n] = source.position[*first];
      n += list[n] != kNotGiven;  // no branch: nobody could predict it
    }
    return n;
  }

  const PropagationProblem& p_;
  T* const out_[2];
  const Parallel& parallel_;
  const Kernels<T>& kernels_;
  const int64_t d_, ld_;
  const Buffer<T> zero_row_;
  const Buffer<int64_t> no_edges_;
  Side side_[2];
};

}  // namespace

template <class T>
void propagate(const PropagationProblem& problem, T* const (&out)[2], const Parallel& parallel) {
  Propagation<T>(problem, out, parallel).run();
}
template void propagate<float>(const PropagationProblem&, float* const (&)[2], const Parallel&);
template void propagate<double>(const PropagationProblem&, double* const (&)[2], const Parallel&);

}  // namespace adaptau
