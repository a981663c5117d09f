#include "memory.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>

namespace virtual_gpu {
namespace {

constexpr size_t kAlignment = 256, kGuard = 4096;

struct Owned {
  std::unique_ptr<uint8_t[]> memory;  // guards included
  Allocation allocation;
};

// By address of the last byte, so that lower_bound finds the one that may hold an address.
std::map<uint64_t, std::unique_ptr<Owned>>& allocations() {
  static auto* all = new std::map<uint64_t, std::unique_ptr<Owned>>;  // outlives static destructors
  return *all;
}

}  // namespace

void* allocate(size_t bytes) {
  auto owned = std::make_unique<Owned>();
  const size_t room = std::max<size_t>(bytes, 1);
  owned->memory.reset(new uint8_t[room + 2 * kGuard + kAlignment]);
  const uint64_t raw = reinterpret_cast<uint64_t>(owned->memory.get()) + kGuard;
  const uint64_t begin = (raw + kAlignment - 1) / kAlignment * kAlignment;
  std::memset(reinterpret_cast<void*>(begin), 0xff, bytes);  // NaN, and no plausible index
  owned->allocation = {begin, begin + bytes, std::vector<uint8_t>(bytes), {}};
  allocations()[begin + room - 1] = std::move(owned);
  return reinterpret_cast<void*>(begin);
}

void release(void* pointer) {
  if (pointer == nullptr) return;
  auto at = allocations().lower_bound(reinterpret_cast<uint64_t>(pointer));
  if (at == allocations().end() ||
      at->second->allocation.begin != reinterpret_cast<uint64_t>(pointer)) {
    std::fprintf(stderr, "virtual GPU: %p was not allocated, or was released before\n", pointer);
    std::abort();
  }
  allocations().erase(at);
}

Allocation* find_allocation(uint64_t address) {
  const auto at = allocations().lower_bound(address);
  if (at == allocations().end() || at->second->allocation.begin > address) return nullptr;
  return &at->second->allocation;
}

bool owns(const void* pointer, size_t bytes) {
  const Allocation* a = find_allocation(reinterpret_cast<uint64_t>(pointer));
  return a != nullptr && a->contains(reinterpret_cast<uint64_t>(pointer), bytes);
}

void mark_initialised(const void* pointer, size_t bytes) {
  const uint64_t address = reinterpret_cast<uint64_t>(pointer);
  Allocation* a = find_allocation(address);
  if (a == nullptr || !a->contains(address, bytes)) return;  // host memory
  std::fill_n(a->initialised.begin() + (address - a->begin), bytes, uint8_t{1});
}

uint8_t* allocate_variable(uint64_t bytes, uint64_t) {
  void* memory = allocate(bytes);
  std::memset(memory, 0, bytes);
  mark_initialised(memory, bytes);
  return static_cast<uint8_t*>(memory);
}

bool Record::before(const Accessor& a) const {
  if (launch != a.launch) return true;
  if (block != a.block) return false;
  if (epoch < a.epoch) return true;
  if (warp != a.warp) return false;
  return syncs < a.syncs || lane == a.lane;
}

void Record::add(const Accessor& a, uint8_t which, bool is_atomic) {
  if (before(a)) {
    *this = {a.launch, a.block, a.epoch, a.syncs, a.warp, a.lane, which, is_atomic};
    return;
  }
  if (block != a.block) block = kAnyBlock;
  if (warp != a.warp) warp = kAnyWarp;
  if (lane != a.lane) lane = kAnyLane;
  epoch = std::max(epoch, a.epoch);
  syncs = std::max(syncs, a.syncs);
  bytes |= which;
  atomic &= is_atomic;
}

bool Cell::touch(const Accessor& a, AccessKind kind, uint8_t bytes) {
  const bool atomic = kind == AccessKind::atomic;
  bool fine = !(write.bytes & bytes) || write.before(a) || (atomic && write.atomic);
  if (kind == AccessKind::read) {
    read.add(a, bytes, false);
    return fine;
  }
  fine &= !(read.bytes & bytes) || read.before(a);
  write.add(a, bytes, atomic);
  return fine;
}

}  // namespace virtual_gpu
