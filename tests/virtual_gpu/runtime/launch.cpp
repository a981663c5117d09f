// Launches: what a GPU refuses is refused, what it would stop ends in its error.
#include <map>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "device.h"
#include "errors.h"
#include "functions.h"

namespace virtual_gpu {
namespace {

struct Configuration {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
};
thread_local std::vector<Configuration> pushed;

cudaError_t check(const Function& f, dim3 grid, dim3 block, size_t dynamic_shared) {
  const bool any =
      grid.x > 0 && grid.y > 0 && grid.z > 0 && block.x > 0 && block.y > 0 && block.z > 0;
  if (!any || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535)
    return cudaErrorInvalidConfiguration;
  if (block.x > 1024 || block.y > 1024 || block.z > 64 ||
      block.x * block.y * block.z > static_cast<unsigned>(kMaxThreadsPerBlock))
    return cudaErrorInvalidConfiguration;
  if (block.x * block.y * block.z > info(*f.kernel).max_threads) return cudaErrorInvalidValue;
  if (dynamic_shared > static_cast<size_t>(f.largest_dynamic_shared()))
    return cudaErrorInvalidValue;
  return cudaSuccess;
}

// What ends a kernel on a GPU; the rest (races, uninitialised values) it would not notice.
cudaError_t error_of(Problem problem, bool completed) {
  switch (problem) {
    case Problem::assertion: return cudaErrorAssert;
    case Problem::out_of_bounds: return cudaErrorIllegalAddress;
    case Problem::misaligned: return cudaErrorMisalignedAddress;
    case Problem::trap: return cudaErrorLaunchFailure;
    case Problem::deadlock: return cudaErrorLaunchTimeout;
    case Problem::divergent_barrier: return completed ? cudaSuccess : cudaErrorLaunchTimeout;
    default: return cudaSuccess;
  }
}

// A GPU runs nothing after a kernel that it stopped. Here that holds until the error is asked for.
bool stopped(cudaError_t error) {
  return error == cudaErrorAssert || error == cudaErrorIllegalAddress ||
         error == cudaErrorMisalignedAddress || error == cudaErrorLaunchFailure ||
         error == cudaErrorLaunchTimeout;
}

using Place = std::tuple<Problem, std::string, int>;  // of a finding: kernel, line of the PTX
Place place(const Finding& f) { return {f.problem, f.kernel, f.ptx_line}; }

cudaError_t run(const Function& f, dim3 grid, dim3 block, void** arguments, size_t shared) {
  std::map<Place, uint64_t> before;
  for (const Finding& one : findings()) before[place(one)] = one.count;
  bool completed;
  try {
    completed = launch(*f.kernel, {grid.x, grid.y, grid.z}, {block.x, block.y, block.z},
                       static_cast<uint32_t>(shared), arguments);
  } catch (const std::exception& error) {
    return remember(cudaErrorLaunchFailure, error.what());
  }
  for (const Finding& one : findings()) {
    const cudaError_t error = error_of(one.problem, completed);
    if (error != cudaSuccess && one.count > before[place(one)])
      return remember(error, one.file + ":" + std::to_string(one.source_line) + ": " + one.message);
  }
  return completed ? cudaSuccess : remember(cudaErrorLaunchFailure);
}

cudaError_t check_and_run(const void* function, dim3 grid, dim3 block, void** arguments,
                          size_t shared) {
  const std::lock_guard lock(device_mutex());
  if (stopped(cudaPeekAtLastError())) return cudaPeekAtLastError();
  Function f;
  if (const cudaError_t error = find_function(function, f); error != cudaSuccess) return error;
  if (const cudaError_t error = check(f, grid, block, shared); error != cudaSuccess)
    return remember(error);
  return run(f, grid, block, arguments, shared);
}

}  // namespace
}  // namespace virtual_gpu

cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments,
                             size_t shared, cudaStream_t) {
  return virtual_gpu::check_and_run(function, grid, block, arguments, shared);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function,
                                void** arguments) {
  for (unsigned n = 0; n < config->numAttrs; ++n)  // clusters and the like; a priority is a hint
    if (config->attrs[n].id != cudaLaunchAttributeIgnore &&
        config->attrs[n].id != cudaLaunchAttributePriority)
      return virtual_gpu::remember(cudaErrorNotSupported);
  return virtual_gpu::check_and_run(function, config->gridDim, config->blockDim, arguments,
                                    config->dynamicSmemBytes);
}

// What kernel<<<grid, block>>>(..) becomes: push, call of the stub, which pops and launches.
extern "C" {

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  virtual_gpu::pushed.push_back({grid, block, shared, stream});
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  if (virtual_gpu::pushed.empty()) return virtual_gpu::remember(cudaErrorMissingConfiguration);
  const virtual_gpu::Configuration& last = virtual_gpu::pushed.back();
  *grid = last.grid;
  *block = last.block;
  *shared = last.shared;
  *static_cast<cudaStream_t*>(stream) = last.stream;
  virtual_gpu::pushed.pop_back();
  return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                               size_t shared, cudaStream_t) {
  return virtual_gpu::check_and_run(kernel, grid, block, arguments, shared);
}

// Of host code compiled for a default stream per thread.
cudaError_t __cudaLaunchKernel_ptsz(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                                    size_t shared, cudaStream_t) {
  return virtual_gpu::check_and_run(kernel, grid, block, arguments, shared);
}

}  // extern "C"
