// String arguments of operators.
#pragma once

#include <torch/csrc/stable/stableivalue_conversions.h>

#include <string>

namespace adaptau {

// Taken in place of std::string, which PyTorch (2.10 to 2.14 at least) copies once more for every
// call and never frees.
struct Text : std::string {
  using std::string::string;
};

}  // namespace adaptau

template <>
struct torch::stable::detail::ToImpl<adaptau::Text> {
  static adaptau::Text call(StableIValue value, uint64_t /*version*/, bool /*internal*/) {
    const auto handle = torch::stable::detail::to<StringHandle>(value);
    size_t length = 0;
    const char* characters = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(torch_string_length(handle, &length));
    STABLE_TORCH_ERROR_CODE_CHECK(torch_string_c_str(handle, &characters));
    const adaptau::Text text(characters, length);
    STABLE_TORCH_ERROR_CODE_CHECK(torch_delete_string(handle));
    return text;
  }
};
