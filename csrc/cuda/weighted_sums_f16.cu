#include "weighted_sums.cuh"

namespace adaptau::cuda {

template cudaError_t launch_weighted_sums<Shape<F16, 64>>(const WeightedSums&, cudaStream_t);
template cudaError_t launch_weighted_sums<Shape<F16, 128>>(const WeightedSums&, cudaStream_t);
template cudaError_t launch_weighted_sums<Shape<F16, 256>>(const WeightedSums&, cudaStream_t);
template cudaError_t launch_weighted_sums<Shape<F16, 512>>(const WeightedSums&, cudaStream_t);

}  // namespace adaptau::cuda
