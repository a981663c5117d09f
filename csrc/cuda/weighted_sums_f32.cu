#include "weighted_sums.cuh"

namespace adaptau::cuda {

template cudaError_t launch_weighted_sums<Shape<F32, 64>>(const WeightedSums&, cudaStream_t);
template cudaError_t launch_weighted_sums<Shape<F32, 128>>(const WeightedSums&, cudaStream_t);
template cudaError_t launch_weighted_sums<Shape<F32, 256>>(const WeightedSums&, cudaStream_t);
template cudaError_t launch_weighted_sums<Shape<F32, 512>>(const WeightedSums&, cudaStream_t);

}  // namespace adaptau::cuda
