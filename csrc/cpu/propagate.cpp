// Propagation over a bipartite graph, in Horner form: x + A (x + A (x + A x)).
//
// With c = degree^-1/2, A z = c * neighbours' sum of (c * z). What a hop leaves for the next one is
// multiplied by c, so that an edge needs no value and its row is only added: y' = c * (x + c * sum
// of y); the first hop multiplies x on the way. Every row has one owner and adds its edges in the
// order they lie in; owners get about the same number of edges.
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

constexpr int64_t kBlock = 64;           // rows a kernel call
constexpr int64_t kTaskWork = 16 << 10;  // edges and rows a task, about
constexpr int64_t kTaskRows = 512;       // rows a task where edges do not matter
constexpr int32_t kAbsent = -1;
// Tables of this size together leave the caches before they are read again anyway; writing past
// them keeps the rows that are gathered (measured: 5 to 10 % of a hop).
constexpr int64_t kStreamBytes = int64_t{8} << 20;

// Distinct nodes of a selection, in the order they first appear; empty for every node.
struct Nodes {
  std::vector<int32_t> ids;
  Buffer<int32_t> place;  // [nodes of the side] where a node stands in ids, or kAbsent

  bool all() const { return place.size() == 0; }
};

Nodes distinct(const Selection& selection, int64_t n_nodes) {
  Nodes nodes;
  if (selection.ids == nullptr) return nodes;
  nodes.place = Buffer<int32_t>(std::max<int64_t>(n_nodes, 1), kAbsent);
  for (int64_t b = 0; b < selection.count; ++b) {
    int32_t& place = nodes.place[selection.ids[b]];
    if (place != kAbsent) continue;
    place = static_cast<int32_t>(nodes.ids.size());
    nodes.ids.push_back(static_cast<int32_t>(selection.ids[b]));
  }
  return nodes;
}

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
      Buffer<T> next[2] = {Buffer<T>(side_[0].rows * ld_), Buffer<T>(side_[1].rows * ld_)};
      hop(false, {next[0].get(), next[1].get()});
      for (int s : {0, 1}) {
        side_[s].scaled = std::move(next[s]);
        side_[s].table = {side_[s].scaled.get(), ld_, nullptr, true};
      }
    }
    last_hop();
  }

 private:
  // Rows that are c * z where they are multiplied by `scale`; of all nodes, or of those given.
  struct Table {
    const T* data;
    int64_t stride;
    const T* scale;
    bool has_all;
  };

  struct Side {
    int64_t rows;
    const int64_t* indptr;
    const int32_t* indices;
    Buffer<T> inverse_root;  // [rows] c, zero for a node without edges
    Nodes given, wanted;
    const T* x;  // rows of d elements that may be read as ld, x_stride apart
    int64_t x_stride;
    Buffer<T> x_copy, given_root;
    Buffer<T> scaled;  // [rows, ld] c * (what has been propagated so far), from the first hop on
    Table table;       // what the next hop gathers

    int64_t given_rows() const {
      return given.all() ? rows : static_cast<int64_t>(given.ids.size());
    }
    int64_t wanted_rows() const {
      return wanted.all() ? rows : static_cast<int64_t>(wanted.ids.size());
    }
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
    side.given = distinct(given, side.rows);
    const int64_t rows = side.given_rows();
    const bool in_place = side.given.all() && readable_in_place<T>(x) && d_ == ld_;
    if (!in_place) side.x_copy = Buffer<T>(rows * ld_);
    if (!side.given.all()) {
      add_up_rows(side, x, given);
    } else if (!in_place) {
      for_each_row(rows, [&](int64_t r) { read_row(x, r, side.x_copy.get() + r * ld_, ld_); });
    }
    side.x = in_place ? row_in_place<T>(x, 0) : side.x_copy.get();
    side.x_stride = in_place ? x.row_stride : ld_;
    side.table = {side.x, side.x_stride, side.inverse_root.get(), side.given.all()};
    if (!side.given.all()) {
      side.given_root = Buffer<T>(rows);
      for (int64_t r = 0; r < rows; ++r) side.given_root[r] = side.inverse_root[side.given.ids[r]];
      side.table.scale = side.given_root.get();
    }
  }

  // Rows of x that belong to the same node become one.
  void add_up_rows(Side& side, const Matrix& x, const Selection& given) const {
    const Buffer<T> row(ld_);
    int32_t filled = 0;
    for (int64_t b = 0; b < given.count; ++b) {
      const int32_t place = side.given.place[given.ids[b]];
      T* sum = side.x_copy.get() + place * ld_;
      if (place == filled) {
        read_row(x, b, sum, ld_);
        ++filled;
      } else {
        read_row(x, b, row.get(), ld_);
        kernels_.axpy(d_, T(1), row.get(), sum);
      }
    }
  }

  // Into the caller's memory; through rows of our own where those wanted are not simply all of them
  // or are not padded.
  void last_hop() {
    Buffer<T> padded_rows[2];
    T* to[2];
    for (int s : {0, 1}) {
      side_[s].wanted = distinct(p_.wanted[s], side_[s].rows);
      const bool direct = side_[s].wanted.all() && d_ == ld_;
      if (!direct) padded_rows[s] = Buffer<T>(side_[s].wanted_rows() * ld_);
      to[s] = direct ? out_[s] : padded_rows[s].get();
    }
    hop(true, to);
    for (int s : {0, 1}) {
      if (to[s] == out_[s]) continue;
      const Nodes& wanted = side_[s].wanted;
      for_each_row(p_.wanted[s].count, [&](int64_t b) {
        const int64_t row = wanted.all() ? b : wanted.place[p_.wanted[s].ids[b]];
        std::copy_n(to[s] + row * ld_, d_, out_[s] + b * d_);
      });
    }
  }

  // One hop for every node, or the last one for the nodes that are wanted.
  void hop(bool last, T* const (&to)[2]) const {
    std::vector<Run> runs;
    for (int s : {0, 1}) {
      const Side& side = side_[s];
      const bool all = !last || side.wanted.all();
      const int64_t rows = last ? side.wanted_rows() : side.rows;
      for (int64_t r = 0, work = kTaskWork; r < rows; ++r) {
        const int64_t node = all ? r : side.wanted.ids[r];
        const int64_t edges = side.indptr[node + 1] - side.indptr[node];
        if (work >= kTaskWork) runs.push_back({s, r, r, 0}), work = 0;
        runs.back().last = r + 1;
        runs.back().edges += edges;
        work += edges + 1;
      }
    }
    for_each_task(parallel_, static_cast<int64_t>(runs.size()),
                  [&](int64_t task, int) { compute(runs[task], last, to[runs[task].side]); });
  }

  void compute(const Run& run, bool last, T* to) const {
    const Side &side = side_[run.side], &source = side_[1 - run.side];
    const bool all = !last || side.wanted.all();
    const bool lists_in_place = all && source.table.has_all;
    const Buffer<int32_t> list(lists_in_place ? 0 : run.edges);
    const T last_factor =
        p_.mean ? T(1) / static_cast<T>(p_.n_layers + 1) : static_cast<T>(p_.dropout.factor());
    const int64_t first_table_row = run.side == 0 ? 0 : source.rows;
    int64_t starts[kBlock + 1] = {0}, table_row[kBlock];
    T scale[kBlock], own_scale[kBlock];
    const T* own[kBlock];
    GatheredRows<T> g{};
    g.d = ld_;
    g.table = source.table.data;
    g.table_stride = source.table.stride;
    g.table_scale = source.table.scale;
    g.scale = scale;
    g.own = p_.mean ? own : nullptr;
    g.own_scale = own_scale;
    g.table_row = table_row;
    g.dropout = p_.dropout;
    g.stream = all && (side.rows + source.rows) * ld_ * int64_t{sizeof(T)} >= kStreamBytes &&
               reinterpret_cast<uintptr_t>(to) % kRowAlign == 0;
    for (int64_t first = run.first; first < run.last; first += kBlock) {
      g.rows = std::min(kBlock, run.last - first);
      for (int64_t r = 0; r < g.rows; ++r) {
        const int64_t node = all ? first + r : side.wanted.ids[first + r];
        const T c = side.inverse_root[node];
        own_scale[r] = last ? last_factor : c;
        table_row[r] = first_table_row + node;
        scale[r] = own_scale[r] * c;
        own[r] = own_row(side, node);
        if (!lists_in_place)
          starts[r + 1] = starts[r] + neighbours(side, source, node, list.get() + starts[r]);
      }
      g.starts = lists_in_place ? side.indptr + first : starts;
      g.indices = lists_in_place ? side.indices : list.get();
      g.n_indices = lists_in_place ? side.indptr[side.rows] : starts[g.rows];
      kernels_.gather_rows(g, to + first * ld_);
    }
  }

  const T* own_row(const Side& side, int64_t node) const {
    if (side.given.all()) return side.x + node * side.x_stride;
    const int32_t place = side.given.place[node];
    return place == kAbsent ? zero_row_.get() : side.x + place * side.x_stride;
  }

  // The node's neighbours that have a row in the source's table, as rows of it; how many.
  static int64_t neighbours(const Side& side, const Side& source, int64_t node, int32_t* list) {
    const int32_t *first = side.indices + side.indptr[node],
                  *end = side.indices + side.indptr[node + 1];
    if (source.table.has_all) return std::copy(first, end, list) - list;
    int64_t n = 0;
    for (; first != end; ++first) {
      list[n] = source.given.place[*first];
      n += list[n] != kAbsent;  // no branch: nobody could predict it
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
