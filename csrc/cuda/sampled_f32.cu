#include "sampled_dtype.cuh"

namespace adaptau::cuda {

template cudaError_t sampled_rows_of<float>(const SampledCall&, cudaStream_t);
template cudaError_t sampled_scores_of<float>(const SampledCall&, cudaStream_t);
template cudaError_t sampled_items_of<float>(const ItemPass&, cudaStream_t);

}  // namespace adaptau::cuda
