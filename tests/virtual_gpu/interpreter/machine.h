// A block at work: its warps, its shared memory, and what the checks remember of both.
#pragma once

#include <cstdint>
#include <deque>
#include <stdexcept>
#include <vector>

#include "memory.h"
#include "program.h"

namespace virtual_gpu {

// Lanes of a warp that are at the same instruction.
struct Fragment {
  int pc;
  Mask lanes;
  enum { running, at_block_barrier, at_warp_barrier } state = running;
};

struct PendingCopy {
  uint32_t shared;
  uint64_t global;
  int lane;
  uint32_t bytes, read;  // of which the rest is zero
  uint8_t data[16];
  const Instruction* issued;
};

struct Block;

struct Warp {
  Block* block;
  int index;
  uint8_t* registers;
  const uint8_t* file[2];      // registers, constants
  std::vector<uint8_t> local;  // of 32 lanes
  std::vector<Fragment> fragments;
  Mask live = 0;
  uint32_t syncs = 1;  // bar.warp.sync passed
  // cp.async: groups that were committed, then the one that is open. Of the whole warp: commit and
  // wait are executed by all lanes, or the copies of those that did not take part stay pending.
  std::deque<std::vector<PendingCopy>> copies{1};
};

struct Block {
  const Kernel* kernel;
  const uint8_t* parameters;
  Dim3 grid, size, index;
  uint32_t serial;  // in the launch
  uint32_t dynamic_shared;
  std::vector<uint8_t> shared;
  std::vector<Cell> shared_cells;  // one every 4 bytes; empty when unchecked
  std::vector<Warp> warps;
  uint32_t epoch = 1;  // block barriers passed
  uint32_t launch;
  bool checked;

  // Who is accessing, for the records of the checks.
  Accessor accessor(const Warp& w, int lane) const {
    return {
        launch, serial, epoch, w.syncs, static_cast<uint16_t>(w.index), static_cast<uint8_t>(lane)};
  }
};

// Ends the block, and the launch.
struct Abort : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// execute.cpp: runs a warp for at most `budget` instructions, until it waits or ends.
enum class Outcome { ran, waits, ended };
Outcome execute(Warp& warp, int budget);

// report.cpp
void report(const Warp& warp, const Instruction& at, Problem problem, const std::string& message);

}  // namespace virtual_gpu
