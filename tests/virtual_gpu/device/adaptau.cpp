// The package's CUDA operators, as they are, on the virtual GPU. This takes the place of
// csrc/torch/cuda/module.cpp and stream.cpp.
#include "../../../csrc/torch/cuda/device.h"
#include "../../../csrc/torch/cuda/operators.h"

namespace adaptau {

cudaStream_t current_stream(int32_t) { return nullptr; }

}  // namespace adaptau

STABLE_TORCH_LIBRARY_IMPL(adaptau, PrivateUse1, m) { adaptau::register_cuda_operators(m); }
