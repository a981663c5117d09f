// Statements of PTX, one after the other, into kernels.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "program.h"

namespace virtual_gpu {

class Assembler {
 public:
  explicit Assembler(std::string file) : file_(std::move(file)), scopes_(1) {}
  const std::string& file() const { return file_; }
  void add(const std::string& statement, int line);  // throws std::runtime_error
  std::vector<std::unique_ptr<Kernel>> finish();

 private:
  struct Symbol {
    enum Kind { register_, parameter, shared, dynamic_shared, local, variable, function } kind;
    uint64_t value;  // number, offset or address
  };

  void begin_kernel(const std::string& header);
  void end_kernel();
  void declare(const std::string& text);
  void declare_registers(const std::string& type, const std::string& names);
  void instruction(std::string text, int line);
  void call(const std::string& text, int line);
  void store_call_parameter(const std::string& operands, int line);
  void move(const Parts& parts, const std::vector<std::string>& operands, Instruction& i);
  void operands(const Parts& parts, const std::vector<std::string>& given, Instruction& i);

  const Symbol* find(const std::string& name) const;
  uint32_t new_register(uint8_t width);
  Operand register_operand(const std::string& name) const;
  Operand constant(uint64_t value, bool wide);
  Operand source(const std::string& text, bool wide);
  void address(const std::string& text, Instruction& i);

  std::string file_;
  std::vector<std::string> source_files_;
  std::vector<std::map<std::string, Symbol>> scopes_;  // module, kernel, blocks within
  uint64_t module_shared_ = 0;
  std::vector<std::unique_ptr<Kernel>> kernels_;

  // of the kernel being assembled
  bool in_kernel_ = false;
  std::vector<uint8_t> width_;  // of its virtual registers
  std::map<std::pair<uint64_t, bool>, uint32_t> constants_;
  std::map<std::string, int> labels_;
  std::vector<std::pair<int, std::string>> branches_;
  std::vector<uint32_t> dynamic_constants_;  // hold offsets from the start of dynamic shared memory
  std::vector<int> dynamic_offsets_;         // and so do these instructions
  uint64_t shared_ = 0, local_ = 0;
  int source_file_ = 0, source_line_ = 0;
};

}  // namespace virtual_gpu
