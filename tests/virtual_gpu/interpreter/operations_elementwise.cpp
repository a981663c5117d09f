#include "elementwise.h"

namespace virtual_gpu {
namespace {

Table make_table() {
  Table t;
  add_arithmetic(t);
  add_bits(t);
  add_comparisons(t);
  add_functions(t);
  add_moves(t);
  return t;
}

}  // namespace

bool decode_elementwise(const Parts& parts, Instruction& instruction) {
  static const Table table = make_table();
  std::string name;
  for (const auto& part : parts) name += (name.empty() ? "" : ".") + part;
  const auto found = table.find(name);
  if (found == table.end()) return false;
  instruction.run = found->second;
  return true;
}

}  // namespace virtual_gpu
