// The approximate functions: the true value, then, by turns of a hash of the argument, up to the
// documented error away from it, so that nobody may count on less.
#include <cmath>
#include <limits>

#include "elementwise.h"

namespace virtual_gpu {
namespace {

// `error` is less than the documented one by 2^-24, for the rounding to float.
float roughly(double value, float argument, double error) {
  if (!settings().rough_functions || !std::isfinite(value)) return static_cast<float>(value);
  const uint32_t hash = std::bit_cast<uint32_t>(argument) * 0x9e3779b1u >> 16;
  const int step = static_cast<int>(hash % 3) - 1;
  return static_cast<float>(value * (1 + step * error));
}
template <class T>
T flushed(T x) {
  return std::fabs(x) < std::numeric_limits<T>::min() ? std::copysign(T{0}, x) : x;
}

struct Exp2Flushing {
  float operator()(float a) const {
    return flushed(roughly(std::exp2(static_cast<double>(flushed(a))), a, 0x1p-23));
  }
};
struct Log2 {
  float operator()(float a) const { return roughly(std::log2(static_cast<double>(a)), a, 0x1p-23); }
};
struct ReciprocalSquareRoot {
  float operator()(float a) const {
    return roughly(1 / std::sqrt(static_cast<double>(a)), a, 0x1.12p-23 - 0x1p-24);  // 2^-22.9
  }
};
// The start of a division in double: the upper 32 bits of the result, subnormals flushed.
struct ReciprocalStart {
  double operator()(double a) const {
    const double result = flushed(1 / flushed(a));
    return std::bit_cast<double>(std::bit_cast<uint64_t>(result) & 0xffffffff00000000ull);
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
