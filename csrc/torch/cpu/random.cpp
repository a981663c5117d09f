// The draw of negatives and dropout on the CPU.
#include "../random.h"

#include "../../cpu/operators.h"
#include "../../cpu/kernels.h"
#include "../../cpu/scratch.h"

namespace adaptau {
namespace {

struct Cpu : Float32AndFloat64 {
  static void draw(uint64_t seed, uint32_t n_items, const Tensor& out) {
    const int64_t n_rows = out.size(0), n_negatives = out.size(1);
    int64_t* ids = data<int64_t>(out);
    const Kernels<float>& kernels = active_kernels<float>();
    for_each_task(torch_threads(), n_rows, [&](int64_t row, int) {
      const Buffer<int32_t> drawn(n_negatives);
      kernels.draw_row(seed, row, n_negatives, n_items, drawn.get());
      for (int64_t n = 0; n < n_negatives; ++n) ids[row * n_negatives + n] = drawn[n];
    });
  }

  template <class T>
  static void dropout(const Tensor&, const DropoutProblem& problem, T* out) {
    adaptau::dropout<T>(problem, out, torch_threads());
  }
};

}  // namespace
}  // namespace adaptau

STABLE_TORCH_LIBRARY_IMPL(adaptau, CPU, m) {
  using namespace adaptau;
  m.impl("draw_negatives", TORCH_BOX(&draw_negatives<Cpu>));
  m.impl("dropout", TORCH_BOX(&dropout_rows<Cpu>));
}
