#include "topk.cuh"

namespace adaptau::cuda {

template cudaError_t launch_topk_lists<Shape<Bf16, 64>>(const TopkLists&, cudaStream_t);
template cudaError_t launch_topk_lists<Shape<Bf16, 128>>(const TopkLists&, cudaStream_t);
template cudaError_t launch_topk_lists<Shape<Bf16, 256>>(const TopkLists&, cudaStream_t);
template cudaError_t launch_topk_lists<Shape<Bf16, 512>>(const TopkLists&, cudaStream_t);

}  // namespace adaptau::cuda
