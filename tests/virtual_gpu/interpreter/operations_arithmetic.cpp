// Arithmetic, logic, comparisons and moves.
#include <cmath>
#include <limits>
#include <unordered_map>

#include "lanes.h"

namespace virtual_gpu {
namespace {

template <class T, class Op>
void unary(Warp& w, const Instruction& i, Mask mask) {
  const auto* a = lanes<T>(w, i.sources[0]);
  for_lanes<T>(w, i.results[0], mask, [&](int l) { return T(Op{}(from_stored<T>(a[l]))); });
}

template <class T, class Op>
void binary(Warp& w, const Instruction& i, Mask mask) {
  const auto *a = lanes<T>(w, i.sources[0]), *b = lanes<T>(w, i.sources[1]);
  for_lanes<T>(w, i.results[0], mask,
               [&](int l) { return T(Op{}(from_stored<T>(a[l]), from_stored<T>(b[l]))); });
}

template <class T, class Op>
void ternary(Warp& w, const Instruction& i, Mask mask) {
  const auto *a = lanes<T>(w, i.sources[0]), *b = lanes<T>(w, i.sources[1]),
             *c = lanes<T>(w, i.sources[2]);
  for_lanes<T>(w, i.results[0], mask, [&](int l) {
    return T(Op{}(from_stored<T>(a[l]), from_stored<T>(b[l]), from_stored<T>(c[l])));
  });
}

// The shift count is 32 bits wide whatever is shifted.
template <class T, class Op>
void shift(Warp& w, const Instruction& i, Mask mask) {
  const auto* a = lanes<T>(w, i.sources[0]);
  const auto* n = lanes<uint32_t>(w, i.sources[1]);
  for_lanes<T>(w, i.results[0], mask, [&](int l) { return T(Op{}(from_stored<T>(a[l]), n[l])); });
}

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
// Of a number and NaN, the number.
struct Minimum {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_floating_point_v<T>) return std::fmin(a, b);
    return b < a ? b : a;
  }
};
struct Maximum {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_floating_point_v<T>) return std::fmax(a, b);
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
struct Not {
  template <class T>
  T operator()(T a) const {
    return T(~a);
  }
};
struct And {
  template <class T>
  T operator()(T a, T b) const {
    return T(a & b);
  }
};
struct Or {
  template <class T>
  T operator()(T a, T b) const {
    return T(a | b);
  }
};
struct Xor {
  template <class T>
  T operator()(T a, T b) const {
    return T(a ^ b);
  }
};
struct ShiftLeft {
  template <class T>
  T operator()(T a, uint32_t n) const {
    return n >= sizeof(T) * 8 ? T{0} : T(a << n);
  }
};
struct ShiftRight {
  template <class T>
  T operator()(T a, uint32_t n) const {
    const uint32_t most = sizeof(T) * 8 - 1;
    return n <= most ? T(a >> n) : std::is_signed_v<T> ? T(a >> most) : T{0};
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
struct CountOnes {
  uint32_t operator()(uint32_t a) const { return static_cast<uint32_t>(std::popcount(a)); }
};
struct CountLeadingZeros {
  uint32_t operator()(uint32_t a) const { return static_cast<uint32_t>(std::countl_zero(a)); }
};
struct ReverseBits {
  uint32_t operator()(uint32_t a) const {
    uint32_t r = 0;
    for (int n = 0; n < 32; ++n) r |= (a >> n & 1) << (31 - n);
    return r;
  }
};
// Distance of the highest one from bit 31.
struct FindShift {
  uint32_t operator()(uint32_t a) const {
    return a == 0 ? ~0u : static_cast<uint32_t>(std::countl_zero(a));
  }
};

// The approximate functions: the true value, then, by turns of a hash of the argument, up to the
// documented error away from it, so that nobody may count on less.
template <int kLog2Error>
float roughly(double value, float argument) {
  if (!settings().rough_functions || !std::isfinite(value)) return static_cast<float>(value);
  const uint32_t hash = std::bit_cast<uint32_t>(argument) * 0x9e3779b1u >> 16;
  const int step = static_cast<int>(hash % 3) - 1;
  return static_cast<float>(value * (1 + step * std::exp2(static_cast<double>(kLog2Error))));
}
float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

struct Exp2Flushing {
  float operator()(float a) const {
    return flushed(roughly<-23>(std::exp2(static_cast<double>(flushed(a))), a));
  }
};
struct Log2 {
  float operator()(float a) const { return roughly<-23>(std::log2(static_cast<double>(a)), a); }
};
struct ReciprocalSquareRoot {
  float operator()(float a) const { return roughly<-23>(1 / std::sqrt(static_cast<double>(a)), a); }
};
// The start of a division in double: the upper 32 bits of the result, subnormals flushed.
struct ReciprocalStart {
  double operator()(double a) const {
    const double flushed_a = std::fabs(a) < 0x1p-1022 ? std::copysign(0.0, a) : a;
    return std::bit_cast<double>(std::bit_cast<uint64_t>(1 / flushed_a) & 0xffffffff00000000ull);
  }
};

template <class Op>
void predicate_logic(Warp& w, const Instruction& i, Mask mask) {
  set_predicate(w, i.results[0], Op{}(predicate(w, i.sources[0]), predicate(w, i.sources[1])),
                mask);
}
void predicate_not(Warp& w, const Instruction& i, Mask mask) {
  set_predicate(w, i.results[0], ~predicate(w, i.sources[0]), mask);
}
void predicate_move(Warp& w, const Instruction& i, Mask mask) {
  set_predicate(w, i.results[0], predicate(w, i.sources[0]), mask);
}

enum Comparison : uint8_t { eq, ne, lt, le, gt, ge, equ, neu, ltu, leu, gtu, geu, num, nan };

template <class T>
bool compare(Comparison c, T a, T b) {
  bool unordered = false;
  if constexpr (std::is_floating_point_v<T>) unordered = std::isnan(a) || std::isnan(b);
  switch (c) {
    case eq: return a == b;
    case ne: return !unordered && a != b;
    case lt: return a < b;
    case le: return a <= b;
    case gt: return a > b;
    case ge: return a >= b;
    case equ: return unordered || a == b;
    case neu: return unordered || a != b;
    case ltu: return unordered || a < b;
    case leu: return unordered || a <= b;
    case gtu: return unordered || a > b;
    case geu: return unordered || a >= b;
    case num: return !unordered;
    case nan: return unordered;
  }
  return false;
}

template <class T, Comparison kComparison>
void set_if(Warp& w, const Instruction& i, Mask mask) {
  const auto *a = lanes<T>(w, i.sources[0]), *b = lanes<T>(w, i.sources[1]);
  Mask bits = 0;
  for (int l = 0; l < kLanes; ++l)
    bits |= Mask{compare(kComparison, from_stored<T>(a[l]), from_stored<T>(b[l]))} << l;
  set_predicate(w, i.results[0], bits, mask);
}

template <class T>
Handler comparison(Comparison c) {
  switch (c) {
    case eq: return set_if<T, eq>;
    case ne: return set_if<T, ne>;
    case lt: return set_if<T, lt>;
    case le: return set_if<T, le>;
    case gt: return set_if<T, gt>;
    case ge: return set_if<T, ge>;
    case equ: return set_if<T, equ>;
    case neu: return set_if<T, neu>;
    case ltu: return set_if<T, ltu>;
    case leu: return set_if<T, leu>;
    case gtu: return set_if<T, gtu>;
    case geu: return set_if<T, geu>;
    case num: return set_if<T, num>;
    case nan: return set_if<T, nan>;
  }
  return nullptr;
}

template <class T>
void select(Warp& w, const Instruction& i, Mask mask) {
  const auto *a = lanes<T>(w, i.sources[0]), *b = lanes<T>(w, i.sources[1]);
  const Mask which = predicate(w, i.sources[2]);
  for_lanes<T>(w, i.results[0], mask,
               [&](int l) { return from_stored<T>(which >> l & 1 ? a[l] : b[l]); });
}

template <class T>
void move(Warp& w, const Instruction& i, Mask mask) {
  const auto* a = lanes<T>(w, i.sources[0]);
  for_lanes<T>(w, i.results[0], mask, [&](int l) { return from_stored<T>(a[l]); });
}

void insert_bits(Warp& w, const Instruction& i, Mask mask) {
  const auto *a = lanes<uint32_t>(w, i.sources[0]), *b = lanes<uint32_t>(w, i.sources[1]),
             *at = lanes<uint32_t>(w, i.sources[2]), *n = lanes<uint32_t>(w, i.sources[3]);
  for_lanes<uint32_t>(w, i.results[0], mask, [&](int l) {
    const uint32_t first = at[l] & 255, count = n[l] & 255;
    if (first > 31 || count == 0) return b[l];
    const uint32_t ones = count >= 32 ? ~0u : (1u << count) - 1;
    return (b[l] & ~(ones << first)) | (a[l] & ones) << first;
  });
}

template <class T>
void extract_bits(Warp& w, const Instruction& i, Mask mask) {
  const auto *a = lanes<T>(w, i.sources[0]), *at = lanes<uint32_t>(w, i.sources[1]),
             *n = lanes<uint32_t>(w, i.sources[2]);
  for_lanes<T>(w, i.results[0], mask, [&](int l) {
    const uint32_t first = at[l] & 255, count = n[l] & 255;
    if (count == 0) return T{0};
    const int64_t value = from_stored<T>(a[l]);
    const int64_t moved = first >= 32 ? (value < 0 ? -1 : 0) : value >> first;
    if (count >= 32) return T(moved);
    const int64_t field = moved & ((int64_t{1} << count) - 1);
    return std::is_signed_v<T> && (field >> (count - 1) & 1) ? T(field - (int64_t{1} << count))
                                                             : T(field);
  });
}

void permute_bytes(Warp& w, const Instruction& i, Mask mask) {
  const auto *a = lanes<uint32_t>(w, i.sources[0]), *b = lanes<uint32_t>(w, i.sources[1]),
             *which = lanes<uint32_t>(w, i.sources[2]);
  for_lanes<uint32_t>(w, i.results[0], mask, [&](int l) {
    const uint64_t bytes = uint64_t{b[l]} << 32 | a[l];
    uint32_t result = 0;
    for (int n = 0; n < 4; ++n) {
      const uint32_t selector = which[l] >> (4 * n) & 15;
      uint32_t byte = bytes >> (8 * (selector & 7)) & 255;
      if (selector & 8) byte = byte & 128 ? 255 : 0;
      result |= byte << (8 * n);
    }
    return result;
  });
}

void logic_of_three(Warp& w, const Instruction& i, Mask mask) {
  const auto *a = lanes<uint32_t>(w, i.sources[0]), *b = lanes<uint32_t>(w, i.sources[1]),
             *c = lanes<uint32_t>(w, i.sources[2]), *table = lanes<uint32_t>(w, i.sources[3]);
  for_lanes<uint32_t>(w, i.results[0], mask, [&](int l) {
    uint32_t result = 0;
    for (int n = 0; n < 8; ++n)
      if (table[0] >> n & 1)
        result |= (n & 4 ? a[l] : ~a[l]) & (n & 2 ? b[l] : ~b[l]) & (n & 1 ? c[l] : ~c[l]);
    return result;
  });
}

template <bool kLeft, bool kClamps>
void funnel_shift(Warp& w, const Instruction& i, Mask mask) {
  const auto *low = lanes<uint32_t>(w, i.sources[0]), *high = lanes<uint32_t>(w, i.sources[1]),
             *by = lanes<uint32_t>(w, i.sources[2]);
  for_lanes<uint32_t>(w, i.results[0], mask, [&](int l) {
    const uint64_t both = uint64_t{high[l]} << 32 | low[l];
    const uint32_t n = kClamps ? std::min(by[l], 32u) : by[l] & 31;
    return kLeft ? uint32_t(both << n >> 32) : uint32_t(both >> n);
  });
}

using Table = std::unordered_map<std::string, Handler>;

template <class T, class... Ops>
void add_integer(Table& t, const std::string& type) {
  t["add." + type] = binary<T, Add>;
  t["sub." + type] = binary<T, Subtract>;
  t["mul.lo." + type] = binary<T, Multiply>;
  t["mad.lo." + type] = ternary<T, MultiplyAdd>;
  t["div." + type] = binary<T, Divide>;
  t["rem." + type] = binary<T, Remainder>;
  t["min." + type] = binary<T, Minimum>;
  t["max." + type] = binary<T, Maximum>;
  t["shr." + type] = shift<T, ShiftRight>;
  if constexpr (sizeof(T) >= 4) t["mul.hi." + type] = binary<T, MultiplyHigh>;
  if constexpr (std::is_signed_v<T>) {
    t["abs." + type] = unary<T, Absolute>;
    t["neg." + type] = unary<T, Negate>;
  }
}
template <class T>
void add_bits(Table& t, const std::string& type) {
  t["and." + type] = binary<T, And>;
  t["or." + type] = binary<T, Or>;
  t["xor." + type] = binary<T, Xor>;
  t["not." + type] = unary<T, Not>;
  t["shl." + type] = shift<T, ShiftLeft>;
  t["shr." + type] = shift<T, ShiftRight>;
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
template <class T>
void add_any(Table& t, const std::string& type) {
  t["mov." + type] = move<T>;
  t["selp." + type] = select<T>;
}
template <class T>
void add_comparisons(Table& t, const std::string& type) {
  const std::pair<const char*, Comparison> names[] = {
      {"eq", eq},   {"ne", ne},   {"lt", lt},   {"le", le},   {"gt", gt},   {"ge", ge},
      {"equ", equ}, {"neu", neu}, {"ltu", ltu}, {"leu", leu}, {"gtu", gtu}, {"geu", geu},
      {"num", num}, {"nan", nan}, {"lo", lt},   {"ls", le},   {"hi", gt},   {"hs", ge}};
  for (const auto& [name, c] : names)
    t["setp." + std::string(name) + "." + type] = comparison<T>(c);
}

Table make_table() {
  Table t;
  add_integer<int16_t>(t, "s16");
  add_integer<uint16_t>(t, "u16");
  add_integer<int32_t>(t, "s32");
  add_integer<uint32_t>(t, "u32");
  add_integer<int64_t>(t, "s64");
  add_integer<uint64_t>(t, "u64");
  add_bits<uint16_t>(t, "b16");
  add_bits<uint32_t>(t, "b32");
  add_bits<uint64_t>(t, "b64");
  add_floating<float>(t, "f32");
  add_floating<double>(t, "f64");
  for (const char* type : {"b16", "u16", "s16"}) add_any<uint16_t>(t, type);
  for (const char* type : {"b32", "u32", "s32"}) add_any<uint32_t>(t, type);
  for (const char* type : {"b64", "u64", "s64"}) add_any<uint64_t>(t, type);
  add_any<float>(t, "f32");
  add_any<double>(t, "f64");
  add_comparisons<int16_t>(t, "s16");
  for (const char* type : {"u16", "b16"}) add_comparisons<uint16_t>(t, type);
  add_comparisons<int32_t>(t, "s32");
  for (const char* type : {"u32", "b32"}) add_comparisons<uint32_t>(t, type);
  add_comparisons<int64_t>(t, "s64");
  for (const char* type : {"u64", "b64"}) add_comparisons<uint64_t>(t, type);
  add_comparisons<float>(t, "f32");
  add_comparisons<double>(t, "f64");
  t["mul.wide.s32"] = multiply_wide<int32_t, int64_t>;
  t["mul.wide.u32"] = multiply_wide<uint32_t, uint64_t>;
  t["mul.wide.s16"] = multiply_wide<int16_t, int32_t>;
  t["mul.wide.u16"] = multiply_wide<uint16_t, uint32_t>;
  t["mad.wide.s32"] = multiply_add_wide<int32_t, int64_t>;
  t["mad.wide.u32"] = multiply_add_wide<uint32_t, uint64_t>;
  t["ex2.approx.ftz.f32"] = unary<float, Exp2Flushing>;
  t["lg2.approx.f32"] = unary<float, Log2>;
  t["rsqrt.approx.f32"] = unary<float, ReciprocalSquareRoot>;
  t["rcp.approx.ftz.f64"] = unary<double, ReciprocalStart>;
  t["popc.b32"] = unary<uint32_t, CountOnes>;
  t["clz.b32"] = unary<uint32_t, CountLeadingZeros>;
  t["brev.b32"] = unary<uint32_t, ReverseBits>;
  t["bfind.shiftamt.u32"] = unary<uint32_t, FindShift>;
  t["bfi.b32"] = insert_bits;
  t["bfe.u32"] = extract_bits<uint32_t>;
  t["bfe.s32"] = extract_bits<int32_t>;
  t["prmt.b32"] = permute_bytes;
  t["lop3.b32"] = logic_of_three;
  t["shf.l.wrap.b32"] = funnel_shift<true, false>;
  t["shf.r.wrap.b32"] = funnel_shift<false, false>;
  t["shf.l.clamp.b32"] = funnel_shift<true, true>;
  t["shf.r.clamp.b32"] = funnel_shift<false, true>;
  t["and.pred"] = predicate_logic<And>;
  t["or.pred"] = predicate_logic<Or>;
  t["xor.pred"] = predicate_logic<Xor>;
  t["not.pred"] = predicate_not;
  t["mov.pred"] = predicate_move;
  return t;
}

}  // namespace

bool decode_arithmetic(const Parts& parts, Instruction& instruction) {
  static const Table table = make_table();
  std::string name;
  for (const auto& part : parts) name += (name.empty() ? "" : ".") + part;
  const auto found = table.find(name);
  if (found == table.end()) return false;
  instruction.run = found->second;
  return true;
}

}  // namespace virtual_gpu
