#include "memory.h"

#include <ATen/ops/from_blob.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <cuda_runtime_api.h>

#include <cstring>
#include <mutex>

#include "../interpreter/virtual_gpu.h"
#include "../runtime/device.h"

namespace virtual_gpu {
namespace {

void free_memory(void* pointer) { cudaFree(pointer); }

// Every tensor its own allocation, between guard zones: there is no cache to hide an overrun.
struct Allocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* pointer = nullptr;
    const cudaError_t error = cudaMalloc(&pointer, bytes);
    if (error != cudaSuccess) cudaGetLastError();  // told here, not by the next launch
    TORCH_CHECK(error == cudaSuccess, "virtual GPU: ", cudaGetErrorString(error), ", allocating ",
                bytes, " bytes; it has ", kMemory, " in all");
    return {pointer, pointer, &free_memory, c10::Device(c10::DeviceType::PrivateUse1, 0)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_memory; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToDevice);
  }
};

Allocator allocator;
REGISTER_ALLOCATOR(c10::DeviceType::PrivateUse1, &allocator)

}  // namespace

at::Tensor as_cpu(const at::Tensor& tensor) {
  if (tensor.is_cpu()) return tensor;
  at::Tensor host = at::from_blob(tensor.mutable_data_ptr(), tensor.sizes(), tensor.strides(),
                                  tensor.options().device(c10::DeviceType::CPU));
  host._set_conj(tensor.is_conj());
  host._set_neg(tensor.is_neg());
  return host;
}

void mark_initialised(const at::Tensor& tensor) {
  if (tensor.numel() == 0) return;
  if (tensor.is_non_overlapping_and_dense()) {
    const std::lock_guard lock(device_mutex());
    mark_initialised(tensor.const_data_ptr(), tensor.nbytes());
    return;
  }
  for (int64_t n = 0; n < tensor.size(0); ++n) mark_initialised(tensor.select(0, n));
}

}  // namespace virtual_gpu
