// Which instance of weighted_sums serves a call. The instances are compiled a file a type.
#include "weighted_sums.h"

#include <algorithm>

#include "shapes.h"

namespace adaptau::cuda {
namespace {

// Blocks that fill the largest GPU we plan for: two a multiprocessor.
constexpr int64_t kBlocks = 2 * 132;
constexpr int64_t kTilesPerSplit = 8;

}  // namespace

int weighted_sums_splits(TileType type, int64_t rows, int64_t columns, int64_t d) {
  return with_shape(type, d, [&](auto shape) {
    using S = decltype(shape);
    const int64_t blocks = (rows + S::kRows - 1) / S::kRows * ((d + S::kSums - 1) / S::kSums);
    const int64_t tiles = (columns + S::kColumns - 1) / S::kColumns;
    return static_cast<int>(std::clamp<int64_t>(kBlocks / std::max<int64_t>(blocks, 1), 1,
                                                std::max<int64_t>(tiles / kTilesPerSplit, 1)));
  });
}

cudaError_t weighted_sums(TileType type, const WeightedSums& problem, cudaStream_t stream) {
  return with_shape(type, problem.d, [&](auto shape) {
    return launch_weighted_sums<decltype(shape)>(problem, stream);
  });
}

}  // namespace adaptau::cuda
