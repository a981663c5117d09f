// Operands of instructions: registers, constants and addresses.
#include <cstring>

#include "assembler.h"
#include "operations_move.h"
#include "statements.h"

namespace virtual_gpu {
namespace {

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
  auto check_halves = [&](int n) {
    if (n != 2 || (parts.back() != "b32" && parts.back() != "b64"))
      fail("only halves of 32 or 64 bits are modelled");
  };
  if (given[0][0] == '{') {
    for (const auto& piece : pieces(given[0])) i.results[i.n_results++] = register_operand(piece);
    i.sources[i.n_sources++] = source(given[1], is_wide(parts.back()));
    check_halves(i.n_results);
    return make_unpack(i);
  }
  i.results[i.n_results++] = register_operand(given[0]);
  if (given[1][0] == '{') {
    for (const auto& piece : pieces(given[1])) i.sources[i.n_sources++] = source(piece, false);
    check_halves(i.n_sources);
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
  if (i.control == Control::barrier && i.n_sources > (parts[1] == "red" ? 2 : 1))
    fail("a barrier of some of the block's warps is not modelled");
  if (op == "cp" && i.n_sources > 2 && i.sources[2].predicate)
    fail("cp.async that may ignore its source is not modelled");
}

}  // namespace virtual_gpu
