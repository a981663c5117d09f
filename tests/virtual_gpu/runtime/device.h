// The GPU that the CUDA-runtime replacement pretends to have.
//
// The replacement is linked in place of libcudart: host code that nvcc and the C++ compiler made
// runs unchanged, and launches go to the interpreter. Work is done when a call returns; streams and
// events are handles, and nothing is ever waited for.
#pragma once

#include <cuda_runtime_api.h>

#include <mutex>
#include <string>

namespace virtual_gpu {

constexpr int kMaxThreadsPerBlock = 1024;
constexpr int kSharedPerBlock = 48 << 10;  // bytes a launch may take without asking for more
constexpr int kReservedShared = 1 << 10;   // bytes of every block that the system keeps
constexpr size_t kMemory = size_t{8} << 30;

struct Device {
  std::string target;  // whose PTX runs: "sm_80", "sm_90"
  int major, minor, multiprocessors;
  int shared_opt_in;  // bytes a launch may take after cudaFuncSetAttribute
  int shared_per_multiprocessor() const { return shared_opt_in + kReservedShared; }
};

Device& device();

// An A100 ("sm_80") or an H100 ("sm_90"), with as much shared memory for a block. False if the
// target is another.
bool choose_device(const std::string& target, int shared_opt_in);

// Held by whoever uses the interpreter, which knows no threads.
std::mutex& device_mutex();

}  // namespace virtual_gpu
