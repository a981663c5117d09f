#include "weighted_sums.cuh"

namespace adaptau::cuda {

template cudaError_t launch_weighted_sums<Shape<Tf32, 64>>(const WeightedSums&, cudaStream_t);
template cudaError_t launch_weighted_sums<Shape<Tf32, 128>>(const WeightedSums&, cudaStream_t);
template cudaError_t launch_weighted_sums<Shape<Tf32, 256>>(const WeightedSums&, cudaStream_t);
template cudaError_t launch_weighted_sums<Shape<Tf32, 512>>(const WeightedSums&, cudaStream_t);

}  // namespace adaptau::cuda
