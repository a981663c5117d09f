#include <map>
#include <mutex>
#include <tuple>

#include "machine.h"

namespace virtual_gpu {
namespace {

using Place = std::tuple<int, std::string, int>;  // problem, kernel, PTX line
std::map<Place, Finding>& found() {
  static std::map<Place, Finding> all;
  return all;
}
std::vector<const Kernel*>& counted() {
  static std::vector<const Kernel*> all;
  return all;
}

std::string source_file(const Kernel& kernel, const Instruction& i) {
  const auto& files = kernel.source_files;
  return i.source_file < static_cast<int>(files.size()) ? files[i.source_file] : kernel.file;
}

}  // namespace

const char* name_of(Problem problem) {
  switch (problem) {
    case Problem::out_of_bounds: return "out of bounds";
    case Problem::misaligned: return "misaligned";
    case Problem::uninitialised: return "uninitialised";
    case Problem::shared_race: return "race in shared memory";
    case Problem::global_race: return "race in global memory";
    case Problem::copy_in_flight: return "copy in flight";
    case Problem::divergent_barrier: return "divergent barrier";
    case Problem::deadlock: return "deadlock";
    case Problem::assertion: return "assertion";
    case Problem::trap: return "trap";
  }
  return "";
}

void report(const Warp& warp, const Instruction& at, Problem problem, const std::string& message) {
  const Kernel& kernel = *warp.block->kernel;
  const Place place{static_cast<int>(problem), kernel.info.name, at.ptx_line};
  auto [it, added] = found().try_emplace(place);
  Finding& f = it->second;
  if (added) {
    f = {problem, kernel.info.name, source_file(kernel, at), at.text,
         message, at.ptx_line,      at.source_line,          0};
  }
  ++f.count;
}

std::vector<Finding> findings() {
  std::vector<Finding> all;
  for (const auto& [place, f] : found()) all.push_back(f);
  return all;
}

void count_kernel(const Kernel& kernel) {
  if (!kernel.counts.empty()) return;
  kernel.counts.resize(kernel.code.size());
  counted().push_back(&kernel);
}

std::vector<LineCount> line_counts() {
  std::vector<LineCount> all;
  for (const Kernel* kernel : counted())
    for (size_t n = 0; n < kernel->code.size(); ++n) {
      const Counts& c = kernel->counts[n];
      const Instruction& i = kernel->code[n];
      if (c.warps == 0) continue;
      all.push_back({kernel->info.name, i.text, source_file(*kernel, i), i.ptx_line, i.source_line,
                     c.warps, c.wavefronts, c.ideal_wavefronts, c.sectors, c.ideal_sectors});
    }
  return all;
}

void clear_report() {
  found().clear();
  for (const Kernel* kernel : counted()) kernel->counts.clear();
  counted().clear();
}

}  // namespace virtual_gpu
