#include "scratch.h"

#include <sys/mman.h>

#include <mutex>
#include <new>
#include <vector>

namespace adaptau {
namespace {

#if defined(ADAPTAU_SANITIZED)
constexpr size_t kSmallest = SIZE_MAX;  // always the heap, which sanitizers watch
#else
constexpr size_t kSmallest = size_t{64} << 10;  // below: the heap is fine
#endif
constexpr size_t kMostKept = size_t{256} << 20;  // idle blocks beyond this go back to the system
constexpr size_t kHugePage = size_t{2} << 20;

// Stands in front of every block, one aligned line long.
struct alignas(kRowAlign) Header {
  size_t bytes;  // of the whole block; 0: from the heap
};
static_assert(sizeof(Header) == kRowAlign);

// Eight sizes an octave: a block is at most an eighth larger than what it was asked for.
size_t round_up(size_t bytes) {
  size_t octave = kSmallest;
  while (octave * 2 <= bytes) octave *= 2;
  const size_t step = octave / 8;
  return (bytes + step - 1) / step * step;
}

class Kept {
 public:
  Header* take(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (size_t i = idle_.size(); i-- > 0;)
      if (idle_[i]->bytes == bytes) {
        Header* block = idle_[i];
        idle_.erase(idle_.begin() + static_cast<std::ptrdiff_t>(i));
        kept_ -= bytes;
        return block;
      }
    return nullptr;
  }
  void give(Header* block) {
    const std::lock_guard<std::mutex> lock(mutex_);
    idle_.push_back(block);
    kept_ += block->bytes;
    size_t oldest = 0;
    for (; kept_ > kMostKept; ++oldest) {
      kept_ -= idle_[oldest]->bytes;
      munmap(idle_[oldest], idle_[oldest]->bytes);
    }
    idle_.erase(idle_.begin(), idle_.begin() + static_cast<std::ptrdiff_t>(oldest));
  }

 private:
  std::mutex mutex_;
  std::vector<Header*> idle_;  // oldest first
  size_t kept_ = 0;
};

Kept& kept() {
  static Kept* blocks = new Kept;  // never destroyed: threads may outlive static objects
  return *blocks;
}

}  // namespace

void* take_scratch(size_t bytes) {
  bytes += sizeof(Header);
  Header* block;
  if (bytes < kSmallest) {
    block = static_cast<Header*>(::operator new(bytes, std::align_val_t(kRowAlign)));
    block->bytes = 0;
    return block + 1;
  }
  bytes = round_up(bytes);
  block = kept().take(bytes);
  if (block == nullptr) {
    void* fresh = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fresh == MAP_FAILED) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
    if (bytes >= kHugePage) madvise(fresh, bytes, MADV_HUGEPAGE);
#endif
    block = static_cast<Header*>(fresh);
    block->bytes = bytes;
  }
  return block + 1;
}

void give_scratch(void* data) {
  Header* block = static_cast<Header*>(data) - 1;
  if (block->bytes == 0) {
    ::operator delete(block, std::align_val_t(kRowAlign));
  } else {
    kept().give(block);
  }
}

}  // namespace adaptau
