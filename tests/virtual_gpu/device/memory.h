// Tensors of the torch device "virtual". Their memory is the CUDA-runtime replacement's, which is
// host memory: the CPU's kernels can read and write it through tensors of its own.
#pragma once

#include <ATen/core/Tensor.h>

namespace virtual_gpu {

// A CPU tensor over the same elements.
at::Tensor as_cpu(const at::Tensor& tensor);

// The host wrote these elements: kernels may read them from now on.
void mark_initialised(const at::Tensor& tensor);

}  // namespace virtual_gpu
