// Resident blocks by NVIDIA's header-only calculator, for lines of
// major minor threads_of_multiprocessor shared_of_multiprocessor shared_of_block threads registers
// shared
#include <cuda_occupancy.h>

#include <cstdio>

int main() {
  int major, minor, sm_threads, sm_shared, block_shared, threads, registers, shared;
  while (std::scanf("%d %d %d %d %d %d %d %d", &major, &minor, &sm_threads, &sm_shared,
                    &block_shared, &threads, &registers, &shared) == 8) {
    cudaOccDeviceProp device{};
    device.computeMajor = major;
    device.computeMinor = minor;
    device.maxThreadsPerBlock = 1024;
    device.maxThreadsPerMultiprocessor = sm_threads;
    device.regsPerBlock = device.regsPerMultiprocessor = 65536;
    device.warpSize = 32;
    device.sharedMemPerBlock = 48 << 10;
    device.sharedMemPerMultiprocessor = sm_shared;
    device.sharedMemPerBlockOptin = block_shared;
    device.reservedSharedMemPerBlock = 1024;
    device.numSms = 1;
    cudaOccFuncAttributes kernel{};
    kernel.maxThreadsPerBlock = 1024;
    kernel.numRegs = registers;
    kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    kernel.maxDynamicSharedSizeBytes = shared;
    cudaOccDeviceState state{};
    state.carveoutConfig = SHAREDMEM_CARVEOUT_MAX_SHARED;
    cudaOccResult result{};
    const cudaOccError error =
        cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, shared);
    std::printf("%d\n", error == CUDA_OCC_SUCCESS ? result.activeBlocksPerMultiprocessor : 0);
  }
}
