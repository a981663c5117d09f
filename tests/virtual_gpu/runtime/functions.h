// The __global__ functions of the host program, and their PTX.
//
// nvcc's host code registers every function under its mangled name before main. The PTX comes from
// files that the same run of nvcc wrote: names of functions in unnamed namespaces hold the number
// of the compiler's process, so that those of another run would not be found.
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

// Makes a PTX file's kernels known, for devices of the target. It is parsed when one of them is
// first needed. Throws std::runtime_error if the file cannot be read.
void add_ptx(const std::string& target, const std::string& path);

}  // namespace virtual_gpu
