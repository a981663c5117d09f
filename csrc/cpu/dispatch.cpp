// Chooses the instruction set, once a process.
#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels.h"

namespace adaptau {

#define ADAPTAU_DECLARE(isa)              \
  namespace isa {                         \
  extern const Kernels<float> table_f32;  \
  extern const Kernels<double> table_f64; \
  }
ADAPTAU_DECLARE(baseline)
#if defined(ADAPTAU_X86)
ADAPTAU_DECLARE(avx2)
ADAPTAU_DECLARE(avx512)
ADAPTAU_DECLARE(avx512vnni)
ADAPTAU_DECLARE(avx512bf16)
ADAPTAU_DECLARE(avx512amx)
#endif

namespace {

struct Level {
  const char* name;
  bool available;
  const Kernels<float>* f32;
  const Kernels<double>* f64;
};

#if defined(ADAPTAU_X86)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("fma");
}
bool has_avx512bf16() {
  return has_avx512() && __builtin_cpu_supports("avx512vnni") &&
         __builtin_cpu_supports("avx512bf16");
}
// Linux lends the tile registers on request only.
bool has_amx() {
#if defined(__linux__)
  constexpr long request_permission = 0x1023, tile_data = 18;
  return has_avx512bf16() && __builtin_cpu_supports("amx-tile") &&
         __builtin_cpu_supports("amx-int8") && __builtin_cpu_supports("amx-bf16") &&
         syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}
#endif

// Best first.
const Level* levels(int* count) {
#define ADAPTAU_LEVEL(isa, available)                 \
  {                                                   \
    #isa, available, &isa::table_f32, &isa::table_f64 \
  }
  static const Level all[] = {
#if defined(ADAPTAU_X86)
      ADAPTAU_LEVEL(avx512amx, has_amx()),
      ADAPTAU_LEVEL(avx512bf16, has_avx512bf16()),
      ADAPTAU_LEVEL(avx512vnni, has_avx512() && __builtin_cpu_supports("avx512vnni")),
      ADAPTAU_LEVEL(avx512, has_avx512()),
      ADAPTAU_LEVEL(avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")),
#endif
      ADAPTAU_LEVEL(baseline, true),
  };
  *count = static_cast<int>(sizeof all / sizeof all[0]);
  return all;
}

const Level& choose() {
  int count;
  const Level* all = levels(&count);
  const char* wanted =
      std::getenv("ADAPTAU_ISA");  // NOLINT(concurrency-mt-unsafe): once, by `active`
  std::string usable;
  for (int i = 0; i < count; ++i) {
    if (!all[i].available) continue;
    if (wanted == nullptr || *wanted == '\0' || std::string(wanted) == all[i].name) return all[i];
    usable += std::string(usable.empty() ? "" : ", ") + all[i].name;
  }
  throw std::runtime_error("ADAPTAU_ISA must be one of the levels this machine has (" + usable +
                           "), got \"" + wanted + "\"; unset it to use the best one");
}

const Level& active() {
  static const Level& level = choose();
  return level;
}

}  // namespace

template <>
const Kernels<float>& active_kernels() {
  return *active().f32;
}
template <>
const Kernels<double>& active_kernels() {
  return *active().f64;
}

}  // namespace adaptau
