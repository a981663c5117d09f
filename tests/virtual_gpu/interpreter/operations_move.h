#pragma once

#include "program.h"

namespace virtual_gpu {

bool decode_special(const std::string& name, Instruction& i);  // mov from a special register
void make_pack(Instruction& i);                                // two halves into a register
void make_unpack(Instruction& i);
void make_assertion(Instruction& i);  // __assertfail of three sources: message, file, line
void make_trap(Instruction& i);

}  // namespace virtual_gpu
