#include "ranks.cuh"

namespace adaptau::cuda {

template cudaError_t launch_target_scores<Shape<F16, 64>>(const RankCounts&, cudaStream_t);
template cudaError_t launch_count_before<Shape<F16, 64>>(const RankCounts&, cudaStream_t);
template cudaError_t launch_target_scores<Shape<F16, 128>>(const RankCounts&, cudaStream_t);
template cudaError_t launch_count_before<Shape<F16, 128>>(const RankCounts&, cudaStream_t);
template cudaError_t launch_target_scores<Shape<F16, 256>>(const RankCounts&, cudaStream_t);
template cudaError_t launch_count_before<Shape<F16, 256>>(const RankCounts&, cudaStream_t);
template cudaError_t launch_target_scores<Shape<F16, 512>>(const RankCounts&, cudaStream_t);
template cudaError_t launch_count_before<Shape<F16, 512>>(const RankCounts&, cudaStream_t);

}  // namespace adaptau::cuda
