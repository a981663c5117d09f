#include "statements.h"

#include <algorithm>
#include <cctype>

namespace virtual_gpu {

std::string trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(' ');
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(' ') - first + 1);
}

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

uint8_t type_bytes(const std::string& type) {
  if (type == "pred") return 0;
  const size_t digit = type.find_first_of("0123456789");
  if (digit == std::string::npos) fail("unknown type " + type);
  return static_cast<uint8_t>(std::stoi(type.substr(digit)) / 8);
}
bool is_wide(const std::string& type) { return type.size() == 3 && type.substr(1) == "64"; }

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

}  // namespace virtual_gpu
