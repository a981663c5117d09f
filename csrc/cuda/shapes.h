// The shapes that kernels are compiled for, and the choice among them.
#pragma once

#include <utility>

#include "mma.cuh"
#include "prepare.h"

namespace adaptau::cuda {

template <class Type_, int D_>
struct Shape {
  using Type = Type_;
  static constexpr int D = D_;
  static constexpr int kRowBytes = D * static_cast<int>(sizeof(typename Type::Element));
  static constexpr int kChunks = kRowBytes / 16;
  static constexpr int kSteps = kRowBytes / 32;  // of a score's sum
  // 99 KiB of shared memory are what every GPU since sm_80 has, 128 sums a lane what its registers
  // hold. Of longer rows the sums are made kSums at a time, by different blocks.
  static constexpr int kHeight = kRowBytes <= 256 ? 2 : 1;
  static constexpr int kWarps = kRowBytes == 128 || kRowBytes == 512 ? 8
                                : kRowBytes <= 1024                  ? 4
                                                                     : 2;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kBlocks =
      kWarps == 8 ? 1 : 2;  // of a multiprocessor: 8 warps of up to 255 registers
  static constexpr int kRows = 16 * kHeight * kWarps;
  static constexpr int kColumns = kRowBytes == 128 ? 64 : kRowBytes <= 512 ? 32 : 16;
  static constexpr int kColumnTiles = kColumns / 8;
  static constexpr int kStages = kRowBytes <= 256 ? 3 : kRowBytes <= 1024 ? 2 : 1;
  static constexpr int kSums = kRowBytes > 1024 ? 128 : D < 256 ? D : 256;
  static constexpr int kRowTileBytes = kRows * kRowBytes, kColumnTileBytes = kColumns * kRowBytes;
};

template <class Type, class F>
auto with_dimension(int64_t d, F&& f) {
  if (d <= 64) return f(Shape<Type, 64>{});
  if (d <= 128) return f(Shape<Type, 128>{});
  if (d <= 256) return f(Shape<Type, 256>{});
  return f(Shape<Type, 512>{});
}

template <class F>
auto with_shape(TileType type, int64_t d, F&& f) {
  switch (type) {
    case TileType::f32: return with_dimension<F32>(d, f);
    case TileType::tf32: return with_dimension<Tf32>(d, f);
    case TileType::bf16: return with_dimension<Bf16>(d, f);
    default: return with_dimension<F16>(d, f);
  }
}

// The types that scores of top-k and ranks are made of.
template <class F>
auto with_exact_shape(TileType type, int64_t d, F&& f) {
  switch (type) {
    case TileType::f32: return with_dimension<F32>(d, f);
    case TileType::bf16: return with_dimension<Bf16>(d, f);
    default: return with_dimension<F16>(d, f);
  }
}

}  // namespace adaptau::cuda
