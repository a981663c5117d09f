// The heart of the loss: for every row r of one table, over all columns c of another,
//
//     sums[r]  = sum_c w_rc columns[c]        w_rc = exp2((rows[r] . columns[c]) scale_r scale_c +
//     bias_c) total[r] = sum_c w_rc value_c
//
// With users as rows and items as columns these are the soft-max's sums and the user's gradient;
// with items as rows and users as columns, whose log-sum-exp is in the bias, they are the items'
// gradients. Keys and values are the same tile, so each pass is two products, and nothing of size
// users x items is stored.
//
// A block owns kRows rows and walks over the columns of its split; per tile a warp multiplies
// (scores in registers), takes weights, and multiplies again with the weights as left factor
// straight from the registers. Weights are relative to a running maximum of the row, moved only
// when a score exceeds it by 2^8, so float16 and bfloat16 weights keep their precision whatever the
// scales. Splits of the columns are added up by whoever reads the sums, in order.
#pragma once

#include "prepare.h"

namespace adaptau::cuda {

struct alignas(16) Column {
  float scale, bias;  // log2 units
  float value;        // with the sign of the column's weights, when users are columns
  float unused;
};

// Of one row over one split. Weights are relative to 2^max.
struct alignas(16) RowSums {
  float max, total;
  float unit_max, unit_total;  // the same of exp2(score unit_scale_r scale_c)
};

struct WeightedSums {
  WalkTables<Column> tables;
  const float* row_scale;   // [rows]
  const float* unit_scale;  // [rows] of users, or nullptr: no unit sums
  bool users_are_rows;
  int splits;
  int d;
  float* sums;        // [rows, d] of split 0, or nullptr: totals only
  float* more_sums;   // [splits - 1, rows, d]
  RowSums* row_sums;  // [splits, rows]
};

// Splits of the columns, so that a small table of rows still fills the GPU: they depend on the
// shape alone, and with them the bits of the result.
int weighted_sums_splits(TileType type, int64_t rows, int64_t columns, int64_t d);

// Launches the instance for the type and d.
cudaError_t weighted_sums(TileType type, const WeightedSums& problem, cudaStream_t stream);

template <class Shape>
cudaError_t launch_weighted_sums(const WeightedSums& problem, cudaStream_t stream);

}  // namespace adaptau::cuda
