#include "modules.h"

#include <cstring>
#include <list>
#include <map>
#include <memory>
#include <stdexcept>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "device.h"

namespace virtual_gpu {
namespace {

// The layout of fatbinary_section.h (part of the toolkit) and of what it points to.
struct Wrapper {
  int magic, version;
  const char* data;
  void* unused;
};
struct Header {
  uint32_t magic;
  uint16_t version, header_bytes;
  uint64_t bytes;  // of the entries that follow
};
struct Entry {
  uint16_t kind, version;
  uint32_t header_bytes;
  uint64_t bytes;
};
constexpr uint32_t kMagic = 0xBA55ED50;
constexpr uint16_t kPtx = 1;

class Ptx {
 public:
  Ptx(std::string text, std::string file) : text_(std::move(text)), file_(std::move(file)) {
    const size_t at = text_.find(".target ");
    if (at == std::string::npos) throw std::runtime_error(file_ + ": no .target in PTX");
    target_ = text_.substr(at + 8, text_.find_first_of(" \n,", at + 8) - at - 8);
  }

  const std::string& target() const { return target_; }

  std::vector<std::string> names() const {
    const std::string entry = ".entry ";
    std::vector<std::string> all;
    for (size_t at = 0; (at = text_.find(entry, at)) != std::string::npos;) {
      at += entry.size();
      all.push_back(text_.substr(at, text_.find_first_of("( \t\n", at) - at));
    }
    return all;
  }

  const Module& module() {
    if (module_ == nullptr) module_ = std::make_unique<Module>(text_, file_);
    return *module_;
  }

 private:
  std::string text_, file_, target_;
  std::unique_ptr<Module> module_;
};

// Filled by static initialisers, and never destroyed: tensors may outlive static destructors.
struct Loaded {
  std::list<Ptx> texts, patches, retired_patches;
  // of a target
  std::map<std::string, std::unordered_map<std::string, Ptx*>> by_name;
  std::map<std::string, std::unordered_set<std::string>> portable_names;
};
Loaded& loaded() {
  static auto* all = new Loaded;
  return *all;
}

}  // namespace

void add_fat_binary(const void* wrapper) {
  const char* data = static_cast<const Wrapper*>(wrapper)->data;
  Header header;
  std::memcpy(&header, data, sizeof header);
  if (header.magic != kMagic) throw std::runtime_error("not a fat binary");
  const char* at = data + header.header_bytes;
  for (const char* end = at + header.bytes; at < end;) {
    Entry entry;
    std::memcpy(&entry, at, sizeof entry);
    if (entry.kind == kPtx) {
      const char* text = at + entry.header_bytes;
      Ptx& ptx = loaded().texts.emplace_back(std::string(text, strnlen(text, entry.bytes)), "PTX");
      for (const std::string& name : ptx.names()) {
        loaded().by_name[ptx.target()][name] = &ptx;
        loaded().portable_names[ptx.target()].insert(portable_name(name));
      }
    }
    at += entry.header_bytes + entry.bytes;
  }
}

void add_patch(const std::string& text, const std::string& file) {
  Ptx ptx(text, file);
  const auto& known = loaded().portable_names[ptx.target()];
  for (const Kernel* kernel : ptx.module().kernels())
    if (known.count(portable_name(info(*kernel).name)) == 0)
      throw std::runtime_error(file + ": no kernel is called " + info(*kernel).name);
  loaded().patches.push_back(std::move(ptx));
}

// Line counts still refer to them.
void remove_patches() {
  loaded().retired_patches.splice(loaded().retired_patches.end(), loaded().patches);
}

const Kernel* find_kernel(const std::string& name) {
  for (Ptx& patch : loaded().patches)
    if (patch.target() == device().target)
      if (const Kernel* kernel = patch.module().find(name)) return kernel;
  const auto& kernels = loaded().by_name[device().target];
  const auto at = kernels.find(name);
  return at != kernels.end() ? at->second->module().find(name) : nullptr;
}

}  // namespace virtual_gpu
