// The approximate functions: the true value, then, by turns of a hash of the argument, up to the
// documented error away from it, so that nobody may count on less.
#include <cmath>

#include "elementwise.h"

namespace virtual_gpu {
namespace {

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

}  // namespace

void add_functions(Table& t) {
  t["ex2.approx.ftz.f32"] = unary<float, Exp2Flushing>;
  t["lg2.approx.f32"] = unary<float, Log2>;
  t["rsqrt.approx.f32"] = unary<float, ReciprocalSquareRoot>;
  t["rcp.approx.ftz.f64"] = unary<double, ReciprocalStart>;
}

}  // namespace virtual_gpu
