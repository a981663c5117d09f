#include "modules.h"

#include <cstring>
#include <map>
#include <stdexcept>
#include <vector>

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

struct Loaded {
  std::string target;
  std::unique_ptr<Module> module;
};
std::vector<Loaded>& modules() {
  static std::vector<Loaded> all;
  return all;
}
std::vector<Loaded>& patches() {
  static std::vector<Loaded> all;
  return all;
}

Loaded load(const std::string& ptx, const std::string& file) {
  const size_t at = ptx.find(".target ");
  if (at == std::string::npos) throw std::runtime_error(file + ": no .target in PTX");
  const size_t end = ptx.find_first_of(" \n,", at + 8);
  return {ptx.substr(at + 8, end - at - 8), std::make_unique<Module>(ptx, file)};
}

const Kernel* find_in(const std::vector<Loaded>& all, const std::string& name) {
  for (const Loaded& l : all)
    if (l.target == target())
      if (const Kernel* k = l.module->find(name)) return k;
  return nullptr;
}

std::map<const void*, HostKernel>& host_kernels() {
  static std::map<const void*, HostKernel> all;
  return all;
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
      modules().push_back(load(std::string(text, strnlen(text, entry.bytes)), "fat binary"));
    }
    at += entry.header_bytes + entry.bytes;
  }
}

void add_patch(const std::string& ptx, const std::string& file) {
  patches().push_back(load(ptx, file));
}
void remove_patches() { patches().clear(); }

std::string& target() {
  static std::string t = "sm_80";
  return t;
}

const Kernel* find_kernel(const std::string& name) {
  const Kernel* patched = find_in(patches(), name);
  return patched != nullptr ? patched : find_in(modules(), name);
}

HostKernel& register_kernel(const void* host, std::string name) {
  return host_kernels()[host] = {std::move(name), 48 << 10};
}
HostKernel* host_kernel(const void* host) {
  const auto found = host_kernels().find(host);
  return found == host_kernels().end() ? nullptr : &found->second;
}

int& shared_memory_limit() {
  static int bytes = 163 << 10;
  return bytes;
}
int& multiprocessors() {
  static int count = 108;
  return count;
}

}  // namespace virtual_gpu
