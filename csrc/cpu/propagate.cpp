// Propagation over a bipartite graph, hop by hop; sums of layers in Horner form: x + A (x + A x).
//
// With c = degree^-1/2, A z = c * neighbours' sum of (c * z). What a hop leaves for the next one is
// multiplied by c, so that an edge needs no value and its row is only added: y' = c * (x + c * sum
// of y); the first hop multiplies x on the way. Every row has one owner and adds its edges in the
// order they lie in; owners get about the same number of edges.
//
// Where only some rows of x are given, the first hop adds those alone (a row's list is reduced to
// the given neighbours); where only some results are wanted, the last hop computes those alone.
//
// Nodes are numbered as the graph has them, so that the rows of nodes close to each other lie
// close; what comes from outside, and goes there, is found by the graph's order. A row adds its
// edges in the order of its list, whatever the numbers: they change no bit.
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
    const int64_t n_layers = p_.n_layers;
    for (int s : {0, 1}) {
      prepare(s);
      side_[s].wanted = distinct(side_[s], p_.wanted[s]);
    }
    if (p_.layers == Layers::every) {
      for (int s : {0, 1}) emit_first(side_[s], p_.wanted[s], out_[s]);
      if (n_layers == 0) return;
    }
    const int64_t hops = std::max<int64_t>(n_layers, 1);  // the one of no layers adds no edges
    for (int64_t h = 1; h < hops; ++h) {
      Buffer<T> next[2] = {Buffer<T>(side_[0].rows * ld_), Buffer<T>(side_[1].rows * ld_)};
      run_hop({h, false}, {next[0].get(), next[1].get()});
      for (int s : {0, 1}) {
        side_[s].scaled = std::move(next[s]);
        side_[s].table = {side_[s].scaled.get(), ld_, nullptr, Table::kNodes};
        if (p_.layers == Layers::every) emit(side_[s], p_.wanted[s], layer_out(s, h));
      }
    }
    last_hop(hops);
  }

 private:
  // Rows that are c * z where they are multiplied by `scale`; of all nodes, numbered as inside or
  // as outside, or of those given.
  struct Table {
    enum Rows { kNodes, kOutside, kGiven };
    const T* data;
    int64_t stride;
    const T* scale;
    Rows rows;
  };

  struct Side {
    int64_t rows, first_row;  // of all nodes, users' before items'
    const int64_t* indptr;
    const int32_t* indices;
    const int32_t *order, *place;  // [rows] what a node is outside and its inverse, or nullptr
    Buffer<T> inverse_root;        // [rows] c, zero for a node without edges
    Nodes given, wanted;
    const T* x;  // rows of d elements that may be read as ld, x_stride apart, layer by layer
    int64_t x_stride;
    Buffer<T> x_copy, dropped, table_root;
    Buffer<T> scaled;  // [rows, ld] c * (what has been propagated so far), from the first hop on
    Table table;       // what the next hop gathers

    int64_t outside_of(int64_t node) const { return order != nullptr ? order[node] : node; }
    int64_t inside_of(int64_t id) const { return place != nullptr ? place[id] : id; }
    int64_t given_rows() const {
      return given.all() ? rows : static_cast<int64_t>(given.ids.size());
    }
    int64_t wanted_rows() const {
      return wanted.all() ? rows : static_cast<int64_t>(wanted.ids.size());
    }
  };

  // Which hop, from 1 on; the last one leaves results, others what the next one gathers.
  struct Hop {
    int64_t number;
    bool last;
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

  static Nodes distinct(const Side& side, const Selection& selection) {
    Nodes nodes;
    if (selection.ids == nullptr) return nodes;
    nodes.place = Buffer<int32_t>(std::max<int64_t>(side.rows, 1), kAbsent);
    for (int64_t b = 0; b < selection.count; ++b) {
      const int64_t node = side.inside_of(selection.ids[b]);
      int32_t& place = nodes.place[node];
      if (place != kAbsent) continue;
      place = static_cast<int32_t>(nodes.ids.size());
      nodes.ids.push_back(static_cast<int32_t>(node));
    }
    return nodes;
  }

  void prepare(int s) {
    Side& side = side_[s];
    const Matrix& x = p_.x[s];
    const Selection& given = p_.given[s];
    side.rows = p_.side[s].rows;
    side.first_row = s == 0 ? 0 : p_.side[0].rows;
    side.indptr = p_.n_layers > 0 ? p_.side[s].indptr : no_edges_.get();
    side.indices = p_.side[s].indices;
    side.order = p_.order[s];
    side.place = p_.place[s];
    side.inverse_root = Buffer<T>(side.rows);
    for_each_row(side.rows, [&](int64_t r) {
      const int64_t degree = side.indptr[r + 1] - side.indptr[r];
      side.inverse_root[r] = degree > 0 ? 1 / std::sqrt(static_cast<T>(degree)) : T(0);
    });
    side.given = distinct(side, given);
    const int64_t rows = side.given_rows();
    const int64_t x_layers = p_.layers == Layers::sum ? p_.n_layers + 1 : 1;
    const bool in_place = side.given.all() && readable_in_place<T>(x) && d_ == ld_;
    if (!in_place) side.x_copy = Buffer<T>(x_layers * rows * ld_);
    if (!side.given.all()) {
      for (int64_t l = 0; l < x_layers; ++l)
        add_up_rows(side, x, given, l * given.count, side.x_copy.get() + l * rows * ld_);
    } else if (!in_place) {
      for_each_row(x_layers * rows,
                   [&](int64_t r) { read_row(x, r, side.x_copy.get() + r * ld_, ld_); });
    }
    side.x = in_place ? row_in_place<T>(x, 0) : side.x_copy.get();
    side.x_stride = in_place ? x.row_stride : ld_;
    make_first_table(side, x_layers - 1);
  }

  // Rows of x that belong to the same node become one; from row `first` of x on.
  void add_up_rows(const Side& side, const Matrix& x, const Selection& given, int64_t first,
                   T* sums) const {
    const Buffer<T> row(ld_);
    int32_t filled = 0;
    for (int64_t b = 0; b < given.count; ++b) {
      const int32_t place = side.given.place[side.inside_of(given.ids[b])];
      T* sum = sums + place * ld_;
      if (place == filled) {
        read_row(x, first + b, sum, ld_);
        ++filled;
      } else {
        read_row(x, first + b, row.get(), ld_);
        kernels_.axpy(d_, T(1), row.get(), sum);
      }
    }
  }

  // The rows of x that hops start from: its only layer, or the last of a sum, with its dropout.
  void make_first_table(Side& side, int64_t layer) const {
    const bool all = side.given.all();
    const int64_t rows = side.given_rows();
    const T* root = side.inverse_root.get();
    if (!all || side.order != nullptr) {
      side.table_root = Buffer<T>(rows);
      for_each_row(rows, [&](int64_t r) {
        side.table_root[r] = side.inverse_root[all ? side.place[r] : side.given.ids[r]];
      });
      root = side.table_root.get();
    }
    side.table = {side.x + layer * rows * side.x_stride, side.x_stride, root,
                  !all                    ? Table::kGiven
                  : side.order != nullptr ? Table::kOutside
                                          : Table::kNodes};
    const Dropout dropout = dropout_of_layer(layer);
    if (p_.layers != Layers::sum || dropout.steps == 0) return;
    side.dropped = Buffer<T>(rows * ld_);
    for_each_row(rows, [&](int64_t r) {
      const int64_t outside = all ? r : side.outside_of(side.given.ids[r]);
      kernels_.dropout_row(dropout, side.first_row + outside, ld_,
                           side.table.data + r * side.x_stride, side.dropped.get() + r * ld_);
    });
    side.table.data = side.dropped.get();
    side.table.stride = ld_;
  }

  Dropout dropout_of_layer(int64_t layer) const {
    if (layer == 0) return {};
    return {p_.dropout.steps, p_.dropout.seed + static_cast<uint64_t>(layer)};
  }

  // Whose rows a hop leaves: sums go down from the last layer. The one hop of no layers leaves 0.
  int64_t layer_of(const Hop& hop) const {
    if (p_.layers != Layers::sum) return hop.number;
    return std::max<int64_t>(p_.n_layers - hop.number, 0);
  }

  // Of what a hop leaves.
  Dropout dropout_of(const Hop& hop) const {
    switch (p_.layers) {
      case Layers::mean: return {};
      case Layers::last: return p_.dropout;
      default: return dropout_of_layer(layer_of(hop));
    }
  }

  // The node's own row that a hop adds, or nullptr where hops add neighbours alone.
  const T* own_row(const Side& side, int64_t node, const Hop& hop) const {
    if (p_.layers == Layers::last || p_.layers == Layers::every) return nullptr;
    const int64_t layer = p_.layers == Layers::sum ? layer_of(hop) : 0;
    const int64_t row = side.given.all() ? side.outside_of(node) : side.given.place[node];
    if (row == kAbsent) return zero_row_.get();
    return side.x + (layer * side.given_rows() + row) * side.x_stride;
  }

  T* layer_out(int s, int64_t layer) const {
    return out_[s] + (p_.layers == Layers::every ? layer * p_.wanted[s].count * d_ : 0);
  }

  void emit_first(const Side& side, const Selection& wanted, T* out) const {
    for_each_row(wanted.count, [&](int64_t b) {
      const int64_t id = wanted.ids != nullptr ? wanted.ids[b] : b;
      std::copy_n(side.x + id * side.x_stride, d_, out + b * d_);
    });
  }

  // Rows that have been left for the next hop, without its factor.
  void emit(const Side& side, const Selection& wanted, T* out) const {
    for_each_row(wanted.count, [&](int64_t b) {
      const int64_t node = side.inside_of(wanted.ids != nullptr ? wanted.ids[b] : b);
      const T root = std::sqrt(static_cast<T>(side.indptr[node + 1] - side.indptr[node]));
      const T* row = side.scaled.get() + node * ld_;
      for (int64_t k = 0; k < d_; ++k) out[b * d_ + k] = row[k] * root;
    });
  }

  // Into the caller's memory; through rows of our own where those wanted are not simply all of them
  // or are not padded.
  void last_hop(int64_t number) {
    Buffer<T> padded_rows[2];
    T *out[2], *to[2];
    for (int s : {0, 1}) {
      const bool direct = side_[s].wanted.all() && d_ == ld_;
      if (!direct) padded_rows[s] = Buffer<T>(side_[s].wanted_rows() * ld_);
      out[s] = layer_out(s, p_.n_layers);
      to[s] = direct ? out[s] : padded_rows[s].get();
    }
    run_hop({number, true}, to);
    for (int s : {0, 1}) {
      if (to[s] == out[s]) continue;
      const Side& side = side_[s];
      for_each_row(p_.wanted[s].count, [&](int64_t b) {
        const int64_t row =
            side.wanted.all() ? b : side.wanted.place[side.inside_of(p_.wanted[s].ids[b])];
        std::copy_n(to[s] + row * ld_, d_, out[s] + b * d_);
      });
    }
  }

  // One hop for every node, or the last one for the nodes that are wanted.
  void run_hop(const Hop& hop, T* const (&to)[2]) const {
    std::vector<Run> runs;
    for (int s : {0, 1}) {
      const Side& side = side_[s];
      const bool all = !hop.last || side.wanted.all();
      const int64_t rows = hop.last ? side.wanted_rows() : side.rows;
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
                  [&](int64_t task, int) { compute(runs[task], hop, to[runs[task].side]); });
  }

  void compute(const Run& run, const Hop& hop, T* to) const {
    const Side &side = side_[run.side], &source = side_[1 - run.side];
    const bool all = !hop.last || side.wanted.all();
    const bool lists_in_place = all && source.table.rows == Table::kNodes;
    const Buffer<int32_t> list(lists_in_place ? 0 : run.edges);
    const Dropout dropout = dropout_of(hop);
    const T factor = p_.layers == Layers::mean && hop.last ? T(1) / static_cast<T>(p_.n_layers + 1)
                                                           : static_cast<T>(dropout.factor());
    int64_t starts[kBlock + 1] = {0}, table_row[kBlock];
    T scale[kBlock], own_scale[kBlock];
    const T* own[kBlock];
    T* out[kBlock];
    GatheredRows<T> g{};
    g.d = ld_;
    g.table = source.table.data;
    g.table_stride = source.table.stride;
    g.table_scale = source.table.scale;
    g.scale = scale;
    g.own_scale = own_scale;
    g.out = out;
    g.table_row = table_row;
    g.dropout = dropout;
    g.stream = all && (side.rows + source.rows) * ld_ * int64_t{sizeof(T)} >= kStreamBytes &&
               reinterpret_cast<uintptr_t>(to) % kRowAlign == 0;
    for (int64_t first = run.first; first < run.last; first += kBlock) {
      g.rows = std::min(kBlock, run.last - first);
      for (int64_t r = 0; r < g.rows; ++r) {
        const int64_t node = all ? first + r : side.wanted.ids[first + r];
        const int64_t outside = side.outside_of(node);
        const T c = side.inverse_root[node];
        own_scale[r] = hop.last ? factor : c * factor;
        scale[r] = own_scale[r] * c;
        own[r] = own_row(side, node, hop);
        table_row[r] = side.first_row + outside;
        out[r] = to + (!all ? first + r : hop.last ? outside : node) * ld_;
        if (!lists_in_place)
          starts[r + 1] = starts[r] + neighbours(side, source, node, list.get() + starts[r]);
      }
      g.own = own[0] != nullptr ? own : nullptr;
      g.starts = lists_in_place ? side.indptr + first : starts;
      g.indices = lists_in_place ? side.indices : list.get();
      g.n_indices = lists_in_place ? side.indptr[side.rows] : starts[g.rows];
      kernels_.gather_rows(g);
    }
  }

  // The node's neighbours that have a row in the source's table, as rows of it; how many.
  static int64_t neighbours(const Side& side, const Side& source, int64_t node, int32_t* list) {
    const int32_t *first = side.indices + side.indptr[node],
                  *end = side.indices + side.indptr[node + 1];
    switch (source.table.rows) {
      case Table::kNodes: return std::copy(first, end, list) - list;
      case Table::kOutside:
        return std::transform(first, end, list, [&](int32_t i) { return source.order[i]; }) - list;
      default: break;
    }
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
