// Allocations of device memory, and who touched what.
#pragma once

#include <cstdint>
#include <vector>

#include "virtual_gpu.h"

namespace virtual_gpu {

// Who accesses memory. Within a block, epoch counts the barriers it has passed; within a warp,
// syncs counts its bar.warp.sync.
struct Accessor {
  uint32_t launch, block, epoch, syncs;
  uint16_t warp;
  uint8_t lane;
};

// The last access of a kind to 4 bytes. Values of "any" stand for several who are not ordered.
struct Record {
  static constexpr uint32_t kAnyBlock = ~uint32_t{0};
  static constexpr uint16_t kAnyWarp = 0xffff;
  static constexpr uint8_t kAnyLane = 0xff;
  uint32_t launch = 0;  // older launches are ordered before this one
  uint32_t block = 0, epoch = 0, syncs = 0;
  uint16_t warp = 0;
  uint8_t lane = 0;
  uint8_t bytes = 0;  // which of the four, a bit each
  bool atomic = false;

  bool before(const Accessor& a) const;
  // Adds an access that may be unordered with the ones recorded.
  void add(const Accessor& a, uint8_t which, bool is_atomic);
};

enum class AccessKind : uint8_t { read, write, atomic };

// Bytes of one word that several lanes wrote must be handed over (a barrier, bar.warp.sync) before
// even the same lane reads its own: the record is of the word.
struct Cell {
  Record write, read;
  uint8_t initialised = 0;  // a bit a byte; of shared memory only
  uint8_t copies = 0;       // cp.async under way to these bytes

  // Notes the access to some of the bytes; false if it races with an earlier one.
  bool touch(const Accessor& a, AccessKind kind, uint8_t bytes);
};

struct Allocation {
  uint64_t begin, end;
  std::vector<uint8_t> initialised;  // a byte a byte
  std::vector<Cell> cells;           // one every 4 bytes, made when first checked
  bool contains(uint64_t address, uint64_t bytes) const {
    return address >= begin && bytes <= end - begin && address - begin <= end - begin - bytes;
  }
};

// The live allocation that holds the address, or nullptr.
Allocation* find_allocation(uint64_t address);
// Memory of module variables: initialised, never released.
uint8_t* allocate_variable(uint64_t bytes, uint64_t alignment);

}  // namespace virtual_gpu
