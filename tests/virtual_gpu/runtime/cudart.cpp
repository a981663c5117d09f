// In place of libcudart: what nvcc's host code and the launchers call. Streams are in order and
// done at once; errors are the real ones.
#include <cuda_runtime_api.h>

#include <cstring>

#include "modules.h"

using namespace virtual_gpu;

namespace {

cudaError_t last_error = cudaSuccess;

cudaError_t result(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

struct Configuration {
  dim3 grid, block;
  size_t shared;
  void* stream;
} configuration;

// Which findings end a launch, and as what.
cudaError_t error_of_findings(size_t before) {
  const auto all = findings();
  for (size_t n = before; n < all.size(); ++n) {
    if (all[n].problem == Problem::assertion) return cudaErrorAssert;
    if (all[n].problem == Problem::out_of_bounds) return cudaErrorIllegalAddress;
    if (all[n].problem == Problem::misaligned) return cudaErrorMisalignedAddress;
  }
  return cudaErrorLaunchFailure;
}

cudaError_t launch_kernel(const HostKernel& host, dim3 grid, dim3 block, void** arguments,
                          size_t shared) {
  const Kernel* kernel = find_kernel(host.name);
  if (kernel == nullptr) return result(cudaErrorNoKernelImageForDevice);
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 ||
      grid.z > 65535 || threads == 0 || threads > 1024)
    return result(cudaErrorInvalidConfiguration);
  if (threads > info(*kernel).max_threads) return result(cudaErrorLaunchOutOfResources);
  if (shared > static_cast<size_t>(host.dynamic_shared_limit) ||
      shared + info(*kernel).static_shared > static_cast<size_t>(shared_memory_limit()))
    return result(cudaErrorInvalidValue);
  const size_t before = findings().size();
  const bool completed = launch(*kernel, {grid.x, grid.y, grid.z}, {block.x, block.y, block.z},
                                static_cast<uint32_t>(shared), arguments);
  return completed ? cudaSuccess : result(error_of_findings(before));
}

}  // namespace

extern "C" {

void** __cudaRegisterFatBinary(void* wrapper) {
  static void* handle;
  add_fat_binary(wrapper);
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, uint3*, uint3*,
                            dim3*, dim3*, int*) {
  register_kernel(host, name);
}
cudaError_t __cudaGetKernel(void** kernel, const void* host) {
  *kernel = host_kernel(host);
  return *kernel != nullptr ? cudaSuccess : result(cudaErrorInvalidDeviceFunction);
}
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void* stream) {
  configuration = {grid, block, shared, stream};
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  *grid = configuration.grid;
  *block = configuration.block;
  *shared = configuration.shared;
  *static_cast<void**>(stream) = configuration.stream;
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(void* kernel, dim3 grid, dim3 block, void** arguments, size_t shared,
                               cudaStream_t) {
  return launch_kernel(*static_cast<HostKernel*>(kernel), grid, block, arguments, shared);
}
cudaError_t cudaLaunchKernel(const void* host, dim3 grid, dim3 block, void** arguments,
                             size_t shared, cudaStream_t) {
  const HostKernel* kernel = host_kernel(host);
  if (kernel == nullptr) return result(cudaErrorInvalidDeviceFunction);
  return launch_kernel(*kernel, grid, block, arguments, shared);
}

cudaError_t cudaFuncSetAttribute(const void* host, cudaFuncAttribute attribute, int value) {
  HostKernel* kernel = host_kernel(host);
  if (kernel == nullptr) return result(cudaErrorInvalidDeviceFunction);
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  const Kernel* code = find_kernel(kernel->name);
  if (code == nullptr) return result(cudaErrorNoKernelImageForDevice);
  if (value < 0 || value + static_cast<int>(info(*code).static_shared) > shared_memory_limit())
    return result(cudaErrorInvalidValue);
  kernel->dynamic_shared_limit = value;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  *pointer = allocate(bytes);
  return cudaSuccess;
}
cudaError_t cudaFree(void* pointer) {
  release(pointer);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t) {
  std::memmove(to, from, bytes);
  mark_initialised(to, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  if (!owns(to, bytes)) return result(cudaErrorInvalidValue);
  std::memset(to, value, bytes);
  mark_initialised(to, bytes);
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : result(cudaErrorInvalidDevice);
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = multiprocessors(); return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = shared_memory_limit();
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = std::stoi(target().substr(3)) / 10;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = std::stoi(target().substr(3)) % 10;
      return cudaSuccess;
    default: return result(cudaErrorInvalidValue);
  }
}

cudaError_t cudaPeekAtLastError() { return last_error; }
cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}
const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorLaunchOutOfResources: return "cudaErrorLaunchOutOfResources";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorInvalidDeviceFunction: return "cudaErrorInvalidDeviceFunction";
    case cudaErrorNoKernelImageForDevice: return "cudaErrorNoKernelImageForDevice";
    case cudaErrorAssert: return "cudaErrorAssert";
    case cudaErrorIllegalAddress: return "cudaErrorIllegalAddress";
    case cudaErrorMisalignedAddress: return "cudaErrorMisalignedAddress";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    default: return "another CUDA error";
  }
}
const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }

}  // extern "C"
