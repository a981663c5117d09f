#include "functions.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <unordered_map>

#include "device.h"
#include "errors.h"

namespace virtual_gpu {
namespace {

struct PtxFile {
  std::string path, text;
  std::unique_ptr<Module> module;

  const Kernel* find(const std::string& name) {
    if (module == nullptr) {
      module = std::make_unique<Module>(text, path);
      text = {};
    }
    return module->find(name);
  }
};

// Of one target: which file has which kernel, by mangled name.
using Kernels = std::unordered_map<std::string, std::shared_ptr<PtxFile>>;

// Filled by static initialisers, used by static destructors.
std::map<std::string, Kernels>& targets() {
  static auto* all = new std::map<std::string, Kernels>;
  return *all;
}
std::unordered_map<const void*, std::unique_ptr<HostFunction>>& functions() {
  static auto* all = new std::unordered_map<const void*, std::unique_ptr<HostFunction>>;
  return *all;
}

HostFunction* host_function(const void* function) {
  const auto at = functions().find(function);
  if (at != functions().end()) return at->second.get();
  for (const auto& [address, one] : functions())
    if (one.get() == function) return one.get();
  return nullptr;
}

}  // namespace

void add_ptx(const std::string& target, const std::string& path) {
  auto file = std::make_shared<PtxFile>();
  file->path = path;
  std::ifstream stream(path);
  std::ostringstream text;
  text << stream.rdbuf();
  if (!stream) throw std::runtime_error("cannot read " + path);
  file->text = text.str();
  const std::string entry = ".entry ";
  for (size_t at = 0; (at = file->text.find(entry, at)) != std::string::npos;) {
    at += entry.size();
    const size_t end = file->text.find_first_of("( \t\n", at);
    targets()[target].emplace(file->text.substr(at, end - at), file);
  }
}

cudaError_t find_function(const void* function, Function& found) {
  found.host = host_function(function);
  if (found.host == nullptr) return remember(cudaErrorInvalidDeviceFunction);
  Kernels& kernels = targets()[device().target];
  const auto at = kernels.find(found.host->name);
  if (at == kernels.end()) return remember(cudaErrorNoKernelImageForDevice);
  try {
    found.kernel = at->second->find(found.host->name);
  } catch (const std::exception& error) {
    return remember(cudaErrorInvalidPtx, error.what());
  }
  return found.kernel != nullptr ? cudaSuccess : remember(cudaErrorNoKernelImageForDevice);
}

int Function::largest_dynamic_shared() const {
  const int declared = static_cast<int>(info(*kernel).static_shared);
  // what was set may have been set for another device
  return std::min(host->largest_dynamic_shared.value_or(kSharedPerBlock - declared),
                  device().shared_opt_in - declared);
}

}  // namespace virtual_gpu

// What nvcc's host code calls: declared in crt/host_runtime.h and crt/device_functions.h, for its
// own eyes only.
extern "C" {

void** __cudaRegisterFatBinary(void*) {
  static void* handle = nullptr;  // nothing is kept about it
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}

void __cudaRegisterFunction(void**, const char* host_address, char*, const char* name, int, uint3*,
                            uint3*, dim3*, dim3*, int*) {
  virtual_gpu::functions()[host_address] =
      std::make_unique<virtual_gpu::HostFunction>(virtual_gpu::HostFunction{name, {}});
}

// The interpreter makes the variables of a kernel's file itself; the host cannot reach them.
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  virtual_gpu::HostFunction* host = virtual_gpu::host_function(function);
  if (host == nullptr) return virtual_gpu::remember(cudaErrorInvalidDeviceFunction);
  *kernel = reinterpret_cast<cudaKernel_t>(host);
  return cudaSuccess;
}

}  // extern "C"
