// Propagation in Horner form, as on the CPU: x + A (x + A (x + A x)). With c = degree^-1/2, what a
// hop leaves for the next is multiplied by c, so that an edge needs no value: y' = c (x + c sum y).
//
// A warp owns a row: it takes 32 edges at a time, and groups of lanes add the neighbours' rows,
// several in flight. What a row has beyond kOwnEdges is shared out among the block's warps, tile by
// tile, and added up in order, so that a popular item does not hold up the rest. The bits of a row
// depend on its edges alone: rows that are not given count as zero without being read, and a row
// that is wanted alone is the same as among all.
//
// Traffic of a hop, E edges, rows of r bytes: 2 E r is gathered in whole sectors, out of the
// second-level cache where a side's table fits (Yelp2018, d = 64: 8 and 10 MB), 8 E bytes of
// indices are streamed; x, and what the hop writes, are a small part. An edge is one addition a
// float, so the gather is the limit.
#include <cassert>

#include "../core/philox.h"
#include "propagate.h"
#include "row_lanes.cuh"
#include "rows.cuh"
#include "workspace.h"

namespace adaptau::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int64_t kOwnEdges = 256;  // of a row, by its own warp

int64_t padded(int64_t d) { return (d + 3) / 4 * 4; }
unsigned blocks(int64_t n) { return static_cast<unsigned>((n + kThreads - 1) / kThreads); }
__device__ int64_t this_thread() {
  return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

struct Side {
  Adjacency graph;
  Matrix x;             // of every node
  const float* root;    // [rows] c, zero for a node without edges
  const char* present;  // [rows] which rows of x are given, or nullptr: all
  Selection wanted;
};

// One side's part of a hop.
struct HopSide {
  Side side;
  int64_t rows;
  const float* table;   // [nodes of the other side, ld] c * (what has been propagated so far)
  const char* present;  // of the other side's rows, or nullptr: all
  int64_t n_neighbours;
  float* out;  // [rows, out_stride]
  int64_t out_stride;
};

struct Hop {
  HopSide users, items;
  unsigned user_blocks;
  int d;
  int64_t ld;
  bool last, mean, edges;
  float last_factor;  // of the last hop's rows
  Dropout dropout;
};

// Tiles first, first + stride, .. of a row's edges from `begin` on.
template <class Shape>
__device__ __forceinline__ void add_neighbours(const HopSide& hop,
                                               const typename Shape::Reader& table, int64_t begin,
                                               int64_t end, int first, int stride,
                                               typename Shape::Floats& sum) {
  const int lane = threadIdx.x % 32, group = lane / Shape::Lanes;
  for (int64_t tile = begin + first * 32; tile < end; tile += stride * 32) {
    int32_t neighbour = -1;
    if (tile + lane < end) {
      neighbour = __ldcs(hop.side.graph.indices + tile + lane);
      assert(neighbour >= 0 && neighbour < hop.n_neighbours && "the graph's indices are in range");
      if (hop.present != nullptr && hop.present[neighbour] == 0) neighbour = -1;
    }
    const unsigned there = __ballot_sync(kAllLanes, neighbour >= 0);
#pragma unroll 1
    for (int step = 0; step < 32; step += Shape::kStep) {
      if ((there >> step & (0xffffffffu >> (32 - Shape::kStep))) == 0) continue;
      typename Shape::Row rows[Shape::kInFlight];
#pragma unroll
      for (int j = 0; j < Shape::kInFlight; ++j) {
        const int32_t row = __shfl_sync(kAllLanes, neighbour, step + group * Shape::kInFlight + j);
        rows[j] = {};
        if (row >= 0) rows[j] = table.read(row);
      }
#pragma unroll
      for (int j = 0; j < Shape::kInFlight; ++j) sum.add(1, rows[j]);
    }
  }
}

// A block has kWarps rows of one side, and columns from blockIdx.y * kColumns on.
template <class Shape>
__global__ void __launch_bounds__(kThreads, 1) hop_kernel(Hop hop) {
  __shared__ alignas(16) float parts[kWarps][Shape::kColumns];
  const bool is_item = blockIdx.x >= hop.user_blocks;
  const HopSide s = is_item ? hop.items : hop.users;
  const int64_t first_row =
      static_cast<int64_t>(blockIdx.x - (is_item ? hop.user_blocks : 0)) * kWarps;
  const int first_column = static_cast<int>(blockIdx.y) * Shape::kColumns;
  const typename Shape::Reader table({reinterpret_cast<const char*>(s.table + first_column),
                                      static_cast<int32_t>(hop.ld * sizeof(float)),
                                      static_cast<int>(hop.ld) - first_column});
  const int warp = threadIdx.x / 32;

  auto node_of = [&](int64_t row) {
    if (s.side.wanted.ids == nullptr || !hop.last) return row;
    const int64_t node = s.side.wanted.ids[row];
    assert(node >= 0 && node < s.side.graph.rows && "users and items must be nodes of the graph");
    return node;
  };
  auto edges_of = [&](int64_t row, int64_t& begin, int64_t& end) {
    begin = end = 0;
    if (row >= s.rows || !hop.edges) return;
    const int64_t node = node_of(row);
    begin = s.side.graph.indptr[node];
    end = s.side.graph.indptr[node + 1];
    assert(begin >= 0 && begin <= end && end <= s.side.graph.nnz && "the graph's indptr ascends");
  };

  const int64_t row = first_row + warp;
  int64_t begin, end;
  edges_of(row, begin, end);
  typename Shape::Floats sum;
  sum.clear();
  add_neighbours<Shape>(s, table, begin, min(end, begin + kOwnEdges), 0, 1, sum);
  sum.sum_groups();
  for (int w = 0; w < kWarps; ++w) {
    int64_t long_begin, long_end;
    edges_of(first_row + w, long_begin, long_end);
    long_begin += kOwnEdges;
    if (long_begin >= long_end) continue;
    typename Shape::Floats part;
    part.clear();
    add_neighbours<Shape>(s, table, long_begin, long_end, warp, kWarps, part);
    part.sum_groups();
    __syncthreads();  // the last row's parts have been read
    part.store(parts[warp], Shape::kColumns);
    __syncthreads();  // every warp's part is there
    if (warp != w) continue;
    for (int other = 0; other < kWarps; ++other) {
      part.load(parts[other], Shape::kColumns);
      sum.add(1, part);
    }
  }
  if (row >= s.rows) return;

  const int64_t node = node_of(row);
  const float c = hop.edges ? s.side.root[node] : 0;
  const float own_scale = hop.last ? hop.last_factor : c;
  sum.multiply(own_scale * c);
  if (hop.mean) {
    typename Shape::Floats own;
#pragma unroll
    for (int k = 0; k < Shape::Floats::kSize; ++k) {
      const int column = first_column + Shape::column(k / 4) + k % 4;
      own.x[k] = column < s.side.x.cols ? element(s.side.x, node, column) : 0;
    }
    sum.add(own_scale, own);
  }
  if (hop.dropout.steps > 0) {
    const int64_t table_row = is_item ? hop.users.side.graph.rows + node : node;
#pragma unroll
    for (int k = 0; k < Shape::Floats::kSize; k += 4) {
      const uint32_t column = first_column + Shape::column(k / 4);
      const PhiloxWords words =
          draw_words(hop.dropout.seed, table_row, column / kDropoutColumns, 0);
      // four of the block's eight; no index that is known late, which would put words in memory
      const bool later = column % kDropoutColumns != 0;
      const PhiloxWords four{
          {later ? words.word[2] : words.word[0], later ? words.word[3] : words.word[1]}};
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (dropout_bits(four, i) < hop.dropout.steps) sum.x[k + i] = 0;
    }
  }
  const int columns = hop.d - first_column;
  sum.store(s.out + row * s.out_stride + first_column, columns);
}

// out[r] = c x[r] of every node, and c; a thread an element of the padded rows.
__global__ void __launch_bounds__(kThreads)
    scale_kernel(Adjacency graph, Matrix x, int64_t ld, float* root, float* out) {
  const int64_t at = this_thread();
  if (at >= graph.rows * ld) return;
  const int64_t row = at / ld, column = at % ld;
  const int64_t degree = graph.indptr[row + 1] - graph.indptr[row];
  const float c = degree > 0 ? 1 / sqrtf(static_cast<float>(degree)) : 0;
  if (column == 0) root[row] = c;
  out[at] = column < x.cols ? c * element(x, row, column) : 0;
}

// The rows given -> rows of every node, zero before; those of one node add up in order. A thread an
// element.
__global__ void __launch_bounds__(kThreads)
    place_kernel(Matrix x, SortedNodes given, int64_t n_nodes, int64_t ld, float* out,
                 char* present) {
  const int64_t at = this_thread();
  if (at >= x.rows * ld) return;
  const int64_t first = at / ld, column = at % ld, node = given.ids[first];
  assert(node >= 0 && node < n_nodes && "users and items must be nodes of the graph");
  if (first > 0 && given.ids[first - 1] == node) return;
  if (column == 0) present[node] = 1;
  if (column >= x.cols) return;
  float sum = 0;
  for (int64_t p = first; p < x.rows && given.ids[p] == node; ++p)
    sum += element(x, given.order[p], column);
  out[node * ld + column] = sum;
}

class Propagation {
 public:
  Propagation(const PropagationCall& call, void* memory)
      : call_(call), p_(call.problem), ld_(::max(padded(p_.x[0].cols), int64_t{4})) {
    Workspace w(memory);
    for (int s : {0, 1}) {
      const int64_t rows = p_.side[s].rows;
      root_[s] = w.take<float>(rows);
      for (float*& table : tables_[s]) table = w.take<float>(rows * ld_);
      placed_[s] = some_given(s) ? w.take<float>(rows * ld_) : nullptr;
      present_[s] = some_given(s) ? w.take<char>(rows) : nullptr;
    }
    workspace_ = w.used();
  }
  int64_t workspace() const { return workspace_; }

  cudaError_t run(cudaStream_t stream) {
    stream_ = stream;
    for (int s : {0, 1}) prepare(s);
    const int64_t hops = p_.n_layers > 0 ? p_.n_layers : 1;  // the one of no layers adds no edges
    for (int64_t h = 1; h <= hops; ++h) hop(h, h == hops);
    return cudaGetLastError();
  }

 private:
  bool mean() const { return p_.layers == Layers::mean; }
  bool some_given(int s) const { return p_.given[s].ids != nullptr; }

  void prepare(int s) {
    const Adjacency& graph = p_.side[s];
    Side& side = sides_[s];
    side = {graph, p_.x[s], root_[s], nullptr, p_.wanted[s]};
    if (some_given(s)) {
      cudaMemsetAsync(placed_[s], 0, graph.rows * ld_ * sizeof(float), stream_);
      cudaMemsetAsync(present_[s], 0, graph.rows, stream_);
      const int64_t n = p_.given[s].count * ld_;
      if (n > 0)
        place_kernel<<<blocks(n), kThreads, 0, stream_>>>(p_.x[s], call_.given[s], graph.rows, ld_,
                                                          placed_[s], present_[s]);
      side.x = {placed_[s], DType::f32, graph.rows, p_.x[s].cols, ld_, 1};
      side.present = present_[s];
    }
    const int64_t n = graph.rows * ld_;
    if (n > 0 && p_.n_layers > 0)
      scale_kernel<<<blocks(n), kThreads, 0, stream_>>>(graph, side.x, ld_, root_[s],
                                                        tables_[s][0]);
  }

  HopSide hop_side(int s, int64_t h, bool last) const {
    const Side &side = sides_[s], &other = sides_[1 - s];
    const bool first = h == 1;
    return {side,
            last ? side.wanted.count : side.graph.rows,
            tables_[1 - s][(h - 1) % 2],
            first ? other.present : nullptr,
            other.graph.rows,
            last ? call_.out[s] : tables_[s][h % 2],
            last ? p_.x[s].cols : ld_};
  }

  void hop(int64_t h, bool last) {
    const HopSide users = hop_side(0, h, last), items = hop_side(1, h, last);
    auto row_blocks = [](int64_t rows) {
      return static_cast<unsigned>((rows + kWarps - 1) / kWarps);
    };
    const float factor =
        mean() ? 1 / static_cast<float>(p_.n_layers + 1) : static_cast<float>(p_.dropout.factor());
    const Hop call{users,
                   items,
                   row_blocks(users.rows),
                   static_cast<int>(last ? p_.x[0].cols : ld_),
                   ld_,
                   last,
                   mean(),
                   p_.n_layers > 0,
                   factor,
                   p_.dropout};
    const unsigned grid = call.user_blocks + row_blocks(items.rows);
    if (grid == 0 || p_.x[0].cols == 0) return;
    if (ld_ <= 32) {
      launch<RowShape<float, 8, 1>>(call, grid);
    } else if (ld_ <= 64) {
      launch<RowShape<float, 16, 1>>(call, grid);
    } else {
      launch<RowShape<float, 32, 1>>(call, grid);
    }
  }

  template <class Shape>
  void launch(const Hop& call, unsigned grid) {
    const unsigned slices = static_cast<unsigned>((ld_ + Shape::kColumns - 1) / Shape::kColumns);
    hop_kernel<Shape><<<dim3(grid, slices), kThreads, 0, stream_>>>(call);
  }

  const PropagationCall& call_;
  const PropagationProblem& p_;
  const int64_t ld_;
  float *root_[2], *tables_[2][2], *placed_[2];
  char* present_[2];
  Side sides_[2];
  int64_t workspace_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace

int64_t propagate_workspace(const PropagationCall& call) {
  return Propagation(call, nullptr).workspace();
}

cudaError_t propagate(const PropagationCall& call, void* workspace, cudaStream_t stream) {
  return Propagation(call, workspace).run(stream);
}

}  // namespace adaptau::cuda
