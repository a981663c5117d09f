// From PTX text to machine code.
//
// The text is cut into statements with their lines; declarations fill scopes of symbols;
// instructions are matched against the operations_*.cpp. Anything unknown is an error that names
// the line.
#include <algorithm>
#include <cctype>
#include <memory>
#include <stdexcept>

#include "assembler.h"

namespace virtual_gpu {
namespace {

struct Statement {
  std::string text;  // without the semicolon; "{", "}" and "label:" are statements too
  int line;
};

bool starts_with_any(const std::string& text, std::initializer_list<const char*> words) {
  return std::any_of(words.begin(), words.end(),
                     [&](const char* w) { return text.starts_with(w); });
}

// Comments out, statements apart. Braces are statements of their own where they open a scope, and
// part of the statement where they group operands or initialise.
class Splitter {
 public:
  explicit Splitter(std::string_view ptx) : ptx_(ptx) {}

  std::vector<Statement> run() {
    for (at_ = 0; at_ < ptx_.size(); ++at_) {
      const char c = ptx_[at_];
      if (in_string_ || c == '"') {
        if (c == '"') in_string_ = !in_string_;
        text_ += c;
      } else if (ptx_.substr(at_, 2) == "//") {
        skip_to("\n");
        --at_;  // the line's end counts
      } else if (ptx_.substr(at_, 2) == "/*") {
        skip_to("*/");
      } else if (c == '\n') {
        if (starts_with_any(text_, {".version", ".target", ".address_size", ".file", ".loc "}))
          flush();
        if (!text_.empty()) text_ += ' ';
        ++line_;
      } else {
        add(c);
      }
    }
    flush();
    return std::move(all_);
  }

 private:
  void add(char c) {
    if (text_.empty()) {
      if (std::isspace(static_cast<unsigned char>(c))) return;
      start_ = line_;
      if (c == '{' || c == '}') return alone(c);
      if (ptx_.substr(at_, 8) == ".section") return skip_to("}");  // debugging information
    } else if (c == '{' && text_[0] == '.' && text_.find('=') == std::string::npos) {
      flush();
      return alone(c);
    } else if (c == ':' && text_.find_first_of(" \t[{(,.") == std::string::npos) {
      text_ += c;
      return flush();
    }
    if (c == ';') return flush();
    text_ += c == '\t' || c == '\r' ? ' ' : c;
  }
  void alone(char c) { all_.push_back({std::string(1, c), line_}); }
  void flush() {
    while (!text_.empty() && text_.back() == ' ') text_.pop_back();
    if (!text_.empty()) all_.push_back({std::move(text_), start_});
    text_.clear();
  }
  void skip_to(std::string_view end) {
    const size_t found = std::min(ptx_.find(end, at_), ptx_.size());
    line_ += static_cast<int>(std::count(ptx_.begin() + static_cast<long>(at_),
                                         ptx_.begin() + static_cast<long>(found), '\n'));
    at_ = found + end.size() - 1;
  }

  std::string_view ptx_;
  std::vector<Statement> all_;
  std::string text_;
  size_t at_ = 0;
  int line_ = 1, start_ = 1;
  bool in_string_ = false;
};

}  // namespace

std::string portable_name(std::string_view name) {
  // <length>_GLOBAL__N__<hash>_<length of file>_<file>_<hash>_<process>: the file stays
  constexpr std::string_view kUnnamed = "_GLOBAL__N__";
  const size_t at = name.find(kUnnamed);
  if (at == std::string_view::npos) return std::string(name);
  size_t digits = at;
  while (digits > 0 && std::isdigit(static_cast<unsigned char>(name[digits - 1]))) --digits;
  const size_t length = std::stoul(std::string(name.substr(digits, at - digits)));
  const std::string_view file = name.substr(at, length).substr(kUnnamed.size() + 9);
  const size_t file_length = std::stoul(std::string(file)) + file.find('_') + 1;
  return std::string(name.substr(0, digits)) + std::string(kUnnamed) +
         std::string(file.substr(0, file_length)) + portable_name(name.substr(at + length));
}

struct Module::Contents {
  std::vector<std::unique_ptr<Kernel>> kernels;
};

Module::Module(std::string_view ptx, std::string file) : contents_(new Contents) {
  Assembler assembler(std::move(file));
  for (const Statement& s : Splitter(ptx).run()) {
    try {
      assembler.add(s.text, s.line);
    } catch (const std::exception& error) {
      throw std::runtime_error(assembler.file() + ":" + std::to_string(s.line) + ": " +
                               error.what() + "\n  " + s.text);
    }
  }
  contents_->kernels = assembler.finish();
}

Module::~Module() = default;

const Kernel* Module::find(std::string_view name) const {
  for (const auto& k : contents_->kernels)
    if (k->info.name == name) return k.get();
  const std::string wanted = portable_name(name);
  for (const auto& k : contents_->kernels)
    if (portable_name(k->info.name) == wanted) return k.get();
  return nullptr;
}

std::vector<const Kernel*> Module::kernels() const {
  std::vector<const Kernel*> all;
  for (const auto& k : contents_->kernels) all.push_back(k.get());
  return all;
}

const KernelInfo& info(const Kernel& kernel) { return kernel.info; }

}  // namespace virtual_gpu
