// Sorting and summing up on the device, by PyTorch's own operators.
#pragma once

#include <array>
#include <optional>

#include "../tensors.h"

namespace adaptau {

struct Sorted {
  Tensor values, order;  // values[n] = x[order[n]], equal ones in the order of x
};

inline Sorted sort_ascending(const Tensor& x) {
  using torch::stable::detail::from;
  using torch::stable::detail::to;
  std::array<StableIValue, 4> stack{from(x), from(std::optional<bool>(true)), from(int64_t{-1}),
                                    from(false)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  return {to<Tensor>(stack[0]), to<Tensor>(stack[1])};
}

// sums[n] = x[0] + .. + x[n], of the type of x.
inline Tensor inclusive_sums(const Tensor& x) {
  using torch::stable::detail::from;
  using torch::stable::detail::to;
  std::array<StableIValue, 3> stack{from(x), from(int64_t{0}),
                                    from(std::optional<ScalarType>(x.scalar_type()))};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::cumsum", "", stack.data(), TORCH_ABI_VERSION));
  return to<Tensor>(stack[0]);
}

}  // namespace adaptau
