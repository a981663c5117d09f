// What host code asks and sets about a kernel before it launches it.
#include <algorithm>

#include "device.h"
#include "errors.h"
#include "functions.h"

using namespace virtual_gpu;

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  const std::lock_guard lock(device_mutex());
  Function f;
  if (const cudaError_t error = find_function(function, f); error != cudaSuccess) return error;
  switch (attribute) {
    case cudaFuncAttributeMaxDynamicSharedMemorySize: {
      const int declared = static_cast<int>(info(*f.kernel).static_shared);
      if (value < 0 || value > device().shared_opt_in - declared)
        return remember(cudaErrorInvalidValue);
      f.host->largest_dynamic_shared = value;
      return cudaSuccess;
    }
    case cudaFuncAttributePreferredSharedMemoryCarveout:  // a hint
      return remember(value >= -1 && value <= 100 ? cudaSuccess : cudaErrorInvalidValue);
    default: return remember(cudaErrorNotSupported);
  }
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  const std::lock_guard lock(device_mutex());
  Function f;
  if (const cudaError_t error = find_function(function, f); error != cudaSuccess) return error;
  *attributes = {};  // registers and local memory are ptxas's affair
  attributes->sharedSizeBytes = info(*f.kernel).static_shared;
  attributes->maxThreadsPerBlock = static_cast<int>(info(*f.kernel).max_threads);
  attributes->ptxVersion = device().major * 10 + device().minor;
  attributes->binaryVersion = attributes->ptxVersion;
  attributes->maxDynamicSharedSizeBytes = f.largest_dynamic_shared();
  attributes->preferredShmemCarveout = -1;
  return cudaSuccess;
}

// By threads and shared memory: nobody knows the registers before ptxas.
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* function,
                                                          int threads, size_t dynamic_shared) {
  const std::lock_guard lock(device_mutex());
  Function f;
  if (const cudaError_t error = find_function(function, f); error != cudaSuccess) return error;
  if (threads <= 0) return remember(cudaErrorInvalidValue);
  const size_t shared = info(*f.kernel).static_shared + dynamic_shared;
  *blocks = 0;
  if (threads > static_cast<int>(info(*f.kernel).max_threads)) return cudaSuccess;
  if (shared > static_cast<size_t>(device().shared_opt_in)) return cudaSuccess;
  const int by_threads = 2048 / ((threads + 31) / 32 * 32);
  const int by_shared =
      device().shared_per_multiprocessor() / static_cast<int>(shared + kReservedShared);
  *blocks = std::min({32, by_threads, by_shared});
  return cudaSuccess;
}
