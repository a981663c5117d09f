// Streams and events are handles: whatever was queued is done already.
#include <unordered_set>

#include "device.h"
#include "errors.h"

namespace virtual_gpu {
namespace {

// Handles of one kind, so that one that was destroyed or never made is refused.
template <class Handle>
class Handles {
 public:
  cudaError_t make(Handle* handle) {
    const std::lock_guard lock(device_mutex());
    *handle = reinterpret_cast<Handle>(new char);
    live_.insert(*handle);
    return cudaSuccess;
  }
  cudaError_t destroy(Handle handle) {
    const std::lock_guard lock(device_mutex());
    if (live_.erase(handle) == 0) return remember(cudaErrorInvalidResourceHandle);
    delete reinterpret_cast<char*>(handle);
    return cudaSuccess;
  }
  cudaError_t check(Handle handle) {
    const std::lock_guard lock(device_mutex());
    return remember(live_.count(handle) > 0 ? cudaSuccess : cudaErrorInvalidResourceHandle);
  }

 private:
  std::unordered_set<Handle> live_;
};

Handles<cudaStream_t>& streams() {
  static auto* all = new Handles<cudaStream_t>;
  return *all;
}
Handles<cudaEvent_t>& events() {
  static auto* all = new Handles<cudaEvent_t>;
  return *all;
}

cudaError_t check_stream(cudaStream_t stream) {
  const bool default_one =
      stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread;
  return default_one ? cudaSuccess : streams().check(stream);
}

}  // namespace
}  // namespace virtual_gpu

using namespace virtual_gpu;

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return streams().make(stream); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return streams().make(stream);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return streams().destroy(stream); }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return check_stream(stream); }
cudaError_t cudaStreamQuery(cudaStream_t stream) { return check_stream(stream); }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const cudaError_t error = check_stream(stream);
  return error != cudaSuccess ? error : events().check(event);
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return events().make(event); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return events().make(event); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return events().destroy(event); }
cudaError_t cudaEventSynchronize(cudaEvent_t event) { return events().check(event); }
cudaError_t cudaEventQuery(cudaEvent_t event) { return events().check(event); }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const cudaError_t error = check_stream(stream);
  return error != cudaSuccess ? error : events().check(event);
}
