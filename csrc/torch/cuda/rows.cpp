// Unit rows, dropout, the draw of negatives and what prepares a catalogue, on CUDA devices.
#include <tuple>

#include "../../cuda/rows.h"
#include "../random.h"
#include "device.h"
#include "operators.h"

namespace adaptau {
namespace {

Tensor unit_rows_cuda(Tensor i) {
  const Matrix items = Arguments(i).matrix("i", i);
  Tensor out = empty_like_compute(i, items, {items.rows, items.cols});
  const DeviceScope device(i);
  check_launches("unit_rows", cuda::unit_rows(items, data<float>(out), device.stream()));
  return out;
}

// There is no scan of bytes on these devices: nothing to pack.
std::tuple<Tensor, Tensor, Tensor> pack_items_cuda(Tensor i, OptionalTensor) {
  Arguments(i).matrix("i", i);
  return {torch::stable::new_empty(i, {0, 0, 0}, ScalarType::Byte),
          torch::stable::new_empty(i, {0, 4}, ScalarType::Float),
          torch::stable::new_empty(i, {0}, ScalarType::Float)};
}

struct Cuda : Float32Only {
  static void draw(uint64_t seed, uint32_t n_items, const Tensor& out) {
    const DeviceScope device(out);
    check_launches("draw_negatives", cuda::draw_negatives(seed, n_items, out.size(0), out.size(1),
                                                          data<int64_t>(out), device.stream()));
  }

  static void dropout(const Tensor& x, const DropoutProblem& problem, float* out) {
    const DeviceScope device(x);
    check_launches("dropout", cuda::dropout(problem, out, device.stream()));
  }
};

}  // namespace

void register_rows(Library& m) {
  m.impl("unit_rows", TORCH_BOX(&unit_rows_cuda));
  m.impl("pack_items", TORCH_BOX(&pack_items_cuda));
  m.impl("draw_negatives", TORCH_BOX(&draw_negatives<Cuda>));
  m.impl("dropout", TORCH_BOX(&dropout_rows<Cuda>));
}

}  // namespace adaptau
