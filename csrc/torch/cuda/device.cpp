#include "device.h"

#include "../../cuda/operators.h"

namespace adaptau {

void check_dimension(int64_t d) {
  if (d > cuda::kMaxDimension)
    fail("u and i must have at most ", cuda::kMaxDimension, " columns on this device, got ", d,
         "; project them to fewer, or compute on the CPU");
}

void check_launches(const char* name, cudaError_t error) {
  if (error == cudaSuccess) return;
  if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorUnsupportedPtxVersion)
    fail(name, ": adaptau_ext was built for other GPUs than this one (", cudaGetErrorString(error),
         "); build it again with TORCH_CUDA_ARCH_LIST naming this GPU's compute capability");
  if (error == cudaErrorInsufficientDriver)
    fail(name, ": adaptau_ext was built by a CUDA toolkit that is newer than this driver (",
         cudaGetErrorString(error),
         "); update the driver, or build again with the nvcc of the version that "
         "torch.version.cuda names");
  fail(name, ": ", cudaGetErrorString(error), " (", cudaGetErrorName(error),
       "); it may come from an earlier kernel: run again with CUDA_LAUNCH_BLOCKING=1");
}

}  // namespace adaptau
