// As in the real runtime, cudaGetLastError forgets the error that it returns. Unlike there, no
// error outlives that: a kernel that was stopped does not end the process's use of the GPU.
#include "errors.h"

#include <map>
#include <utility>

namespace virtual_gpu {
namespace {

thread_local cudaError_t last = cudaSuccess;

struct Description {
  const char *name, *text;
};

#define NAMED(error, text)  \
  {                         \
    error, { #error, text } \
  }
// What this runtime returns, in the real one's words.
const std::map<cudaError_t, Description>& descriptions() {
  static const auto* all = new std::map<cudaError_t, Description>{
      NAMED(cudaSuccess, "no error"),
      NAMED(cudaErrorInvalidValue, "invalid argument"),
      NAMED(cudaErrorMemoryAllocation, "out of memory"),
      NAMED(cudaErrorInvalidConfiguration, "invalid configuration argument"),
      NAMED(cudaErrorMissingConfiguration, "__global__ function call is not configured"),
      NAMED(cudaErrorInvalidDeviceFunction, "invalid device function"),
      NAMED(cudaErrorInvalidDevice, "invalid device ordinal"),
      NAMED(cudaErrorNoKernelImageForDevice,
            "no kernel image is available for execution on the device"),
      NAMED(cudaErrorInvalidPtx, "a PTX JIT compilation failed"),
      NAMED(cudaErrorInvalidResourceHandle, "invalid resource handle"),
      NAMED(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
      NAMED(cudaErrorLaunchTimeout, "the launch timed out and was terminated"),
      NAMED(cudaErrorAssert, "device-side assert triggered"),
      NAMED(cudaErrorMisalignedAddress, "misaligned address"),
      NAMED(cudaErrorLaunchFailure, "unspecified launch failure"),
      NAMED(cudaErrorNotSupported, "operation not supported"),
  };
  return *all;
}
#undef NAMED

// Texts with what the interpreter had to say; pointers into them stay valid.
std::map<cudaError_t, std::string>& details() {
  thread_local std::map<cudaError_t, std::string> all;
  return all;
}

}  // namespace

cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess) {
    last = error;
    details().erase(error);
  }
  return error;
}

cudaError_t remember(cudaError_t error, const std::string& detail) {
  remember(error);
  details()[error] = std::string(descriptions().at(error).text) + ": " + detail;
  return error;
}

}  // namespace virtual_gpu

cudaError_t cudaGetLastError() { return std::exchange(virtual_gpu::last, cudaSuccess); }

cudaError_t cudaPeekAtLastError() { return virtual_gpu::last; }

const char* cudaGetErrorName(cudaError_t error) {
  const auto known = virtual_gpu::descriptions().find(error);
  return known != virtual_gpu::descriptions().end() ? known->second.name
                                                    : "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
  const auto detail = virtual_gpu::details().find(error);
  if (detail != virtual_gpu::details().end()) return detail->second.c_str();
  const auto known = virtual_gpu::descriptions().find(error);
  return known != virtual_gpu::descriptions().end() ? known->second.text
                                                    : "unrecognized error code";
}
