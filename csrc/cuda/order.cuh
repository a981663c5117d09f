// Candidates in the total order of core/order.h, as one integer: descending keys are score
// descending, NaN after every number, then id ascending.
#pragma once

#include <cstdint>

namespace adaptau::cuda {

using CandidateKey = unsigned long long;

// 0 for NaN; never 0 otherwise.
__device__ __forceinline__ uint32_t score_bits(float score) {
  if (isnan(score)) return 0;
  const int bits = __float_as_int(score + 0.0f);  // -0 -> +0
  return static_cast<uint32_t>(bits ^ (bits >> 31 | static_cast<int>(0x80000000u)));
}

__device__ __forceinline__ float bits_score(uint32_t bits) {
  if (bits == 0) return __int_as_float(0x7fffffff);
  return __uint_as_float(bits & 0x80000000u ? bits ^ 0x80000000u : ~bits);
}

__device__ __forceinline__ CandidateKey candidate_key(float score, int id) {
  return static_cast<CandidateKey>(score_bits(score)) << 32 | ~static_cast<uint32_t>(id);
}
__device__ __forceinline__ float key_score(CandidateKey key) {
  return bits_score(static_cast<uint32_t>(key >> 32));
}
__device__ __forceinline__ int key_id(CandidateKey key) {
  return static_cast<int>(~static_cast<uint32_t>(key));
}

}  // namespace adaptau::cuda
