// The error that cudaGetLastError returns, and what is known about it.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

namespace virtual_gpu {

// Returns the error, kept as this thread's last one unless it is none.
cudaError_t remember(cudaError_t error);

// The same, and cudaGetErrorString of this error says the rest.
cudaError_t remember(cudaError_t error, const std::string& detail);

}  // namespace virtual_gpu
