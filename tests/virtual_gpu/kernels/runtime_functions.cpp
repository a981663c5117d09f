// The CUDA runtime's functions by name, for tests: the library keeps them to itself, so that they
// never meet those of a real libcudart in the same process.
#include <cuda_runtime_api.h>

#include <cstring>

namespace {

struct Named {
  const char* name;
  void* address;
};
#define NAMED(function) \
  Named { #function, reinterpret_cast<void*>(&function) }
const Named kFunctions[] = {
    NAMED(cudaDeviceGetAttribute),
    NAMED(cudaDeviceSynchronize),
    NAMED(cudaEventCreateWithFlags),
    NAMED(cudaEventDestroy),
    NAMED(cudaEventRecord),
    NAMED(cudaEventSynchronize),
    NAMED(cudaFree),
    NAMED(cudaFuncGetAttributes),
    NAMED(cudaFuncSetAttribute),
    NAMED(cudaGetErrorName),
    NAMED(cudaGetErrorString),
    NAMED(cudaGetLastError),
    NAMED(cudaLaunchKernel),
    NAMED(cudaLaunchKernelExC),
    NAMED(cudaMalloc),
    NAMED(cudaMemGetInfo),
    NAMED(cudaMemcpy),
    NAMED(cudaMemset),
    NAMED(cudaOccupancyMaxActiveBlocksPerMultiprocessor),
    NAMED(cudaPeekAtLastError),
    NAMED(cudaSetDevice),
    NAMED(cudaStreamCreateWithFlags),
    NAMED(cudaStreamDestroy),
    NAMED(cudaStreamSynchronize),
};

}  // namespace

extern "C" __attribute__((visibility("default"))) void* runtime_function(const char* name) {
  for (const Named& one : kFunctions)
    if (std::strcmp(one.name, name) == 0) return one.address;
  return nullptr;
}
