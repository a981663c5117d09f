#pragma once

namespace adaptau::cuda {

// 2^x in one instruction, off by two roundings at most; results below 2^-126 are zero.
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace adaptau::cuda
