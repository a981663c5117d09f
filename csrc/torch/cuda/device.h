// What a CUDA operator needs of PyTorch around its kernels: the device, the stream, scratch memory.
#pragma once

#include <cuda_runtime_api.h>
#include <torch/csrc/stable/accelerator.h>

#include "../tensors.h"

namespace adaptau {

// The stream that this thread's work on the device goes to (stream.cpp).
cudaStream_t current_stream(int32_t device_index);

// Makes the device of a tensor current while it lives.
class DeviceScope {
 public:
  explicit DeviceScope(const Tensor& on)
      : on_(on), guard_(on.get_device_index()), stream_(current_stream(on.get_device_index())) {}

  cudaStream_t stream() const { return stream_; }

  // Uninitialised memory of the device. It may be let go once the kernels that use it are launched:
  // PyTorch hands it out again in the order of the stream.
  Tensor scratch(int64_t n, ScalarType type) const {
    return torch::stable::new_empty(on_, {n}, type);
  }

 private:
  Tensor on_;
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

// Fails when rows are longer than the products of tiles take.
void check_dimension(int64_t d);

// Fails unless the launches of an operator succeeded.
void check_launches(const char* name, cudaError_t error);

}  // namespace adaptau
