#include "sampled_dtype.cuh"

namespace adaptau::cuda {

template cudaError_t sampled_rows_of<__nv_bfloat16>(const SampledCall&, cudaStream_t);
template cudaError_t sampled_scores_of<__nv_bfloat16>(const SampledCall&, cudaStream_t);
template cudaError_t sampled_items_of<__nv_bfloat16>(const ItemPass&, cudaStream_t);

}  // namespace adaptau::cuda
