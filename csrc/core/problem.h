// What the operators are asked to do, as plain data: no tensors, no devices' headers.
//
// The torch layer fills these structs after checking every shape and value; the CPU and CUDA
// kernels read them. All pointers are borrowed for the duration of the call.
#pragma once

#include <cstdint>

namespace adaptau {

enum class DType { f32, f64, bf16, f16 };
inline int64_t size_of(DType dtype) {
  return dtype == DType::f64 ? 8 : dtype == DType::f32 ? 4 : 2;
}

// A strided [rows, cols] matrix; strides count elements and may be zero or negative.
struct Matrix {
  const void* data;
  DType dtype;
  int64_t rows, cols;
  int64_t row_stride, col_stride;
};

// Rows of sorted, distinct, in-range ids. indptr == nullptr means every row is empty.
struct Csr {
  const int64_t* indptr = nullptr;   // [rows + 1]
  const int64_t* indices = nullptr;  // [nnz]
};

struct Normalize {
  bool user, item;  // "both" = {1, 1}, "user" = {1, 0}, "item" = {0, 1}, "none" = {0, 0}
};

// Does the positive's own term stand in the denominator ("all") or not ("negatives")?
enum class Denominator { all, negatives };

// What the products of the dense loss are rounded to; sums are always of the compute type. Anything
// but float32 is permission: a processor without instructions for it computes in float32. tf32 has
// 11 significant bits, on GPUs only; bfloat16 allows any factors of 16 bits.
enum class Precision { float32, tf32, bfloat16 };

// How one row's logits are made; shared by the dense and the sampled loss. T is the compute type.
template <class T>
struct SoftmaxTerms {
  const T* tau;           // [B] temperature of the negatives
  const T* positive_tau;  // [B] temperature of the positive, or nullptr: tau
  const T* log_q;         // [M] subtracted from the negatives' logits, or nullptr
  Denominator denominator;
  Normalize normalize;
};

// Loss over every candidate: L_b = -z+ + log([e^z+] + sum_j e^(s_bj / tau_b - log_q_j)).
template <class T>
struct SoftmaxProblem {
  Matrix users;           // [B, d]
  Matrix items;           // [M, d]
  const int64_t* target;  // [B] row of items that is user b's positive, or nullptr: b itself; -1:
                          // it has none, and L_b is the log of the sum alone
  Csr masked;             // per user: candidates that leave the denominator; never the positive
  SoftmaxTerms<T> terms;
  Precision precision = Precision::float32;  // of float; double is always double
};

// Loss over drawn (or given) negatives, the rows of two tables addressed by id.
template <class T>
struct SampledProblem {
  Matrix user_table;         // [n_users, d]
  Matrix item_table;         // [n_items, d]
  const int64_t* users;      // [B] or nullptr: row b
  const int64_t* positives;  // [B]
  const int64_t* negatives;  // [B, N] or nullptr: drawn by the counter generator from seed
  int64_t n_rows, n_negatives;
  uint64_t seed;
  double item_l2;  // each row's loss gains item_l2 / 2 * |i|^2 of every item row it uses
  SoftmaxTerms<T> terms;
};

// Scores of some items for each user: s_bn = <u_b, i_listed[b, n]>.
struct ScoresProblem {
  Matrix users;           // [B, d]
  Matrix items;           // [M, d]
  const int64_t* listed;  // [B, N] rows of items
  int64_t n_listed;       // N
  Normalize normalize;
};

// Where results go; a null pointer means "not wanted". Gradients are of sum_b weight_b * L_b.
template <class T>
struct SoftmaxOutput {
  T* loss;               // [B]
  T* unit_loss;          // [B] the same loss with both temperatures 1 and no log_q, or nullptr
  const T* weight;       // [B] or nullptr: no gradients
  T* grad_users;         // [B, d] contiguous; for the sampled loss also [B, d], one row a batch row
  T* grad_items;         // [M, d] contiguous
  T* grad_tau;           // [B]
  T* grad_positive_tau;  // [B]
  T* grad_log_q;         // [M]
  // Of the sampled loss on a CPU, if all rows count the same: where the squares of all items used
  // are added up, which then are no part of the rows' losses.
  double* squares;
};

// A step of Adam on rows of a table [rows, d]: `rows`, or the first n for nullptr. Those that
// missed steps take them first, as if their gradient had been zero. Without a gradient they only do
// that, up to `step`; equal rows' gradients are added up.
template <class T>
struct AdamProblem {
  T *parameter, *mean, *square;  // the moments of the gradient
  int64_t* last_step;            // how many steps each row has taken
  int64_t d;
  const int64_t* rows;  // [n] or nullptr
  int64_t n;
  const T* gradient;  // [n, d] or nullptr
  int64_t step;       // from 1
  double lr, beta1, beta2, epsilon;
};

// The k best candidates of each user in the total order of order.h.
struct TopkProblem {
  Matrix users, items;
  Csr excluded;
  Normalize normalize;
  int64_t k;
};

// The 1-based place of each target among its user's candidates; exclusions leave the competition.
// Items may be a part of a catalogue, from item first_item on; targets are then items of all of it
// and come with their scores, [nnz] of the compute type.
struct RanksProblem {
  Matrix users, items;
  Csr targets, excluded;
  Normalize normalize;
  const void* target_scores = nullptr;  // or nullptr: targets are rows of items
  int64_t first_item = 0;
};

// One side of a bipartite graph: the neighbours of each node, as rows of the other side.
struct Adjacency {
  int64_t rows;
  const int64_t* indptr;   // [rows + 1]
  const int32_t* indices;  // [nnz]
  int64_t nnz = 0;         // indptr[rows], for kernels that check what they read
};

// Nodes of one side, in any order, some maybe more than once.
struct Selection {
  const int64_t* ids = nullptr;  // [count], or nullptr: every node in order
  int64_t count = 0;
};

// Elements of a table that become zero, each with probability steps / 2^16, by the draw at its row
// and column (philox.h); what is left is multiplied by `factor`, which keeps the mean.
struct Dropout {
  int64_t steps = 0;
  uint64_t seed = 0;

