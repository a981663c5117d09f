#include "assembler.h"

#include <algorithm>
#include <cstring>

#include "operations_move.h"
#include "statements.h"

namespace virtual_gpu {

const Assembler::Symbol* Assembler::find(const std::string& name) const {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope)
    if (const auto found = scope->find(name); found != scope->end()) return &found->second;
  return nullptr;
}

void Assembler::add(const std::string& s, int line) {
  if (s == "{") {
    if (scopes_.size() == 1 && !in_kernel_) fail("a block outside of a kernel");
    scopes_.emplace_back();
  } else if (s == "}") {
    scopes_.pop_back();
    if (scopes_.size() == 2) end_kernel();  // only the scope of its parameters is left
  } else if (s.back() == ':') {
    labels_[s.substr(0, s.size() - 1)] = static_cast<int>(kernels_.back()->code.size());
  } else if (s.starts_with(".file")) {
    const size_t index = std::stoull(s.substr(5)), quote = s.find('"');
    source_files_.resize(std::max(source_files_.size(), index + 1));
    source_files_[index] = s.substr(quote + 1, s.rfind('"') - quote - 1);
  } else if (s.starts_with(".loc ")) {
    const auto words = split(s, ' ');
    if (words.at(2) == "0") return;  // of no line: that of the last one stays
    source_file_ = std::stoi(words.at(1));
    source_line_ = std::stoi(words[2]);
  } else if (s.starts_with(".extern .func")) {
    if (s.find("__assertfail") == std::string::npos) fail("only __assertfail can be called");
  } else if (s.starts_with(".entry") || s.starts_with(".visible .entry") ||
             s.starts_with(".weak .entry")) {
    begin_kernel(s.substr(s.find(".entry") + 6));
  } else if (s[0] == '.') {
    declare(s);
  } else if (!in_kernel_) {
    fail("an instruction outside of a kernel");
  } else {
    instruction(s, line);
  }
}

void Assembler::end_kernel() {
  Kernel& k = *kernels_.back();
  in_kernel_ = false;
  // a thread that runs past the end has ended
  Instruction last;
  last.control = Control::exit;
  last.text = "ret";
  k.code.push_back(last);
  for (const auto& [at, label] : branches_) {
    if (!labels_.contains(label)) fail("no label " + label);
    k.code[at].target = labels_[label];
  }
  const uint64_t dynamic = aligned(shared_, 128);
  for (uint32_t place : dynamic_constants_)
    for (int l = 0; l < kLanes; ++l) {
      uint32_t value;
      std::memcpy(&value, &k.constants[place + 4 * l], 4);
      value += static_cast<uint32_t>(dynamic);
      std::memcpy(&k.constants[place + 4 * l], &value, 4);
    }
  for (int at : dynamic_offsets_) k.code[at].offset += static_cast<int64_t>(dynamic);
  k.info.static_shared = static_cast<uint32_t>(dynamic);
  k.info.registers_declared = static_cast<uint32_t>(width_.size());
  k.local_bytes = static_cast<uint32_t>(aligned(local_, 16));
  k.register_bytes = place_registers(k.code, width_);
}

std::vector<std::unique_ptr<Kernel>> Assembler::finish() {
  for (auto& k : kernels_) k->source_files = source_files_;
  return std::move(kernels_);
}

void Assembler::instruction(std::string text, int line) {
  Instruction i;
  i.text = text;
  i.ptx_line = line;
  i.source_file = source_file_;
  i.source_line = source_line_;
  if (text[0] == '@') {
    const size_t end = text.find(' ');
    i.guarded = true;
    i.guard = register_operand(text.substr(1, end - 1));
    text = trimmed(text.substr(end));
  }
  const size_t end = std::min(text.find(' '), text.size());
  const Parts parts = split(text.substr(0, end), '.');
  auto given = split(text.substr(end), ',');
  auto& code = kernels_.back()->code;
  if (parts[0] == "call") return call(text, line);
  if (parts[0] == "st" && parts.size() > 1 && parts[1] == "param")
    return store_call_parameter(text, line);
  if (parts[0] == "bra") {
    i.control = Control::branch;
    branches_.emplace_back(static_cast<int>(code.size()), given.at(0));
  } else if (parts[0] == "ret" || parts[0] == "exit") {
    i.control = Control::exit;
  } else if (parts[0] == "trap") {
    make_trap(i);
  } else {
    if (!decode_elementwise(parts, i) && !decode_conversion(parts, i) && !decode_memory(parts, i) &&
        !decode_warp(parts, i) && !decode_mma(parts, i))
      fail("unknown instruction");
    if (parts[0] == "cp" && parts[2] == "wait_group") {
      i.offset = static_cast<int64_t>(number(given.at(0)));
      given.clear();
    } else if (parts[0] == "cp" && given.size() > 2) {
      i.bytes = static_cast<uint8_t>(number(given[2]));
      given.erase(given.begin() + 2);
    }
    if (parts[0] == "mov") {
      move(parts, given, i);
    } else {
      operands(parts, given, i);
    }
  }
  code.push_back(std::move(i));
}

void Assembler::store_call_parameter(const std::string& text, int line) {
  const auto given = split(text.substr(text.find(' ')), ',');
  const std::string name = given.at(0).substr(1, given[0].find_first_of("+]") - 1);
  Instruction i;
  i.text = text;
  i.ptx_line = line;
  i.results[i.n_results++] = register_operand(name);
  const bool wide = i.results[0].wide;
  i.sources[i.n_sources++] = source(given.at(1), wide);
  decode_elementwise({"mov", wide ? "b64" : "b32"}, i);
  kernels_.back()->code.push_back(std::move(i));
}

void Assembler::call(const std::string& text, int line) {
  const auto given = split(text.substr(text.find(' ')), ',');
  if (given.at(0) != "__assertfail") fail("only __assertfail can be called");
  Instruction i;
  i.text = text;
  i.ptx_line = line;
  i.source_file = source_file_;
  i.source_line = source_line_;
  const auto arguments = split(given.at(1).substr(1, given[1].size() - 2), ',');
  for (int n = 0; n < 3; ++n) i.sources[i.n_sources++] = register_operand(arguments.at(n));
  make_assertion(i);
  kernels_.back()->code.push_back(std::move(i));
}

}  // namespace virtual_gpu
