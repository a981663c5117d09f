// Kernels, variables and registers that are declared.
#include <algorithm>
#include <cstring>

#include "assembler.h"
#include "memory.h"
#include "statements.h"

namespace virtual_gpu {

void Assembler::begin_kernel(const std::string& header) {
  auto kernel = std::make_unique<Kernel>();
  const size_t open = header.find('('), close = header.rfind(')');
  kernel->info.name = trimmed(header.substr(0, open));
  kernel->file = file_;
  kernel->info.max_threads = 1024;
  scopes_.resize(1);
  scopes_.emplace_back();
  uint64_t offset = 0;
  for (const auto& parameter : split(header.substr(open + 1, close - open - 1), ',')) {
    const Declaration d = declaration(parameter);
    offset = aligned(offset, d.alignment);
    scopes_.back()[d.name] = {Symbol::parameter, offset};
    kernel->info.parameter_bytes.push_back(static_cast<uint32_t>(d.bytes));
    kernel->info.parameter_offset.push_back(static_cast<uint32_t>(offset));
    offset += d.bytes;
  }
  kernel->info.parameters_size = static_cast<uint32_t>(offset);
  if (const size_t at = header.find(".maxntid", close); at != std::string::npos) {
    uint32_t threads = 1;
    const std::string counts = header.substr(at + 8, header.find('.', at + 8) - at - 8);
    for (const auto& n : split(counts, ',')) threads *= static_cast<uint32_t>(std::stoul(n));
    kernel->info.max_threads = threads;
  }
  kernels_.push_back(std::move(kernel));
  in_kernel_ = true;
  width_.clear();
  constants_.clear();
  labels_.clear();
  branches_.clear();
  dynamic_constants_.clear();
  dynamic_offsets_.clear();
  shared_ = module_shared_;
  local_ = 0;
}

void Assembler::declare(const std::string& s) {
  for (const char* ignored : {".version", ".target", ".address_size", ".pragma"})
    if (s.starts_with(ignored)) return;
  const size_t space = s.find(' ');
  const std::string first = s.substr(0, space), rest = trimmed(s.substr(space));
  if (first == ".visible" || first == ".weak") return declare(rest);
  auto& scope = scopes_.back();
  if (first == ".reg") {
    const size_t end = rest.find(' ');
    declare_registers(rest.substr(1, end - 1), rest.substr(end));
  } else if (first == ".shared" || s.starts_with(".extern .shared")) {
    const Declaration d = declaration(first == ".shared" ? rest : rest.substr(8));
    if (d.unsized) {
      scope[d.name] = {Symbol::dynamic_shared, 0};
      return;
    }
    uint64_t& size = in_kernel_ ? shared_ : module_shared_;
    size = aligned(size, d.alignment);
    scope[d.name] = {Symbol::shared, size};
    size += d.bytes;
  } else if (first == ".local") {
    const Declaration d = declaration(rest);
    local_ = aligned(local_, d.alignment);
    scope[d.name] = {Symbol::local, local_};
    local_ += d.bytes;
  } else if (first == ".param") {  // of a call
    const Declaration d = declaration(rest);
    scope[d.name] = {Symbol::register_, new_register(d.bytes == 8 ? 8 : 4)};
  } else if (first == ".global" || first == ".const") {
    const size_t equals = rest.find('=');
    const Declaration d = declaration(trimmed(rest.substr(0, equals)));
    uint8_t* memory = allocate_variable(d.bytes, d.alignment);
    if (equals != std::string::npos) {
      std::string values = trimmed(rest.substr(equals + 1));
      if (values[0] == '{') values = values.substr(1, values.size() - 2);
      uint64_t at = 0;
      for (const auto& v : split(values, ',')) {
        if (!is_number(v)) fail("only numbers can initialise a variable");
        const uint64_t value = number(v);
        std::memcpy(memory + at, &value, d.element);
        at += d.element;
      }
    }
    scopes_.front()[d.name] = {Symbol::variable, reinterpret_cast<uint64_t>(memory)};
  } else {
    fail("unknown directive " + first);
  }
}

uint32_t Assembler::new_register(uint8_t width) {
  width_.push_back(width == 0 ? 0 : std::max<uint8_t>(width, 4));
  return static_cast<uint32_t>(width_.size() - 1);
}

void Assembler::declare_registers(const std::string& type, const std::string& names) {
  const uint8_t width = type_bytes(type);
  for (const auto& name : split(names, ',')) {
    const size_t angle = name.find('<');
    if (angle == std::string::npos) {
      scopes_.back()[name] = {Symbol::register_, new_register(width)};
      continue;
    }
    const int count = std::stoi(name.substr(angle + 1));
    for (int n = 0; n < count; ++n)
      scopes_.back()[name.substr(0, angle) + std::to_string(n)] = {Symbol::register_,
                                                                   new_register(width)};
  }
}

}  // namespace virtual_gpu
