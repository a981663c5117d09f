// Device memory is the interpreter's. What a copy or memset writes counts as initialised, also
// where the source of a copy was not.
#include <cstring>
#include <new>
#include <unordered_map>

#include "../interpreter/virtual_gpu.h"
#include "device.h"
#include "errors.h"

namespace virtual_gpu {
namespace {

struct Allocations {
  std::unordered_map<void*, size_t> bytes;
  size_t total = 0;
};
Allocations& allocations() {
  static auto* all = new Allocations;  // tensors are released after static destructors
  return *all;
}

cudaError_t copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const std::lock_guard lock(device_mutex());
  if (bytes == 0) return cudaSuccess;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (kind != cudaMemcpyDefault &&
      (owns(to, bytes) != to_device || owns(from, bytes) != from_device))
    return remember(cudaErrorInvalidValue);
  std::memmove(to, from, bytes);
  mark_initialised(to, bytes);
  return cudaSuccess;
}

cudaError_t set(void* to, int value, size_t bytes) {
  const std::lock_guard lock(device_mutex());
  if (bytes == 0) return cudaSuccess;
  if (!owns(to, bytes)) return remember(cudaErrorInvalidValue);
  std::memset(to, value, bytes);
  mark_initialised(to, bytes);
  return cudaSuccess;
}

}  // namespace
}  // namespace virtual_gpu

using namespace virtual_gpu;

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  const std::lock_guard lock(device_mutex());
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  if (bytes > kMemory - allocations().total) return remember(cudaErrorMemoryAllocation);
  try {
    *pointer = allocate(bytes);
  } catch (const std::bad_alloc&) {
    return remember(cudaErrorMemoryAllocation);
  }
  allocations().bytes[*pointer] = bytes;
  allocations().total += bytes;
  return cudaSuccess;
}

cudaError_t cudaFree(void* pointer) {
  const std::lock_guard lock(device_mutex());
  if (pointer == nullptr) return cudaSuccess;
  const auto at = allocations().bytes.find(pointer);
  if (at == allocations().bytes.end()) return remember(cudaErrorInvalidValue);
  allocations().total -= at->second;
  allocations().bytes.erase(at);
  release(pointer);
  return cudaSuccess;
}

cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t) {
  return cudaMalloc(pointer, bytes);
}
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t) { return cudaFree(pointer); }

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const std::lock_guard lock(device_mutex());
  *total = kMemory;
  *free = kMemory - allocations().total;
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return copy(to, from, bytes, kind);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t) {
  return copy(to, from, bytes, kind);
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) { return set(to, value, bytes); }
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  return set(to, value, bytes);
}
