// adaptau_ext's CUDA operators, for the virtual device.
#include "../../../csrc/torch/cuda/operators.h"

#include "../../../csrc/torch/cuda/device.h"

// in place of csrc/torch/cuda/stream.cpp
cudaStream_t adaptau::current_stream(int32_t) { return nullptr; }

STABLE_TORCH_LIBRARY_IMPL(adaptau, PrivateUse1, m) { adaptau::register_cuda_operators(m); }
