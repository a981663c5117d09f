#include "ranks.cuh"

namespace adaptau::cuda {

template cudaError_t launch_target_scores<Shape<Bf16, 64>>(const RankCounts&, cudaStream_t);
template cudaError_t launch_count_before<Shape<Bf16, 64>>(const RankCounts&, cudaStream_t);
template cudaError_t launch_target_scores<Shape<Bf16, 128>>(const RankCounts&, cudaStream_t);
template cudaError_t launch_count_before<Shape<Bf16, 128>>(const RankCounts&, cudaStream_t);
template cudaError_t launch_target_scores<Shape<Bf16, 256>>(const RankCounts&, cudaStream_t);
template cudaError_t launch_count_before<Shape<Bf16, 256>>(const RankCounts&, cudaStream_t);
template cudaError_t launch_target_scores<Shape<Bf16, 512>>(const RankCounts&, cudaStream_t);
template cudaError_t launch_count_before<Shape<Bf16, 512>>(const RankCounts&, cudaStream_t);

}  // namespace adaptau::cuda
