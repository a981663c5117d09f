#include "assembler.h"

#include <algorithm>
#include <bit>
#include <cctype>
#include <cstring>
#include <stdexcept>

#include "memory.h"
#include "operations_move.h"

namespace virtual_gpu {
namespace {

[[noreturn]] void fail(const std::string& message) { throw std::runtime_error(message); }

std::string trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(' ');
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(' ') - first + 1);
}

// At separators outside brackets; empty pieces are left out.
std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> pieces;
  std::string piece;
  int depth = 0;
  for (char c : text) {
    depth += c == '{' || c == '[' || c == '(';
    depth -= c == '}' || c == ']' || c == ')';
    if (c == separator && depth == 0) {
      if (!trimmed(piece).empty()) pieces.push_back(trimmed(piece));
      piece.clear();
    } else {
      piece += c;
    }
  }
  if (!trimmed(piece).empty()) pieces.push_back(trimmed(piece));
  return pieces;
}

// Bytes of a type; 0 for predicates, as a register's width is.
uint8_t type_bytes(const std::string& type) {
  if (type == "pred") return 0;
  const size_t digit = type.find_first_of("0123456789");
  if (digit == std::string::npos) fail("unknown type " + type);
  return static_cast<uint8_t>(std::stoi(type.substr(digit)) / 8);
}
bool is_wide(const std::string& type) { return type.size() == 3 && type.substr(1) == "64"; }

uint64_t aligned(uint64_t offset, uint64_t to) { return (offset + to - 1) / to * to; }

bool is_number(const std::string& text) {
  return std::isdigit(static_cast<unsigned char>(text[0])) || text[0] == '-';
}
uint64_t number(const std::string& text) {
  if (text.starts_with("0f") || text.starts_with("0F") || text.starts_with("0d") ||
      text.starts_with("0D"))
    return std::stoull(text.substr(2), nullptr, 16);
  return text[0] == '-' ? static_cast<uint64_t>(std::stoll(text, nullptr, 0))
                        : std::stoull(text, nullptr, 0);
}

// A declared variable: [.align n] .type name[count]
struct Declaration {
  uint64_t alignment = 1, bytes = 0;
  uint64_t element = 1;
  std::string name;
  bool unsized = false;
};
Declaration declaration(const std::string& text) {
  Declaration d;
  const auto words = split(text, ' ');
  for (size_t n = 0; n < words.size(); ++n) {
    const std::string& w = words[n];
    if (w == ".align") {
      d.alignment = std::stoull(words.at(++n));
    } else if (w == ".ptr" || w == ".global" || w == ".param" || w == ".const" || w == ".shared") {
    } else if (w[0] == '.') {
      d.element = type_bytes(w.substr(1));
      d.alignment = std::max(d.alignment, d.element);
    } else {
      const size_t bracket = w.find('[');
      d.name = w.substr(0, bracket);
      uint64_t count = 1;
      if (bracket != std::string::npos) {
        d.unsized = w[bracket + 1] == ']';
        count = d.unsized ? 0 : std::stoull(w.substr(bracket + 1));
      }
      d.bytes = count * d.element;
    }
  }
  if (d.name.empty()) fail("a declaration without a name");
  return d;
}

