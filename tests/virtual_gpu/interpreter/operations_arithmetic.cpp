// Sums, products, quotients and the like of integers and floating-point numbers.
#include <cmath>

#include "elementwise.h"

namespace virtual_gpu {
namespace {

// Products of the full width, of 32-bit factors.
template <class T, class Wide>
void multiply_wide(Warp& w, const Instruction& i, Mask mask) {
  const auto *a = lanes<T>(w, i.sources[0]), *b = lanes<T>(w, i.sources[1]);
  for_lanes<Wide>(w, i.results[0], mask, [&](int l) {
    return Wide(Wide{from_stored<T>(a[l])} * Wide{from_stored<T>(b[l])});
  });
}
template <class T, class Wide>
void multiply_add_wide(Warp& w, const Instruction& i, Mask mask) {
  const auto *a = lanes<T>(w, i.sources[0]), *b = lanes<T>(w, i.sources[1]);
  const auto* c = lanes<Wide>(w, i.sources[2]);
  for_lanes<Wide>(w, i.results[0], mask, [&](int l) {
    return Wide(Wide{from_stored<T>(a[l])} * Wide{from_stored<T>(b[l])} + from_stored<Wide>(c[l]));
  });
}

// Integers wrap around; in C++ only unsigned ones may.
template <class T>
using Wrapping = typename std::conditional_t<std::is_integral_v<T>, std::make_unsigned<T>,
                                             std::type_identity<T>>::type;

struct Add {
  template <class T>
  T operator()(T a, T b) const {
    return T(Wrapping<T>(a) + Wrapping<T>(b));
  }
};
struct Subtract {
  template <class T>
  T operator()(T a, T b) const {
    return T(Wrapping<T>(a) - Wrapping<T>(b));
  }
};
struct Multiply {
  template <class T>
  T operator()(T a, T b) const {
    return T(Wrapping<T>(a) * Wrapping<T>(b));
  }
};
struct MultiplyAdd {
  template <class T>
  T operator()(T a, T b, T c) const {
    return T(Wrapping<T>(a) * Wrapping<T>(b) + Wrapping<T>(c));
  }
};
struct FusedMultiplyAdd {
  template <class T>
  T operator()(T a, T b, T c) const {
    return std::fma(a, b, c);
  }
};
struct MultiplyHigh {
  int32_t operator()(int32_t a, int32_t b) const { return int32_t(int64_t{a} * b >> 32); }
  uint32_t operator()(uint32_t a, uint32_t b) const { return uint32_t(uint64_t{a} * b >> 32); }
  int64_t operator()(int64_t a, int64_t b) const {
    return static_cast<int64_t>(static_cast<__int128>(a) * b >> 64);
  }
  uint64_t operator()(uint64_t a, uint64_t b) const {
    return static_cast<uint64_t>(static_cast<unsigned __int128>(a) * b >> 64);
  }
};
// Division by zero gives all ones, as the hardware's sequence does; it is no use to anybody.
struct Divide {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      if (b == 0) return T(~T{0});
      if (std::is_signed_v<T> && b == T(-1)) return T(Wrapping<T>(0) - Wrapping<T>(a));
    }
    return a / b;
  }
};
struct Remainder {
  template <class T>
  T operator()(T a, T b) const {
    if (b == 0) return a;
    if (std::is_signed_v<T> && b == T(-1)) return 0;
    return a % b;
  }
};
// Of a number and NaN, the number; -0 is less than +0. Without branches, and so that it vectorises.
template <class T>
bool precedes(T a, T b) {
  return (a < b) | ((a == b) & std::signbit(a)) | (b != b);
}
struct Minimum {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_floating_point_v<T>) return precedes(a, b) ? a : b;
    return b < a ? b : a;
  }
};
struct Maximum {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_floating_point_v<T>)
      return (precedes(a, b) & (b == b)) | (a != a) ? b : a;
    return a < b ? b : a;
  }
};
struct Absolute {
  template <class T>
  T operator()(T a) const {
    if constexpr (std::is_floating_point_v<T>) return std::fabs(a);
    return a < 0 ? T(Wrapping<T>(0) - Wrapping<T>(a)) : a;
  }
};
struct Negate {
  template <class T>
  T operator()(T a) const {
    if constexpr (std::is_floating_point_v<T>) return -a;
    return T(Wrapping<T>(0) - Wrapping<T>(a));
  }
};
struct SquareRoot {
  template <class T>
  T operator()(T a) const {
    return std::sqrt(a);
  }
};
struct Reciprocal {
  template <class T>
  T operator()(T a) const {
    return T(1) / a;
  }
};

template <class T>
void add_integer(Table& t, const std::string& type) {
  t["add." + type] = binary<T, Add>;
  t["sub." + type] = binary<T, Subtract>;
  t["mul.lo." + type] = binary<T, Multiply>;
  t["mad.lo." + type] = ternary<T, MultiplyAdd>;
  t["div." + type] = binary<T, Divide>;
  t["rem." + type] = binary<T, Remainder>;
  t["min." + type] = binary<T, Minimum>;
  t["max." + type] = binary<T, Maximum>;
  if constexpr (sizeof(T) >= 4) t["mul.hi." + type] = binary<T, MultiplyHigh>;
  if constexpr (std::is_signed_v<T>) {
    t["abs." + type] = unary<T, Absolute>;
    t["neg." + type] = unary<T, Negate>;
  }
}
template <class T>
void add_floating(Table& t, const std::string& type) {
  for (const char* rounding : {".", ".rn."}) {
    t["add" + (rounding + type)] = binary<T, Add>;
    t["sub" + (rounding + type)] = binary<T, Subtract>;
    t["mul" + (rounding + type)] = binary<T, Multiply>;
  }
  t["fma.rn." + type] = ternary<T, FusedMultiplyAdd>;
  t["div.rn." + type] = binary<T, Divide>;
  t["rcp.rn." + type] = unary<T, Reciprocal>;
  t["sqrt.rn." + type] = unary<T, SquareRoot>;
  t["min." + type] = binary<T, Minimum>;
  t["max." + type] = binary<T, Maximum>;
  t["abs." + type] = unary<T, Absolute>;
  t["neg." + type] = unary<T, Negate>;
}

}  // namespace

void add_arithmetic(Table& t) {
  add_integer<int16_t>(t, "s16");
  add_integer<uint16_t>(t, "u16");
  add_integer<int32_t>(t, "s32");
  add_integer<uint32_t>(t, "u32");
  add_integer<int64_t>(t, "s64");
  add_integer<uint64_t>(t, "u64");
  add_floating<float>(t, "f32");
  add_floating<double>(t, "f64");
  t["mul.wide.s32"] = multiply_wide<int32_t, int64_t>;
  t["mul.wide.u32"] = multiply_wide<uint32_t, uint64_t>;
  t["mul.wide.s16"] = multiply_wide<int16_t, int32_t>;
  t["mul.wide.u16"] = multiply_wide<uint16_t, uint32_t>;
  t["mad.wide.s32"] = multiply_add_wide<int32_t, int64_t>;
  t["mad.wide.u32"] = multiply_add_wide<uint32_t, uint64_t>;
}

}  // namespace virtual_gpu
