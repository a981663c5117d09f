// The PTX that is loaded, and the kernels that host code knows.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <string>

#include "../interpreter/virtual_gpu.h"

namespace virtual_gpu {

// Every PTX text of a fat binary, as nvcc links it into an object (uncompressed).
void add_fat_binary(const void* wrapper);

// PTX of another copy of the sources: its kernels hide those of the same names until it is removed.
void add_patch(const std::string& ptx, const std::string& file);
void remove_patches();

// Which of the PTX targets runs: "sm_80", "sm_90", ..
std::string& target();

// The kernel's code for the target, or nullptr.
const Kernel* find_kernel(const std::string& name);

// What cudaFuncSetAttribute and the launch know of a kernel, by the address of its host stub.
struct HostKernel {
  std::string name;
  int dynamic_shared_limit;
};
HostKernel& register_kernel(const void* host, std::string name);
HostKernel* host_kernel(const void* host);  // nullptr if it is not one

// Bytes of shared memory a block may have when it asks for more than 48 KiB.
int& shared_memory_limit();
int& multiprocessors();

}  // namespace virtual_gpu
