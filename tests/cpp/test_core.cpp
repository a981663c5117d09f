// The counter generator, the total order and the conversions, against published or independent
// values.
#include <array>
#include <limits>

#include "check.h"
#include "core/order.h"
#include "core/philox.h"
#include "cpu/rows.h"

using namespace adaptau;

namespace {

// Known answers of the Random123 distribution for philox4x32-10.
void philox_known_answers() {
  struct Known {
    uint64_t seed;
    std::array<uint32_t, 4> counter, words;
  };
  const Known known[] = {
      {0, {0, 0, 0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {~0ull, {~0u, ~0u, ~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {0x299f31d0a4093822,
       {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (const Known& k : known) {
    const PhiloxWords out =
        philox(k.seed, {{k.counter[0], k.counter[1], k.counter[2], k.counter[3]}});
    for (int w = 0; w < 4; ++w) CHECK(out.word[w] == k.words[w]);
  }
}

// With rejection every id is equally likely; n = 3 * 2^30 would show a bias of 1 in 3 without it.
void draws_are_uniform() {
  const uint32_t n = 3u << 29;
  int thirds[3] = {0, 0, 0};
  const int samples = 300000;
  for (int i = 0; i < samples; ++i) ++thirds[draw(7, i, 0, n) / (n / 3)];
  for (int count : thirds) CHECK_NEAR(count, samples / 3.0, 5 * std::sqrt(samples * 2.0 / 9));
}

template <class T>
void order_of_scores() {
  const T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  const T ascending[] = {-inf,
                         std::numeric_limits<T>::lowest(),
                         T(-1),
                         -std::numeric_limits<T>::min(),
                         -std::numeric_limits<T>::denorm_min(),
                         T(0),
                         std::numeric_limits<T>::denorm_min(),
                         T(1),
                         inf};
  Key<T> last = score_key(nan);
  for (T score : ascending) {
    CHECK(score_key(score) > last);
    CHECK(key_score<T>(score_key(score)) == score);
    last = score_key(score);
  }
  CHECK(score_key(T(-0.0)) == score_key(T(0.0)));
  CHECK(score_key(-nan) == score_key(nan));
  CHECK(std::isnan(key_score<T>(score_key(nan))));
  CHECK(precedes(Candidate<T>{score_key(T(1)), 5}, {score_key(T(0)), 4}));
  CHECK(precedes(Candidate<T>{score_key(T(1)), 4}, {score_key(T(1)), 5}));
  CHECK(!precedes(Candidate<T>{score_key(T(1)), 5}, {score_key(T(1)), 5}));
}

void half_precision() {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const int sign = bits >> 15 ? -1 : 1;
    const int f16_exponent = bits >> 10 & 31, f16_mantissa = bits & 1023;
    const float f16 = f16_to_f32(static_cast<uint16_t>(bits));
    if (f16_exponent == 31) {
      CHECK(f16_mantissa ? std::isnan(f16) : f16 == sign * std::numeric_limits<float>::infinity());
    } else {
      CHECK(f16 == sign * (f16_exponent ? std::ldexp(1024.f + f16_mantissa, f16_exponent - 25)
                                        : std::ldexp(1.f * f16_mantissa, -24)));
    }
    const int exponent = bits >> 7 & 255, mantissa = bits & 127;
    const float bf16 = bf16_to_f32(static_cast<uint16_t>(bits));
    if (exponent == 255) {
      CHECK(mantissa ? std::isnan(bf16) : bf16 == sign * std::numeric_limits<float>::infinity());
    } else {
      CHECK(bf16 == sign * (exponent ? std::ldexp(128.f + mantissa, exponent - 134)
                                     : std::ldexp(1.f * mantissa, -133)));
    }
  }
}

}  // namespace

int main() {
  philox_known_answers();
  draws_are_uniform();
  order_of_scores<float>();
  order_of_scores<double>();
  half_precision();
  return report();
}
