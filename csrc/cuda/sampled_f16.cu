#include "sampled_dtype.cuh"

namespace adaptau::cuda {

template cudaError_t sampled_rows_of<__half>(const SampledCall&, cudaStream_t);
template cudaError_t sampled_scores_of<__half>(const SampledCall&, cudaStream_t);
template cudaError_t sampled_items_of<__half>(const ItemPass&, cudaStream_t);

}  // namespace adaptau::cuda
