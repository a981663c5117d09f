// Pieces of a statement's text.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace virtual_gpu {

[[noreturn]] inline void fail(const std::string& message) { throw std::runtime_error(message); }

std::string trimmed(const std::string& text);
// At separators outside brackets; empty pieces are left out.
std::vector<std::string> split(const std::string& text, char separator);
// Bytes of a type; 0 for predicates, as a register's width is.
uint8_t type_bytes(const std::string& type);
bool is_wide(const std::string& type);
bool is_number(const std::string& text);
uint64_t number(const std::string& text);

inline uint64_t aligned(uint64_t offset, uint64_t to) { return (offset + to - 1) / to * to; }

// A declared variable: [.align n] .type name[count]
struct Declaration {
  uint64_t alignment = 1, bytes = 0;
  uint64_t element = 1;
  std::string name;
  bool unsized = false;
};
Declaration declaration(const std::string& text);

}  // namespace virtual_gpu
