#pragma once

#include <cstdint>

namespace adaptau::cuda {

// Carves a workspace, or measures one when there is no memory yet.
class Workspace {
 public:
  explicit Workspace(void* memory = nullptr) : memory_(static_cast<char*>(memory)) {}
  template <class T>
  T* take(int64_t count) {
    T* place = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + used_);
    used_ += (count * static_cast<int64_t>(sizeof(T)) + 255) / 256 * 256;
    return place;
  }
  int64_t used() const { return used_; }

 private:
  char* memory_;
  int64_t used_ = 0;
};

}  // namespace adaptau::cuda
