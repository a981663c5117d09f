#include "ranks.cuh"

namespace adaptau::cuda {

template cudaError_t launch_target_scores<Shape<F32, 64>>(const RankCounts&, cudaStream_t);
template cudaError_t launch_count_before<Shape<F32, 64>>(const RankCounts&, cudaStream_t);
template cudaError_t launch_target_scores<Shape<F32, 128>>(const RankCounts&, cudaStream_t);
template cudaError_t launch_count_before<Shape<F32, 128>>(const RankCounts&, cudaStream_t);
template cudaError_t launch_target_scores<Shape<F32, 256>>(const RankCounts&, cudaStream_t);
template cudaError_t launch_count_before<Shape<F32, 256>>(const RankCounts&, cudaStream_t);
template cudaError_t launch_target_scores<Shape<F32, 512>>(const RankCounts&, cudaStream_t);
template cudaError_t launch_count_before<Shape<F32, 512>>(const RankCounts&, cudaStream_t);

}  // namespace adaptau::cuda
