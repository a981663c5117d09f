#include "device.h"

#include "errors.h"

namespace virtual_gpu {
namespace {

const Device kDevices[] = {
    {"sm_80", 8, 0, 108, 163 << 10},
    {"sm_90", 9, 0, 132, 163 << 10},
};

}  // namespace

Device& device() {
  static auto* chosen = new Device(kDevices[0]);
  return *chosen;
}

bool choose_device(const std::string& target, int shared_opt_in) {
  for (const Device& one : kDevices)
    if (one.target == target) {
      device() = one;
      device().shared_opt_in = shared_opt_in;
      return true;
    }
  return false;
}

std::mutex& device_mutex() {
  static auto* mutex = new std::mutex;
  return *mutex;
}

}  // namespace virtual_gpu

using virtual_gpu::device;
using virtual_gpu::remember;

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* index) {
  *index = 0;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int index) {
  return remember(index == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int index) {
  if (index != 0) return remember(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = device().major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = device().minor; break;
    case cudaDevAttrMultiProcessorCount: *value = device().multiprocessors; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = virtual_gpu::kSharedPerBlock; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = device().shared_opt_in; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = device().shared_per_multiprocessor();
      break;
    case cudaDevAttrReservedSharedMemoryPerBlock: *value = virtual_gpu::kReservedShared; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = virtual_gpu::kMaxThreadsPerBlock; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
    case cudaDevAttrMaxBlocksPerMultiprocessor: *value = 32; break;
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY: *value = 1024; break;
    case cudaDevAttrMaxBlockDimZ: *value = 64; break;
    case cudaDevAttrMaxGridDimX: *value = 0x7fffffff; break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ: *value = 65535; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    default: return remember(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}
