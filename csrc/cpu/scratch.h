// Scratch memory of one call, taken from blocks that are kept between calls.
//
// A training step asks for the same few megabytes again and again. Taken from the heap, they would
// be mapped, zeroed by the kernel and scattered among PyTorch's tensors anew each time (and
// fragment the heap: it was seen to grow by 0.5 MB a step); taken from here, they are warm.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

namespace adaptau {

constexpr int kRowAlign = 64;  // bytes: a cache line, and the longest vector

// At least `bytes`, aligned to kRowAlign; contents are whatever the last user left.
void* take_scratch(size_t bytes);
void give_scratch(void* block);

// Uninitialised array that lives as long as the object.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t n) : data_(static_cast<T*>(take_scratch(bytes(n)))), size_(n) {}
  Buffer(int64_t n, T value) : Buffer(n) {
    for (int64_t i = 0; i < n; ++i) data_[i] = value;
  }
  Buffer(Buffer&& other) noexcept : data_(other.data_), size_(other.size_) {
    other.data_ = nullptr;
  }
  Buffer& operator=(Buffer&& other) noexcept {
    T* mine = data_;
    data_ = other.data_, size_ = other.size_, other.data_ = mine;
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) give_scratch(data_);
  }
  T* get() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }
  int64_t size() const { return size_; }

 private:
  static size_t bytes(int64_t n) {
    if (n > PTRDIFF_MAX / static_cast<int64_t>(sizeof(T))) throw std::bad_alloc();
    return static_cast<size_t>(n > 0 ? n : 1) * sizeof(T);
  }

  T* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace adaptau