  static constexpr int64_t kSteps = 65536;
  double factor() const {
    return static_cast<double>(kSteps) / static_cast<double>(kSteps - steps);
  }
};

// Rows of x, of a table in which they are first_row + ids[row] (ids == nullptr: first_row + row).
struct DropoutProblem {
  Matrix x;
  const int64_t* ids;
  int64_t first_row;
  Dropout dropout;
};

// What a propagation of L layers leaves, with A = D^-1/2 [[0, R], [R^T, 0]] D^-1/2 and M_l the l-th
// dropout.
enum class Layers {
  mean,   // (x + A x + .. + A^L x) / (L + 1), without dropout
  last,   // A^L x, of L >= 1; dropout of L = 1
  every,  // E_0 = x and E_l = M_l A E_(l - 1), each a result: [L + 1, rows, d]
  sum,    // the transpose: G_0 with G_L = x_L and G_l = x_l + A M_(l + 1) G_(l + 1)
};

// Sides: users, items. Rows of x belong to the nodes `given` (rows of one node add up, nodes
// without one have a zero row), those of `sum` to all layers, one below the other; results are
// those of the nodes `wanted`. A is symmetric, so the gradient is the same problem with the two
// exchanged. Dropout numbers users' rows before items', M_l has the seed + l, that of `last` the
// seed.
//
// Nodes may be numbered otherwise inside the graph than in x, selections, results and dropout:
// node r of a side is order[r] there, or r itself if order is nullptr. place is its inverse.
struct PropagationProblem {
  Adjacency side[2];
  const int32_t *order[2], *place[2];
  Matrix x[2];
  Selection given[2], wanted[2];
  int64_t n_layers;
  Layers layers;
  Dropout dropout;
};

}  // namespace adaptau
