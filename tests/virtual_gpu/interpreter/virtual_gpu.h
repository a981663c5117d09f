// The virtual GPU: PTX, as nvcc emits it, executed on the CPU.
//
// What the CUDA-runtime replacement (../runtime) and the tests see of the interpreter. Device
// memory is host memory, and a device pointer a host pointer; every access is looked up among the
// allocations.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace virtual_gpu {

// ---- device memory (memory.cpp)

// 256-byte aligned, between guard zones that no kernel may touch, counted as uninitialised.
void* allocate(size_t bytes);
void release(void* pointer);  // exits with an error if it was not allocated
// The host wrote these bytes (memcpy, memset), and kernels may read them from now on.
void mark_initialised(const void* pointer, size_t bytes);
// Whether all bytes lie in one live allocation.
bool owns(const void* pointer, size_t bytes);

// ---- modules and kernels (parser.cpp)

struct Kernel;  // machine code, opaque here

struct KernelInfo {
  std::string name;  // mangled
  std::vector<uint32_t> parameter_bytes, parameter_offset;
  uint32_t parameters_size;
  uint32_t static_shared;       // bytes
  uint32_t max_threads;         // .maxntid product, or 1024
  uint32_t registers_declared;  // virtual ones; not what a GPU would use
};

// A whole PTX file. Throws std::runtime_error, naming the line, on anything it does not know.
class Module {
 public:
  Module(std::string_view ptx, std::string file);
  ~Module();
  // By its name, or else by its portable name; nullptr if there is none.
  const Kernel* find(std::string_view name) const;
  std::vector<const Kernel*> kernels() const;

 private:
  struct Contents;
  std::unique_ptr<Contents> contents_;
};

const KernelInfo& info(const Kernel& kernel);

// A kernel's name without what differs between two runs of nvcc: it names an unnamed namespace by
// hashes of the file's path and contents and by the number of its own process.
std::string portable_name(std::string_view name);

// ---- launches (launch.cpp)

struct Dim3 {
  uint32_t x = 1, y = 1, z = 1;
};

struct Settings {
  bool checked = true;  // races, uninitialised reads, bank conflicts, sectors; bounds always
  uint64_t seed = 0;    // of the order of blocks and warps; 0: in order
  bool rough_functions = true;  // ex2.approx and friends err by up to their documented bound
};
Settings& settings();

// Runs every block of the grid to the end. arguments: as cudaLaunchKernel takes them. Errors found
// on the way are in the report; false if the launch could not be completed.
bool launch(const Kernel& kernel, Dim3 grid, Dim3 block, uint32_t dynamic_shared,
            void* const* arguments);

// ---- what was found (report.cpp)

enum class Problem {
  out_of_bounds,
  misaligned,
  uninitialised,
  shared_race,
  global_race,
  copy_in_flight,     // a cp.async destination touched, or its source overwritten, before its wait
  divergent_barrier,  // or a warp-wide instruction that not all named lanes reach
  deadlock,
  assertion,
  trap,
};
const char* name_of(Problem problem);

struct Finding {
  Problem problem;
  std::string kernel, file, instruction, message;  // file:line of the CUDA source where known
  int ptx_line, source_line;
  uint64_t count;  // how often at this place
};

// How often a PTX line was executed by a warp, and what its memory accesses cost.
struct LineCount {
  std::string kernel, instruction, file;
  int ptx_line, source_line;
  uint64_t warps;                         // warp instructions
  uint64_t wavefronts, ideal_wavefronts;  // shared memory: 128 bytes each
  uint64_t sectors, ideal_sectors;        // global memory: 32 bytes each
};

std::vector<Finding> findings();
std::vector<LineCount> line_counts();  // only of checked launches
void clear_report();

}  // namespace virtual_gpu
