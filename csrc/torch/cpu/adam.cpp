// Adam's rows on the CPU.
#include "../adam.h"

#include "../../cpu/operators.h"

namespace adaptau {
namespace {

struct Cpu : Float32AndFloat64 {
  template <class T>
  static void adam(const AdamProblem<T>& problem) {
    adaptau::adam_rows<T>(problem, torch_threads());
  }
};

}  // namespace
}  // namespace adaptau

STABLE_TORCH_LIBRARY_IMPL(adaptau, CPU, m) {
  using namespace adaptau;
  m.impl("adam_rows_", TORCH_BOX(&adam_rows_<Cpu>));
}