// Are constants among the sources 8 bytes wide? By position: a shift's count never is.
bool wide_source(const Parts& parts, size_t position) {
  const std::string& op = parts[0];
  if (op == "cvt") return is_wide(parts.back());
  if (op == "cvta") return true;
  if (op == "shl" || op == "shr") return position == 0 && is_wide(parts.back());
  if ((op == "mul" || op == "mad") && parts[1] == "wide") return position == 2;
  if (op == "ld" || op == "st" || op == "atom" || op == "red")
    return position == 0 || is_wide(parts.back());
  return is_wide(parts.back());
}

}  // namespace

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
  } else if (s.starts_with(".loc")) {
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

Operand Assembler::register_operand(const std::string& text) const {
  const bool negated = text[0] == '!';
  const std::string name = negated ? text.substr(1) : text;
  const Symbol* symbol = find(name);
  if (symbol == nullptr || symbol->kind != Symbol::register_) fail("not a register: " + name);
  const uint8_t width = width_[symbol->value];
  return {static_cast<uint32_t>(symbol->value), width == 8, width == 0, negated};
}

Operand Assembler::constant(uint64_t value, bool wide) {
  if (!wide) value &= 0xffffffffu;
  auto [found, added] = constants_.try_emplace({value, wide}, 0);
  auto& file = kernels_.back()->constants;
  if (added) {
    found->second = static_cast<uint32_t>(file.size());
    const size_t bytes = wide ? 8 : 4;
    file.resize(file.size() + bytes * kLanes);
    for (int l = 0; l < kLanes; ++l) std::memcpy(&file[found->second + l * bytes], &value, bytes);
  }
  return {found->second | Operand::kConstant, wide, false, false};
}

Operand Assembler::source(const std::string& text, bool wide) {
  if (is_number(text)) return constant(number(text), wide);
  const size_t plus = text.find('+', 1);
  const Symbol* symbol = find(plus == std::string::npos ? text : text.substr(0, plus));
  if (symbol == nullptr || symbol->kind == Symbol::register_) return register_operand(text);
  const uint64_t value =
      symbol->value + (plus == std::string::npos ? 0 : number(text.substr(plus + 1)));
  if (symbol->kind != Symbol::dynamic_shared) return constant(value, wide);
  if (wide) fail("a 64-bit address of dynamic shared memory");
  // of its own: it is moved to where dynamic memory starts
  auto& file = kernels_.back()->constants;
  const uint32_t place = static_cast<uint32_t>(file.size());
  file.resize(file.size() + 4 * kLanes);
  for (int l = 0; l < kLanes; ++l) std::memcpy(&file[place + 4 * l], &value, 4);
  dynamic_constants_.push_back(place);
  return {place | Operand::kConstant, false, false, false};
}

// [register + offset], [symbol + offset] or [number]
void Assembler::address(const std::string& text, Instruction& i) {
  const std::string inside = trimmed(text.substr(1, text.size() - 2));
  const size_t plus = inside.find('+');
  const std::string base = trimmed(inside.substr(0, plus));
  if (plus != std::string::npos)
    i.offset = static_cast<int64_t>(number(trimmed(inside.substr(plus + 1))));
  const Symbol* symbol = find(base);
  Operand o;
  if (symbol != nullptr && symbol->kind != Symbol::register_) {
    if (symbol->kind == Symbol::dynamic_shared)
      dynamic_offsets_.push_back(static_cast<int>(kernels_.back()->code.size()));
    i.offset += static_cast<int64_t>(symbol->value);
    o = constant(0, true);
  } else {
    o = source(base, true);
  }
  i.sources[i.n_sources++] = o;
}

void Assembler::move(const Parts& parts, const std::vector<std::string>& given, Instruction& i) {
  auto pieces = [](const std::string& braces) {
    return split(braces.substr(1, braces.size() - 2), ',');
  };
  if (given[0][0] == '{') {
    for (const auto& piece : pieces(given[0])) i.results[i.n_results++] = register_operand(piece);
    i.sources[i.n_sources++] = source(given[1], is_wide(parts.back()));
    return make_unpack(i);
  }
  i.results[i.n_results++] = register_operand(given[0]);
  if (given[1][0] == '{') {
    for (const auto& piece : pieces(given[1])) i.sources[i.n_sources++] = source(piece, false);
    return make_pack(i);
  }
  if (given[1][0] == '%' && find(given[1]) == nullptr) {
    if (!decode_special(given[1], i)) fail("unknown register " + given[1]);
    return;
  }
  if (parts.back() == "pred" && is_number(given[1])) {
    i.sources[i.n_sources++] = constant(number(given[1]) != 0 ? kAllLanes : 0, false);
    return;
  }
  i.sources[i.n_sources++] = source(given[1], is_wide(parts.back()));
}

void Assembler::operands(const Parts& parts, const std::vector<std::string>& given,
                         Instruction& i) {
  const std::string& op = parts[0];
  const bool no_result = op == "st" || op == "red" || op == "cp" || op == "membar" ||
                         op == "fence" || op == "prefetch" || op == "nanosleep" ||
                         ((op == "bar" || op == "barrier") && parts[1] != "red");
  bool first = !no_result;
  for (const auto& text : given) {
    if (first) {
      first = false;
      const auto pieces =
          text[0] == '{' ? split(text.substr(1, text.size() - 2), ',') : split(text, '|');
      for (const auto& piece : pieces) i.results[i.n_results++] = register_operand(piece);
    } else if (text[0] == '[') {
      const int64_t before = i.offset;
      address(text, i);
      if (op == "cp" && i.offset != before) fail("cp.async with an offset is not modelled");
    } else if (text[0] == '{') {
      for (const auto& piece : split(text.substr(1, text.size() - 2), ','))
        i.sources[i.n_sources++] = source(piece, is_wide(parts.back()));
    } else {
      i.sources[i.n_sources] = source(text, wide_source(parts, i.n_sources));
      ++i.n_sources;
    }
  }
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
  if (parts[0] == "call") return call(text.substr(end), line);
  if (parts[0] == "st" && parts.size() > 1 && parts[1] == "param")
    return store_call_parameter(text.substr(end), line);
  if (parts[0] == "bra") {
    i.control = Control::branch;
    branches_.emplace_back(static_cast<int>(code.size()), given.at(0));
  } else if (parts[0] == "ret" || parts[0] == "exit") {
    i.control = Control::exit;
  } else if (parts[0] == "trap") {
    make_trap(i);
  } else {
    if (!decode_arithmetic(parts, i) && !decode_conversion(parts, i) && !decode_memory(parts, i) &&
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
  const auto given = split(text, ',');
  const std::string name = given.at(0).substr(1, given[0].find_first_of("+]") - 1);
  Instruction i;
  i.text = "st.param " + text;
  i.ptx_line = line;
  i.results[i.n_results++] = register_operand(name);
  const bool wide = i.results[0].wide;
  i.sources[i.n_sources++] = source(given.at(1), wide);
  decode_arithmetic({"mov", wide ? "b64" : "b32"}, i);
  kernels_.back()->code.push_back(std::move(i));
}

void Assembler::call(const std::string& text, int line) {
  const auto given = split(text, ',');
  if (given.at(0) != "__assertfail") fail("only __assertfail can be called");
  Instruction i;
  i.text = "call __assertfail";
  i.ptx_line = line;
  i.source_file = source_file_;
  i.source_line = source_line_;
  const auto arguments = split(given.at(1).substr(1, given[1].size() - 2), ',');
  for (int n = 0; n < 3; ++n) i.sources[i.n_sources++] = register_operand(arguments.at(n));
  make_assertion(i);
  kernels_.back()->code.push_back(std::move(i));
}

}  // namespace virtual_gpu
