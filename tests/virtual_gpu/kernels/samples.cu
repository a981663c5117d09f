// Kernels for tests/test_virtual_runtime.py: one that computes, and one for each way to go wrong.
#include <cassert>
#include <cstring>

namespace {

__global__ void scale(float* out, const float* x, float factor, int n) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at < n) out[at] = x[at] * factor;
}

__global__ void __launch_bounds__(64) bounded(float* out) { out[threadIdx.x] = 1; }

// Uses a byte, however many the launch takes.
__global__ void shared_bytes(int* out) {
  extern __shared__ char dynamic[];
  __shared__ char declared[1024];
  declared[threadIdx.x] = dynamic[0] = 1;
  *out = declared[threadIdx.x] + dynamic[0];
}

__global__ void asserts(const int* x) { assert(x[threadIdx.x] < 3 && "x must be less than 3"); }
__global__ void traps() { __trap(); }
__global__ void writes(char* out, int64_t at) { out[at] = 1; }
__global__ void writes_wide(char* out, int64_t at) {
  *reinterpret_cast<int4*>(out + at) = int4{1, 2, 3, 4};
}
__global__ void waits() {
  if (threadIdx.x < 32) __syncthreads();
  if (threadIdx.x == 32) __syncwarp();
}
__global__ void races(int* out) { *out = threadIdx.x; }

struct Named {
  const char* name;
  const void* address;
};
#define NAMED(kernel) \
  Named { #kernel, reinterpret_cast<const void*>(&kernel) }
const Named kKernels[] = {NAMED(scale),       NAMED(bounded), NAMED(shared_bytes),
                          NAMED(asserts),     NAMED(traps),   NAMED(writes),
                          NAMED(writes_wide), NAMED(waits),   NAMED(races)};

}  // namespace

extern "C" {

// What cudaLaunchKernel knows the kernel by.
__attribute__((visibility("default"))) const void* sample_kernel(const char* name) {
  for (const Named& one : kKernels)
    if (std::strcmp(one.name, name) == 0) return one.address;
  return nullptr;
}

__attribute__((visibility("default"))) int sample_scale(float* out, const float* x, float factor,
                                                        int n, unsigned block) {
  scale<<<(n + 127) / 128, block>>>(out, x, factor, n);
  return cudaGetLastError();
}

}  // extern "C"
