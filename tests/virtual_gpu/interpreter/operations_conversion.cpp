// Conversions between types, and between address spaces.
#include <cmath>
#include <limits>

#include "lanes.h"
#include "small_floats.h"

namespace virtual_gpu {
namespace {

enum Rounding : uint8_t { nearest, to_zero, down, up };

template <class F>
F to_integral(F x, Rounding rounding) {
  switch (rounding) {
    case to_zero: return std::trunc(x);
    case down: return std::floor(x);
    case up: return std::ceil(x);
    default: return std::nearbyint(x);
  }
}

// Out of range is clamped. NaN is zero, or, where 64 bits come or go, the top bit alone.
template <class I, class F>
I clamped(F x) {
  if (std::isnan(x))
    return sizeof(F) == 8 || sizeof(I) == 8 ? static_cast<I>(uint64_t{1} << (8 * sizeof(I) - 1))
                                            : 0;
  const F low = static_cast<F>(std::numeric_limits<I>::min());
  const F above = std::ldexp(F(1), std::numeric_limits<I>::digits);
  if (x < low) return std::numeric_limits<I>::min();
  return x >= above ? std::numeric_limits<I>::max() : static_cast<I>(x);
}

template <class D, class S>
D converted(S x, Rounding rounding) {
  if constexpr (std::is_integral_v<D> && std::is_floating_point_v<S>) {
    return clamped<D>(to_integral(x, rounding));
  } else {
    return static_cast<D>(x);
  }
}

// Integers narrower than their register are extended as the type they are converted to.
template <class D>
void store(Warp& w, const Instruction& i, int lane, D value) {
  if (i.results[0].wide) {
    result_lanes<uint64_t>(w, i.results[0])[lane] =
        std::is_integral_v<D> ? static_cast<uint64_t>(static_cast<int64_t>(value))
                              : std::bit_cast<uint64_t>(static_cast<double>(value));
  } else if constexpr (std::is_integral_v<D>) {
    result_lanes<uint32_t>(w, i.results[0])[lane] =
        static_cast<uint32_t>(static_cast<int64_t>(value));
  } else {
    result_lanes<float>(w, i.results[0])[lane] = to_stored(static_cast<float>(value));
  }
}

template <class S>
S load(const Warp& w, const Operand& o, int lane) {
  if constexpr (sizeof(S) == 8) {
    return from_stored<S>(lanes<S>(w, o)[lane]);
  } else {
    const uint32_t bits =
        o.wide ? static_cast<uint32_t>(lanes<uint64_t>(w, o)[lane]) : lanes<uint32_t>(w, o)[lane];
    return from_stored<S>(bits);
  }
}

template <class D, class S>
void convert(Warp& w, const Instruction& i, Mask mask) {
  for (int l = 0; l < kLanes; ++l)
    if (mask >> l & 1)
      store<D>(w, i, l,
               converted<D>(load<S>(w, i.sources[0], l), static_cast<Rounding>(i.variant)));
}

template <class F>
void round_to_integral(Warp& w, const Instruction& i, Mask mask) {
  const auto* a = lanes<F>(w, i.sources[0]);
  for_lanes<F>(w, i.results[0], mask, [&](int l) {
    return to_integral(from_stored<F>(a[l]), static_cast<Rounding>(i.variant));
  });
}

template <uint32_t (*kNarrow)(float)>
void narrow(Warp& w, const Instruction& i, Mask mask) {
  const auto* a = lanes<float>(w, i.sources[0]);
  for_lanes<uint32_t>(w, i.results[0], mask,
                      [&](int l) { return kNarrow(from_stored<float>(a[l])); });
}
template <uint32_t (*kNarrow)(float)>
void narrow_two(Warp& w, const Instruction& i, Mask mask) {
  const auto *high = lanes<float>(w, i.sources[0]), *low = lanes<float>(w, i.sources[1]);
  for_lanes<uint32_t>(w, i.results[0], mask, [&](int l) {
    return kNarrow(from_stored<float>(high[l])) << 16 | kNarrow(from_stored<float>(low[l]));
  });
}
template <float (*kWiden)(uint32_t)>
void widen(Warp& w, const Instruction& i, Mask mask) {
  const auto* a = lanes<uint32_t>(w, i.sources[0]);
  for_lanes<float>(w, i.results[0], mask, [&](int l) { return kWiden(a[l] & 0xffff); });
}

template <class D>
Handler from_type(const std::string& source) {
  if (source == "s8") return convert<D, int8_t>;
  if (source == "u8") return convert<D, uint8_t>;
  if (source == "s16") return convert<D, int16_t>;
  if (source == "u16") return convert<D, uint16_t>;
  if (source == "s32") return convert<D, int32_t>;
  if (source == "u32") return convert<D, uint32_t>;
  if (source == "s64") return convert<D, int64_t>;
  if (source == "u64") return convert<D, uint64_t>;
  if (source == "f32") return convert<D, float>;
  if (source == "f64") return convert<D, double>;
  return nullptr;
}

Handler conversion(const std::string& result, const std::string& source) {
  if (result == "s8") return from_type<int8_t>(source);
  if (result == "u8") return from_type<uint8_t>(source);
  if (result == "s16") return from_type<int16_t>(source);
  if (result == "u16") return from_type<uint16_t>(source);
  if (result == "s32") return from_type<int32_t>(source);
  if (result == "u32") return from_type<uint32_t>(source);
  if (result == "s64") return from_type<int64_t>(source);
  if (result == "u64") return from_type<uint64_t>(source);
  if (result == "f32") return from_type<float>(source);
  if (result == "f64") return from_type<double>(source);
  return nullptr;
}

bool decode_cvt(const Parts& parts, Instruction& i) {
  std::string rounding = parts.size() == 4 ? parts[1] : "";
  if (parts.size() < 3 || parts.size() > 4) return false;
  const std::string &result = parts[parts.size() - 2], &source = parts.back();
  auto is = [&](const char* r, const char* d, const char* s) {
    return rounding == r && result == d && source == s;
  };
  if (is("rn", "bf16x2", "f32")) return i.run = narrow_two<to_bf16>, true;
  if (is("rn", "f16x2", "f32")) return i.run = narrow_two<to_f16>, true;
  if (is("rn", "bf16", "f32")) return i.run = narrow<to_bf16>, true;
  if (is("rn", "f16", "f32")) return i.run = narrow<to_f16>, true;
  if (is("", "f32", "bf16")) return i.run = widen<from_bf16>, true;
  if (is("", "f32", "f16")) return i.run = widen<from_f16>, true;
  const bool from_float = source[0] == 'f', to_float = result[0] == 'f';
  const bool integral = rounding.size() == 3 && rounding[2] == 'i';
  if (rounding == "rzi" || rounding == "rz") {
    i.variant = to_zero;
  } else if (rounding == "rmi") {
    i.variant = down;
  } else if (rounding == "rpi") {
    i.variant = up;
  } else if (rounding == "rni" || rounding == "rn" || rounding.empty()) {
    i.variant = nearest;
  } else {
    return false;
  }
  // Directed rounding of a result that is not an integer is not modelled.
  if (rounding == "rz") return false;
  if (from_float && !to_float && !integral) return false;
  if (from_float && to_float && integral) {
    if (result != source) return false;
    i.run = result == "f32" ? round_to_integral<float> : round_to_integral<double>;
    return result == "f32" || result == "f64";
  }
  if (!from_float && integral) return false;
  i.run = conversion(result, source);
  return i.run != nullptr;
}

template <class F>
bool convert_address(Instruction& i, F) {
  i.run = [](Warp& w, const Instruction& i, Mask mask) {
    const auto* a = lanes<uint64_t>(w, i.sources[0]);
    for_lanes<uint64_t>(w, i.results[0], mask, [&](int l) { return F{}(a[l]); });
  };
  return true;
}

}  // namespace

bool decode_conversion(const Parts& parts, Instruction& i) {
  if (parts[0] == "cvt") return decode_cvt(parts, i);
  if (parts[0] != "cvta" || parts.back() != "u64") return false;
  const bool to = parts[1] == "to";
  const std::string& space = parts[to ? 2 : 1];
  if (parts.size() != (to ? 4u : 3u)) return false;
  if (space == "global" || space == "const" || space == "param")
    return convert_address(i, [](uint64_t a) { return a; });
  if (space == "shared")
    return to ? convert_address(i, [](uint64_t a) { return a - kSharedWindow; })
              : convert_address(i, [](uint64_t a) { return a + kSharedWindow; });
  if (space == "local")
    return to ? convert_address(i, [](uint64_t a) { return a - kLocalWindow; })
              : convert_address(i, [](uint64_t a) { return a + kLocalWindow; });
  return false;
}

}  // namespace virtual_gpu
