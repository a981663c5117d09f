// Matrix products of a warp: what a tile's elements are, and the tensor-core instructions for them.
//
// A product step takes 32 bytes of each row: 16 elements of bfloat16 or float16 (m16n8k16), 8 of
// float32 (m16n8k8). Fragments then come out of shared memory by the same ldmatrix for every type.
// Sums are float32 always. Lane l holds rows l / 4 and l / 4 + 8 of a 16 x 8 result, columns
// 2 (l % 4) and one more: {row g: c[0], c[1]; row g + 8: c[2], c[3]}.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace adaptau::cuda {

struct FragmentA {
  uint32_t x[4];
};  // 16 rows, 32 bytes of each
struct FragmentB {
  uint32_t x[2];
};  // 8 columns, 32 bytes of each

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

__device__ __forceinline__ uint32_t load_shared(uint32_t address) {
  uint32_t x;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(x) : "r"(address));
  return x;
}

__device__ __forceinline__ void load_matrices(uint32_t (&x)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(address));
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t (&x)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(address));
}

__device__ __forceinline__ void multiply_bf16(float (&c)[4], const uint32_t (&a)[4],
                                              const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void multiply_f16(float (&c)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void multiply_tf32(float (&c)[4], const uint32_t (&a)[4],
                                              const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// float32 rounded to the 11 significant bits that a tensor core reads, half away from zero.
__device__ __forceinline__ uint32_t round_tf32(uint32_t x) { return (x + 0x1000u) & 0xffffe000u; }

// Element types of a tile. `Element` is how it lies in memory.
struct Bf16 {
  using Element = __nv_bfloat16;
  static __device__ __forceinline__ void multiply(float (&c)[4], const FragmentA& a,
                                                  const FragmentB& b) {
    multiply_bf16(c, a.x, b.x);
  }
  static __device__ __forceinline__ uint32_t pack(float low, float high) {
    const __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const uint32_t&>(v);
  }
};

struct F16 {
  using Element = __half;
  static __device__ __forceinline__ void multiply(float (&c)[4], const FragmentA& a,
                                                  const FragmentB& b) {
    multiply_f16(c, a.x, b.x);
  }
  static __device__ __forceinline__ uint32_t pack(float low, float high) {
    const __half2 v = __floats2half2_rn(low, high);
    return reinterpret_cast<const uint32_t&>(v);
  }
};

// One product of factors rounded to 11 bits.
struct Tf32 {
  using Element = float;
  static __device__ __forceinline__ void multiply(float (&c)[4], const FragmentA& a,
                                                  const FragmentB& b) {
    uint32_t x[4], y[2];
    for (int n = 0; n < 4; ++n) x[n] = round_tf32(a.x[n]);
    for (int n = 0; n < 2; ++n) y[n] = round_tf32(b.x[n]);
    multiply_tf32(c, x, y);
  }
};

// float32 proper: every factor is a sum of two of 11 bits, and three of the four products of the
// parts count (the fourth is below 2^-22 of the whole).
struct F32 {
  using Element = float;
  static __device__ __forceinline__ void multiply(float (&c)[4], const FragmentA& a,
                                                  const FragmentB& b) {
    uint32_t high[4], low[4], high_b[2], low_b[2];
    for (int n = 0; n < 4; ++n) split(a.x[n], high[n], low[n]);
    for (int n = 0; n < 2; ++n) split(b.x[n], high_b[n], low_b[n]);
    multiply_tf32(c, low, high_b);
    multiply_tf32(c, high, low_b);
    multiply_tf32(c, high, high_b);
  }
  static __device__ __forceinline__ void split(uint32_t x, uint32_t& high, uint32_t& low) {
    high = round_tf32(x);
    low = __float_as_uint(__uint_as_float(x) - __uint_as_float(high));
  }
};

template <class Type>
constexpr bool kHalfWidth = sizeof(typename Type::Element) == 2;

}  // namespace adaptau::cuda
