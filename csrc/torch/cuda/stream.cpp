// PyTorch's current stream, found at run time: the function lives in its CUDA library, which this
// one does not link, so that it can be built where PyTorch is the CPU's.
#include <dlfcn.h>

#include "device.h"

namespace adaptau {
namespace {

using CurrentStream = int32_t (*)(int32_t device_index,
                                  void** stream);  // AOTITorchError: 0 is fine

CurrentStream find_current_stream() {
  // Loaded by `import torch`, but out of the global symbols' sight.
  void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
  void* function =
      library == nullptr ? nullptr : dlsym(library, "aoti_torch_get_current_cuda_stream");
  if (function == nullptr)
    fail("adaptau_ext found no CUDA stream function in this PyTorch; install one built for CUDA");
  return reinterpret_cast<CurrentStream>(function);
}

}  // namespace

cudaStream_t current_stream(int32_t device_index) {
  static const CurrentStream get = find_current_stream();
  void* stream = nullptr;
  if (get(device_index, &stream) != 0)
    fail("PyTorch has no current stream for cuda:", device_index);
  return static_cast<cudaStream_t>(stream);
}

}  // namespace adaptau
