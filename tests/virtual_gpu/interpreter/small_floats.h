// bfloat16 and float16, by their bits.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace virtual_gpu {

inline float from_bf16(uint32_t bits) { return std::bit_cast<float>(bits << 16); }

inline uint32_t to_bf16(float x) {
  if (std::isnan(x)) return 0x7fff;
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

inline float from_f16(uint32_t bits) {
  return static_cast<float>(std::bit_cast<_Float16>(static_cast<uint16_t>(bits)));
}

inline uint32_t to_f16(float x) {
  if (std::isnan(x)) return 0x7fff;
  return std::bit_cast<uint16_t>(static_cast<_Float16>(x));
}

}  // namespace virtual_gpu
