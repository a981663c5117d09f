// Logic, shifts, and fields of bits.
#include <algorithm>
#include <functional>

#include "elementwise.h"

namespace virtual_gpu {
namespace {

// The shift count is 32 bits wide whatever is shifted.
template <class T, class Op>
void shift(Warp& w, const Instruction& i, Mask mask) {
  const auto* a = lanes<T>(w, i.sources[0]);
  const auto* n = lanes<uint32_t>(w, i.sources[1]);
  for_lanes<T>(w, i.results[0], mask, [&](int l) { return T(Op{}(from_stored<T>(a[l]), n[l])); });
}

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

template <class T>
void add_logic(Table& t, const std::string& type) {
  t["and." + type] = binary<T, std::bit_and<>>;
  t["or." + type] = binary<T, std::bit_or<>>;
  t["xor." + type] = binary<T, std::bit_xor<>>;
  t["not." + type] = unary<T, std::bit_not<>>;
  t["shl." + type] = shift<T, ShiftLeft>;
  t["shr." + type] = shift<T, ShiftRight>;
}

}  // namespace

void add_bits(Table& t) {
  add_logic<uint16_t>(t, "b16");
  add_logic<uint32_t>(t, "b32");
  add_logic<uint64_t>(t, "b64");
  t["shr.s16"] = shift<int16_t, ShiftRight>;
  t["shr.u16"] = shift<uint16_t, ShiftRight>;
  t["shr.s32"] = shift<int32_t, ShiftRight>;
  t["shr.u32"] = shift<uint32_t, ShiftRight>;
  t["shr.s64"] = shift<int64_t, ShiftRight>;
  t["shr.u64"] = shift<uint64_t, ShiftRight>;
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
}

}  // namespace virtual_gpu
