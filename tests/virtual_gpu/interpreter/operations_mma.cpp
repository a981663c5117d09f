// mma.sync and ldmatrix.
//
// Products are exact. They are added as tensor cores of the Ampere generation were measured to do
// (Fasi, Higham, Mikaitis and Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ CS 2021):
// eight 16-bit products, or four of tf32, and the accumulator at a time, aligned to the largest of
// them with one bit beyond float32's 24, what lies below cut off, and the sum cut off to float32.
// Later generations keep more bits, so an error budget met here is met there.
#include <algorithm>
#include <cmath>
#include <limits>

#include "access.h"
#include "lanes.h"
#include "small_floats.h"

namespace virtual_gpu {
namespace {

constexpr int kRows = 16, kColumns = 8;

float tf32(uint32_t bits) { return std::bit_cast<float>(bits & 0xffffe000u); }

// sums[n] + a[0] b[0][n] + .. as one step of the hardware, for a row of results.
template <int kGroup>
void add_group(const float* a, const float (*b)[kColumns], float* sums) {
  float products[kGroup][kColumns], largest[kColumns], limitless[kColumns];
  bool finite = true;
  for (int n = 0; n < kColumns; ++n) {
    largest[n] = std::fabs(sums[n]);
    for (int e = 0; e < kGroup; ++e) {
      products[e][n] = a[e] * b[e][n];
      largest[n] = std::max(largest[n], std::fabs(products[e][n]));
      finite &= std::fabs(products[e][n]) <= std::numeric_limits<float>::max();
    }
    finite &= std::fabs(sums[n]) <= std::numeric_limits<float>::max();
  }
  if (!finite)
    for (int n = 0; n < kColumns; ++n) {
      limitless[n] = sums[n];
      for (int e = 0; e < kGroup; ++e) limitless[n] += products[e][n];
    }
#pragma GCC ivdep
  for (int n = 0; n < kColumns; ++n) {
    // unit: of the last bit kept, 24 below the leading one of the largest
    const uint64_t exponent = std::max(std::bit_cast<uint32_t>(largest[n]) >> 23, 1u);
    const double unit = std::bit_cast<double>((exponent + 1023 - 127 - 24) << 52);
    const double per_unit = std::bit_cast<double>((1023 + 127 + 24 - exponent) << 52);
    double total = std::trunc(sums[n] * per_unit);
    for (int e = 0; e < kGroup; ++e) total += std::trunc(products[e][n] * per_unit);
    // to float, toward zero: the low 29 bits of a double's significand are what it has beyond
    sums[n] = static_cast<float>(
        std::bit_cast<double>(std::bit_cast<uint64_t>(total * unit) & ~((uint64_t{1} << 29) - 1)));
  }
  if (!finite)  // the other columns are not concerned
    for (int n = 0; n < kColumns; ++n)
      if (!std::isfinite(limitless[n])) sums[n] = limitless[n];
}

// Registers of lane l: A holds rows l / 4 and l / 4 + 8, B column l / 4, C and D rows l / 4 and
// l / 4 + 8, columns 2 (l % 4) and one more.
template <int kDepth, int kGroup, float (*kElement)(uint32_t)>
void multiply(Warp& w, const Instruction& i, Mask) {
  float a[kRows][kDepth], b[kDepth][kColumns], d[kRows][kColumns];
  for (int l = 0; l < kLanes; ++l) {
    const int g = l / 4, t = l % 4;
    if constexpr (kDepth == 16) {
      for (int r = 0; r < 4; ++r) {  // two elements a register
        const uint32_t x = lanes<uint32_t>(w, i.sources[r])[l];
        float* at = &a[g + r % 2 * 8][2 * t + r / 2 * 8];
        at[0] = kElement(x & 0xffff);
        at[1] = kElement(x >> 16);
      }
      for (int r = 0; r < 2; ++r) {
        const uint32_t x = lanes<uint32_t>(w, i.sources[4 + r])[l];
        b[2 * t + r * 8][g] = kElement(x & 0xffff);
        b[2 * t + r * 8 + 1][g] = kElement(x >> 16);
      }
    } else {
      for (int r = 0; r < 4; ++r)
        a[g + r % 2 * 8][t + r / 2 * 4] = kElement(lanes<uint32_t>(w, i.sources[r])[l]);
      for (int r = 0; r < 2; ++r)
        b[t + r * 4][g] = kElement(lanes<uint32_t>(w, i.sources[4 + r])[l]);
    }
    for (int r = 0; r < 4; ++r)
      d[g + r / 2 * 8][2 * t + r % 2] = from_stored<float>(lanes<float>(w, i.sources[6 + r])[l]);
  }
  for (int m = 0; m < kRows; ++m)
    for (int k = 0; k < kDepth; k += kGroup) add_group<kGroup>(a[m] + k, b + k, d[m]);
  for (int r = 0; r < 4; ++r) {
    auto* out = result_lanes<float>(w, i.results[r]);
    for (int l = 0; l < kLanes; ++l) out[l] = to_stored(d[l / 4 + r / 2 * 8][2 * (l % 4) + r % 2]);
  }
}

// Lane 8 j + r names row r of matrix j, 16 bytes of shared memory. Lane l receives elements 2 (l %
// 4) and one more of row l / 4 of each matrix, or of its column l / 4 when transposed.
void load_matrices(Warp& w, const Instruction& i, Mask) {
  uint8_t rows[kLanes][16];
  const int n = i.elements;
  read_matrix_rows(w, i, n, rows);
  for (int j = 0; j < n; ++j) {
    auto* out = result_lanes<uint32_t>(w, i.results[j]);
    for (int l = 0; l < kLanes; ++l) {
      auto element = [&](int row, int column) {
        uint16_t x;
        std::memcpy(&x, rows[8 * j + row] + 2 * column, sizeof x);
        return uint32_t{x};
      };
      const int g = l / 4, t2 = l % 4 * 2;
      out[l] = i.transposed ? element(t2, g) | element(t2 + 1, g) << 16
                            : element(g, t2) | element(g, t2 + 1) << 16;
    }
  }
}

}  // namespace

bool decode_mma(const Parts& parts, Instruction& i) {
  std::string name;
  for (const auto& part : parts) name += (name.empty() ? "" : ".") + part;
  if (name == "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32") {
    i.run = multiply<16, 8, from_bf16>;
  } else if (name == "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32") {
    i.run = multiply<16, 8, from_f16>;
  } else if (name == "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32") {
    i.run = multiply<8, 4, tf32>;
  } else if (name.starts_with("ldmatrix.sync.aligned.m8n8.x")) {
    const std::string& count = parts[4];
    if (count != "x1" && count != "x2" && count != "x4") return false;
    i.elements = static_cast<uint8_t>(count[1] - '0');
    i.transposed = parts[5] == "trans";
    const size_t rest = i.transposed ? 6 : 5;
    if (parts.size() != rest + 2 || parts[rest] != "shared" || parts[rest + 1] != "b16")
      return false;
    i.run = load_matrices;
    i.space = Space::shared;
  } else {
    return false;
  }
  i.control = Control::warp_barrier;
  return true;
}

}  // namespace virtual_gpu
