// Chooses the instruction set, once a process.
#include <cstdlib>
#include <stdexcept>
#include <string>

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
#endif

namespace {

struct Level {
  const char* name;
  bool available;
  const Kernels<float>* f32;
  const Kernels<double>* f64;
};

// Best first.
const Level* levels(int* count) {
  static const Level all[] = {
#if defined(ADAPTAU_X86)
      {"avx512",
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("fma"),
       &avx512::table_f32, &avx512::table_f64},
      {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), &avx2::table_f32,
       &avx2::table_f64},
#endif
      {"baseline", true, &baseline::table_f32, &baseline::table_f64},
  };
  *count = static_cast<int>(sizeof all / sizeof all[0]);
  return all;
}

const Level& choose() {
  int count;
  const Level* all = levels(&count);
  const char* wanted = std::getenv("ADAPTAU_ISA");
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
