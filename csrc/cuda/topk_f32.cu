#include "topk.cuh"

namespace adaptau::cuda {

template cudaError_t launch_topk_lists<Shape<F32, 64>>(const TopkLists&, cudaStream_t);
template cudaError_t launch_topk_lists<Shape<F32, 128>>(const TopkLists&, cudaStream_t);
template cudaError_t launch_topk_lists<Shape<F32, 256>>(const TopkLists&, cudaStream_t);
template cudaError_t launch_topk_lists<Shape<F32, 512>>(const TopkLists&, cudaStream_t);

}  // namespace adaptau::cuda
