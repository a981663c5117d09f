#include "functions.h"

#include <algorithm>
#include <exception>
#include <memory>
#include <unordered_map>

#include "device.h"
#include "errors.h"
#include "modules.h"

namespace virtual_gpu {
namespace {

std::unordered_map<const void*, std::unique_ptr<HostFunction>>& functions() {
  static auto* all = new std::unordered_map<const void*, std::unique_ptr<HostFunction>>;
  return *all;
}

HostFunction* host_function(const void* function) {
  const auto at = functions().find(function);
  if (at != functions().end()) return at->second.get();
  for (const auto& [address, one] : functions())
    if (one.get() == function) return one.get();
  return nullptr;
}

}  // namespace

cudaError_t find_function(const void* function, Function& found) {
  found.host = host_function(function);
  if (found.host == nullptr) return remember(cudaErrorInvalidDeviceFunction);
  try {
    found.kernel = find_kernel(found.host->name);
  } catch (const std::exception& error) {
    return remember(cudaErrorInvalidPtx, error.what());
  }
  return found.kernel != nullptr ? cudaSuccess : remember(cudaErrorNoKernelImageForDevice);
}

int Function::largest_dynamic_shared() const {
  const int declared = static_cast<int>(info(*kernel).static_shared);
  // what was set may have been set for another device
  return std::min(host->largest_dynamic_shared.value_or(kSharedPerBlock - declared),
                  device().shared_opt_in - declared);
}

}  // namespace virtual_gpu

// What nvcc's host code calls: declared in crt/host_runtime.h and crt/device_functions.h, for its
// own eyes only.
extern "C" {

void** __cudaRegisterFatBinary(void* wrapper) {
  static void* handle = nullptr;  // all that is loaded is looked at as one
  virtual_gpu::add_fat_binary(wrapper);
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}

void __cudaRegisterFunction(void**, const char* host_address, char*, const char* name, int, uint3*,
                            uint3*, dim3*, dim3*, int*) {
  virtual_gpu::functions()[host_address] =
      std::make_unique<virtual_gpu::HostFunction>(virtual_gpu::HostFunction{name, {}});
}

// The interpreter makes the variables of a kernel's file itself; the host cannot reach them.
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  virtual_gpu::HostFunction* host = virtual_gpu::host_function(function);
  if (host == nullptr) return virtual_gpu::remember(cudaErrorInvalidDeviceFunction);
  *kernel = reinterpret_cast<cudaKernel_t>(host);
  return cudaSuccess;
}

}  // extern "C"
