// The __global__ functions of the host program, which nvcc's host code registers under their
// mangled names before main.
#pragma once

#include <cuda_runtime_api.h>

#include <optional>
#include <string>

#include "../interpreter/virtual_gpu.h"

namespace virtual_gpu {

struct HostFunction {
  std::string name;                           // mangled
  std::optional<int> largest_dynamic_shared;  // bytes, as set by cudaFuncSetAttribute
};

struct Function {
  HostFunction* host;
  const Kernel* kernel;  // of the device's target

  // Bytes that a launch may take besides what the kernel declares.
  int largest_dynamic_shared() const;
};

// What a host address, or a handle of __cudaGetKernel, stands for.
cudaError_t find_function(const void* function, Function& found);

}  // namespace virtual_gpu
