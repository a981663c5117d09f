// The PTX that is loaded: what nvcc put into the objects, and what tests put in its place.
#pragma once

#include <string>

#include "../interpreter/virtual_gpu.h"

namespace virtual_gpu {

// Every PTX text of a fat binary, as nvcc links it into an object (uncompressed). A text is parsed
// when one of its kernels is first asked for.
void add_fat_binary(const void* wrapper);

// PTX of another copy of the sources: its kernels hide those of the same names until it is removed.
// Throws std::runtime_error if it cannot be parsed, or has a kernel that hides none.
void add_patch(const std::string& ptx, const std::string& file);
void remove_patches();

// The kernel's code for the device, or nullptr. Throws std::runtime_error if its PTX cannot be
// parsed.
const Kernel* find_kernel(const std::string& name);

}  // namespace virtual_gpu
