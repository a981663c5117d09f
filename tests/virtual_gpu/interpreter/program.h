// Machine code of the virtual GPU: PTX with every operand resolved.
//
// A register is 32 lanes of 4 or 8 bytes in the warp's register file; predicates are one bit a
// lane. Registers whose lives do not overlap share a place (registers.cpp), so that a warp's file
// fits the cache. Constants are registers of a second file that all warps share.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "virtual_gpu.h"

namespace virtual_gpu {

constexpr int kLanes = 32;
using Mask = uint32_t;
constexpr Mask kAllLanes = ~Mask{0};

struct Warp;
struct Instruction;
using Handler = void (*)(Warp& warp, const Instruction& instruction, Mask mask);

// A place in a register file; the top bit chooses the file of constants.
struct Operand {
  static constexpr uint32_t kConstant = 0x80000000u;
  uint32_t place = 0;
  bool wide = false;       // 8 bytes a lane
  bool predicate = false;  // one word of lane bits
  bool negated = false;    // of a predicate
};

enum class Space : uint8_t { generic, global, shared, local, parameter, constant };

enum class Control : uint8_t {
  none,
  branch,
  exit,
  barrier,       // of the block
  warp_barrier,  // handled by `run` once every named lane is here
};

struct Instruction {
  Handler run = nullptr;
  Control control = Control::none;
  Space space = Space::generic;
  uint8_t bytes = 4;     // of one element in memory
  uint8_t elements = 1;  // of a vector access
  bool extends_sign = false;
  bool transposed = false;  // ldmatrix
  uint8_t variant = 0;      // of an operation with flavours (comparison, shuffle mode, ..)
  bool guarded = false;
  bool member_mask = false;  // sources[member] names the lanes; otherwise all lanes are needed
  uint8_t member = 0;
  uint8_t n_results = 0, n_sources = 0;
  Operand guard;
  Operand results[4], sources[12];
  int64_t offset = 0;  // added to an address
  int target = -1;     // of a branch
  int ptx_line = 0, source_line = 0, source_file = 0;
  std::string text;
};

// Of one instruction, while launches are checked.
struct Counts {
  uint64_t warps = 0, wavefronts = 0, ideal_wavefronts = 0, sectors = 0, ideal_sectors = 0;
};

struct Kernel {
  KernelInfo info;
  std::string file;  // the PTX file
  std::vector<std::string> source_files;
  std::vector<Instruction> code;
  std::vector<uint8_t> constants;      // file of constants
  uint32_t register_bytes = 0;         // of a warp
  uint32_t local_bytes = 0;            // of a thread
  mutable std::vector<Counts> counts;  // an instruction each; empty until a checked launch
};

constexpr uint64_t kSharedWindow = uint64_t{1} << 60;  // generic addresses of shared memory
constexpr uint64_t kLocalWindow = uint64_t{2} << 60;   // and of local memory

// operations_*.cpp: fills `run`, `control` and the flavour of an instruction from its mnemonic,
// split at the dots. False if this file does not know it.
using Parts = std::vector<std::string>;
bool decode_elementwise(const Parts& parts, Instruction& instruction);
bool decode_conversion(const Parts& parts, Instruction& instruction);
bool decode_memory(const Parts& parts, Instruction& instruction);
bool decode_warp(const Parts& parts, Instruction& instruction);
bool decode_mma(const Parts& parts, Instruction& instruction);

// registers.cpp: gives the virtual registers of a kernel places in the file. `width`: bytes a lane,
// 0 for predicates. Operands come with the register's number as place.
uint32_t place_registers(std::vector<Instruction>& code, const std::vector<uint8_t>& width);

}  // namespace virtual_gpu
