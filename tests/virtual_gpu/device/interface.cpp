// What Python sees of the virtual GPU (through ctypes). Texts that are returned live until the next
// call.
#include <cstdio>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>

#include "../runtime/device.h"
#include "../runtime/modules.h"

namespace {

using namespace virtual_gpu;

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    char escaped[8];
    if (static_cast<unsigned char>(c) < 32) {
      std::snprintf(escaped, sizeof escaped, "\\u%04x", c);
      out += escaped;
    } else {
      out += c;
    }
  }
  return out + '"';
}

const char* keep(std::string text) {
  static std::string kept;
  kept = std::move(text);
  return kept.c_str();
}

}  // namespace

extern "C" {

// False if there is no such target.
__attribute__((visibility("default"))) bool virtual_gpu_settings(int checked, uint64_t seed,
                                                                 int rough, const char* target,
                                                                 int shared_limit) {
  settings() = {checked != 0, seed, rough != 0};
  return choose_device(target, shared_limit);
}

// "" or what is wrong with the PTX.
__attribute__((visibility("default"))) const char* virtual_gpu_patch(const char* ptx,
                                                                     const char* file) {
  try {
    add_patch(ptx, file);
    return "";
  } catch (const std::exception& error) {
    return keep(error.what());
  }
}
__attribute__((visibility("default"))) void virtual_gpu_remove_patches() { remove_patches(); }

// A kernel of any PTX; "" or why it was not run to its end.
__attribute__((visibility("default"))) const char* virtual_gpu_launch(
    const char* ptx, const char* kernel, const uint32_t* grid, const uint32_t* block,
    uint32_t dynamic_shared, void** arguments) {
  static std::map<std::string, std::unique_ptr<Module>> modules;  // line counts refer to them
  const std::lock_guard lock(device_mutex());
  try {
    auto& module = modules[ptx];
    if (module == nullptr) module = std::make_unique<Module>(ptx, "PTX");
    const Kernel* found = module->find(kernel);
    if (found == nullptr) return "no such kernel";
    const bool completed = launch(*found, {grid[0], grid[1], grid[2]},
                                  {block[0], block[1], block[2]}, dynamic_shared, arguments);
    return completed ? "" : "stopped";
  } catch (const std::exception& error) {
    return keep(error.what());
  }
}

__attribute__((visibility("default"))) const char* virtual_gpu_findings() {
  std::ostringstream out;
  out << '[';
  for (const Finding& f : findings())
    out << (out.tellp() > 1 ? "," : "") << "{\"problem\":" << quoted(name_of(f.problem))
        << ",\"kernel\":" << quoted(f.kernel) << ",\"file\":" << quoted(f.file)
        << ",\"line\":" << f.source_line << ",\"ptx_line\":" << f.ptx_line
        << ",\"instruction\":" << quoted(f.instruction) << ",\"message\":" << quoted(f.message)
        << ",\"count\":" << f.count << '}';
  out << ']';
  return keep(out.str());
}

__attribute__((visibility("default"))) const char* virtual_gpu_line_counts() {
  std::ostringstream out;
  out << '[';
  for (const LineCount& c : line_counts())
    out << (out.tellp() > 1 ? "," : "") << "{\"kernel\":" << quoted(c.kernel)
        << ",\"file\":" << quoted(c.file) << ",\"line\":" << c.source_line
        << ",\"ptx_line\":" << c.ptx_line << ",\"instruction\":" << quoted(c.instruction)
        << ",\"warps\":" << c.warps << ",\"wavefronts\":" << c.wavefronts
        << ",\"ideal_wavefronts\":" << c.ideal_wavefronts << ",\"sectors\":" << c.sectors
        << ",\"ideal_sectors\":" << c.ideal_sectors << '}';
  out << ']';
  return keep(out.str());
}

__attribute__((visibility("default"))) void virtual_gpu_clear() { clear_report(); }

}  // extern "C"
