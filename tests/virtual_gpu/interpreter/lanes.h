// How handlers read and write registers.
#pragma once

#include <bit>
#include <cstring>

#include "machine.h"
#include "program.h"

namespace virtual_gpu {

template <class T>
using Stored = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <class T>
inline T from_stored(Stored<T> bits) {
  if constexpr (sizeof(T) == sizeof(bits)) {
    return std::bit_cast<T>(bits);
  } else if constexpr (sizeof(T) == 2) {
    return std::bit_cast<T>(static_cast<uint16_t>(bits));
  } else {
    return std::bit_cast<T>(static_cast<uint8_t>(bits));
  }
}

template <class T>
inline Stored<T> to_stored(T value) {
  if constexpr (sizeof(T) == sizeof(Stored<T>)) {
    return std::bit_cast<Stored<T>>(value);
  } else if constexpr (sizeof(T) == 2) {
    return std::bit_cast<uint16_t>(value);
  } else {
    return std::bit_cast<uint8_t>(value);
  }
}

// Register lanes of type T.
template <class T>
inline const Stored<T>* lanes(const Warp& w, const Operand& o) {
  return reinterpret_cast<const Stored<T>*>(w.file[o.place >> 31] +
                                            (o.place & ~Operand::kConstant));
}
template <class T>
inline Stored<T>* result_lanes(Warp& w, const Operand& o) {
  return reinterpret_cast<Stored<T>*>(w.registers + o.place);
}

inline Mask predicate(const Warp& w, const Operand& o) {
  Mask bits;
  std::memcpy(&bits, w.file[o.place >> 31] + (o.place & ~Operand::kConstant), sizeof bits);
  return o.negated ? ~bits : bits;
}
inline void set_predicate(Warp& w, const Operand& o, Mask value, Mask mask) {
  Mask bits;
  std::memcpy(&bits, w.registers + o.place, sizeof bits);
  bits = (bits & ~mask) | (value & mask);
  std::memcpy(w.registers + o.place, &bits, sizeof bits);
}

// result[l] = f(l) for the lanes of the mask. Results may share places with sources, lane by lane.
template <class T, class F>
inline void for_lanes(Warp& w, const Operand& result, Mask mask, F&& f) {
  Stored<T>* out = result_lanes<T>(w, result);
  if (mask == kAllLanes) {
#pragma GCC ivdep
    for (int l = 0; l < kLanes; ++l) out[l] = to_stored<T>(f(l));
  } else {
    for (int l = 0; l < kLanes; ++l)
      if (mask >> l & 1) out[l] = to_stored<T>(f(l));
  }
}

}  // namespace virtual_gpu
