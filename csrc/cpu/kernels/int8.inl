// Scans of rows stored as bytes: four products an instruction lane, a third (or, with VNNI, a
// quarter) of the cost of float. The integer sum is exact; what the bytes lose is bounded per panel
// and user:
//   |<u, x'> - su sp sum| <= |su qu| residual(panel) + residual(user) |x'| + slack |x|
// A score can only reach a bound that its integer sum reaches after the bound was lowered by this.

namespace adaptau {
namespace ADAPTAU_ISA {
namespace {

#if defined(__AVX2__)

using Ints = IVec<float>;
using Floats = Vec<float>;

// acc + four products of unsigned and signed bytes, in each 32-bit lane.
ADAPTAU_INLINE Ints add_byte_products(Ints acc, Ints unsigned_bytes, Ints signed_bytes) {
#if defined(__AVX512VNNI__)
  return (Ints)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)unsigned_bytes, (__m512i)signed_bytes);
#elif defined(__AVX512BW__)
  // 127 * 127 * 2 fits 16 bits, so that nothing saturates
  return acc + (Ints)_mm512_madd_epi16(
                   _mm512_maddubs_epi16((__m512i)unsigned_bytes, (__m512i)signed_bytes),
                   _mm512_set1_epi16(1));
#else
  return acc + (Ints)_mm256_madd_epi16(
                   _mm256_maddubs_epi16((__m256i)unsigned_bytes, (__m256i)signed_bytes),
                   _mm256_set1_epi16(1));
#endif
}

#if defined(__AVX512VNNI__)
constexpr int kInt8UserLimit = 127;
#else
constexpr int kInt8UserLimit = 63;
#endif
#if ADAPTAU_VECTOR_BYTES == 64
constexpr int kInt8Rows = 8, kInt8Vectors = 3;
#else
constexpr int kInt8Rows = 4, kInt8Vectors = 2;
#endif

template <int MR, int NV>
ADAPTAU_INLINE void int8_tile(int64_t d4, const int32_t* items, int64_t stride,
                              const int32_t* start, const int32_t* users, Ints (&acc)[MR][NV]) {
  constexpr int W = simd<float>::lanes;
  ADAPTAU_UNROLL
  for (int r = 0; r < MR; ++r) {
    ADAPTAU_UNROLL
    for (int v = 0; v < NV; ++v) acc[r][v] = broadcast<Ints>(start[r]);
  }
  for (int64_t k = 0; k < d4; ++k) {
    Ints u[NV];
    ADAPTAU_UNROLL
    for (int v = 0; v < NV; ++v) u[v] = load<Ints>(users + k * kTile + v * W);
    ADAPTAU_UNROLL
    for (int r = 0; r < MR; ++r) {
      const Ints x = broadcast<Ints>(items[r * stride + k]);
      ADAPTAU_UNROLL
      for (int v = 0; v < NV; ++v) acc[r][v] = add_byte_products(acc[r][v], u[v], x);
    }
  }
}

// Calls use(first item, first lane, acc) for every register tile. Rows beyond `items` are computed
// too (the panel has 48) and must be left out by `use`.
template <class F>
ADAPTAU_INLINE void for_each_int8_tile(int64_t items, int64_t lanes, int64_t d4,
                                       const Int8Panel& panel, const Int8Users& users, F&& use) {
  constexpr int W = simd<float>::lanes, MR = kInt8Rows, NV = kInt8Vectors;
  const auto* rows = reinterpret_cast<const int32_t*>(panel.bytes);
  const auto* packed = reinterpret_cast<const int32_t*>(users.bytes);
  int64_t l = 0;
  for (; l + NV * W <= lanes; l += NV * W)
    for (int64_t j = 0; j < items; j += MR) {
      Ints acc[MR][NV];
      int8_tile<MR, NV>(d4, rows + j * d4, d4, panel.start + j, packed + l, acc);
      use(j, l, acc);
    }
  for (; l < lanes; l += W)
    for (int64_t j = 0; j < items; j += MR) {
      Ints acc[MR][1];
      int8_tile<MR, 1>(d4, rows + j * d4, d4, panel.start + j, packed + l, acc);
      use(j, l, acc);
    }
}

// More than underflow can do to a score: d roundings of at most 2^-150 each. Less than any scale.
constexpr float kInt8Underflow = 1e-36f;

// At least the distance between su sp sum and the float32 score of any pair of panel and lane.
ADAPTAU_INLINE Floats int8_error(const Int8Panel& panel, const Int8Users& users, int64_t l) {
  return load<Floats>(users.norm + l) * panel.residual +
         load<Floats>(users.residual + l) * panel.centred_norm +
         load<Floats>(users.slack + l) * panel.norm + kInt8Underflow;
}

// Squares below 2^-150 vanish, up to 3.4e-21 of a norm. With a scale of at least this, the margins
// of residual and centred norm are wider.
constexpr float kInt8SmallestScale = 1e-12f;
constexpr float kInt8Roundings = 1e-6f;  // of the few float operations on bounds, generously

// su sp where it is far from over- and underflow, so that all of the above is too, and where |u||x|
// is so far below the largest float that no partial sum of a score overflows; else NaN.
ADAPTAU_INLINE Floats int8_scale(const Int8Panel& panel, const Int8Users& users, int64_t l) {
  const Floats scale = load<Floats>(users.scale + l) * panel.scale;
  const Floats slack = load<Floats>(users.slack + l) * panel.norm;  // over 1e-6 |u||x|
  const Ints safe = (scale > 1e-30f) & (scale < 1e30f) & (slack < 1e30f);
  return safe ? scale : broadcast<Floats>(__builtin_nanf(""));
}

int64_t scan_int8(int64_t items, int64_t lanes, int64_t d4, const Int8Panel& panel,
                  const Int8Users& users, const float* bound, uint16_t* hits) {
  constexpr int W = simd<float>::lanes;
  constexpr float never = 1073741824.f;  // 2^30, beyond any sum
  int32_t threshold[kTile];
  for_each_vector<float>(lanes, [&](int64_t l) {
    // bound = +inf switches a lane off, also where the error is infinite; NaN lets everything pass
    const Floats b = load<Floats>(bound + l), error = int8_error(panel, users, l);
    Floats q = (b - error) / int8_scale(panel, users, l);
    q -= (q < 0 ? -q : q) * kInt8Roundings;
    q = q > -never ? q : broadcast<Floats>(-never);
    q = q < never ? q : broadcast<Floats>(never);
    q = b == __builtin_inff() ? broadcast<Floats>(never) : q;
    store(threshold + l, __builtin_convertvector(q, Ints) - 2);
  });
  int64_t n = 0;
  for_each_int8_tile(items, lanes, d4, panel, users, [&](int64_t j, int64_t l, auto& acc) {
    constexpr int MR = sizeof(acc) / sizeof(acc[0]), NV = sizeof(acc[0]) / sizeof(Ints);
    Ints limit[NV], any{};
    ADAPTAU_UNROLL
    for (int v = 0; v < NV; ++v) limit[v] = load<Ints>(threshold + l + v * W);
    ADAPTAU_UNROLL
    for (int r = 0; r < MR; ++r) {
      ADAPTAU_UNROLL
      for (int v = 0; v < NV; ++v) any |= acc[r][v] > limit[v];
    }
    if (mask_bits<float>(any) == 0) return;
    // Constant indices only: a variable one would keep all of acc in memory, inside the loop over
    // k.
    uint32_t reached[MR][NV];
    ADAPTAU_UNROLL
    for (int r = 0; r < MR; ++r) {
      ADAPTAU_UNROLL
      for (int v = 0; v < NV; ++v) reached[r][v] = mask_bits<float>(acc[r][v] > limit[v]);
    }
    const int64_t rows = items - j < MR ? items - j : MR;
    for (int r = 0; r < rows; ++r) {
      for (int v = 0; v < NV; ++v)
        for (uint32_t bits = reached[r][v]; bits != 0; bits &= bits - 1)
          hits[n++] = static_cast<uint16_t>((j + r) * kTile + l + v * W + __builtin_ctz(bits));
    }
  });
  return n;
}

void best_int8(int64_t items, int64_t lanes, int64_t d4, const Int8Panel& panel,
               const Int8Users& users, float* best) {
  constexpr int W = simd<float>::lanes, group = 8;
  for_each_int8_tile(items, lanes, d4, panel, users, [&](int64_t j, int64_t l, auto& acc) {
    constexpr int MR = sizeof(acc) / sizeof(acc[0]), NV = sizeof(acc[0]) / sizeof(Ints);
    const int64_t rows = items - j;
    ADAPTAU_UNROLL
    for (int v = 0; v < NV; ++v) {
      Ints top = acc[0][v];
      ADAPTAU_UNROLL
      for (int r = 1; r < MR; ++r)
        if (r < rows) top = acc[r][v] > top ? acc[r][v] : top;
      const int64_t lane = l + v * W;
      const Floats s = __builtin_convertvector(top, Floats) * int8_scale(panel, users, lane);
      const Floats size = s < 0 ? -s : s;
      Floats low = s - size * kInt8Roundings - int8_error(panel, users, lane);
      low = low == low ? low : broadcast<Floats>(-__builtin_inff());
      float* out = best + j / group * kTile + lane;
      const Floats before = load<Floats>(out);
      store(out, j % group != 0 && before > low ? before : low);
    }
  });
}

void select_rank(int64_t n, int64_t lanes, const float* best, const int32_t* rank, float* out) {
  for_each_vector<float>(lanes, [&](int64_t l) {
    const Ints wanted = load<Ints>(rank + l);
    const Floats nothing = broadcast<Floats>(-__builtin_inff());
    Floats high = nothing, smallest = -nothing;  // of the numbers: -inf has no middle
    Ints numbers{};
    for (int64_t g = 0; g < n; ++g) {
      const Floats x = load<Floats>(best + g * kTile + l);
      high = x > high ? x : high;
      numbers -= x > nothing;
      smallest = (x > nothing) & (x < smallest) ? x : smallest;
    }
    Floats low = numbers >= wanted ? smallest : nothing;
    for (int step = 0; step < 20; ++step) {
      const Floats middle = low * 0.5f + high * 0.5f;
      Ints reached{};
      for (int64_t g = 0; g < n; ++g) reached -= load<Floats>(best + g * kTile + l) >= middle;
      const Ints enough = reached >= wanted;  // false throughout where n < rank
      low = enough ? middle : low;
      high = enough ? high : middle;
    }
    store(out + l, low);
  });
}

// x^2 summed in float is below the truth by at most this factor, and its root by half of it.
ADAPTAU_INLINE float square_sum_slack(int64_t d) { return 1.f + 2e-7f * (d + 64); }

void quantize_panel(int64_t n, int64_t d, int64_t stride, const float* x, const float* centre,
                    int8_t* bytes, int32_t* sums, float* meta) {
  constexpr int W = simd<float>::lanes;
  typedef int8_t Bytes __attribute__((vector_size(W)));
  const float infinity = __builtin_inff();
  memset(bytes, 0, kTile * d);
  memset(sums, 0, kTile * sizeof(int32_t));
  float norm = 0, centred_norm = 0;
  bool finite = true;
  Floats largest{};
  for (int64_t j = 0; j < n; ++j) {
    Floats square{}, centred_square{};
    for (int64_t k = 0; k < d; k += W) {
      const Floats v = load<Floats>(x + j * stride + k), c = v - load<Floats>(centre + k);
      const Floats size = c < 0 ? -c : c;
      largest = size > largest ? size : largest;
      square += v * v;
      centred_square += c * c;
    }
    const float s = sum_lanes<float>(square), c = sum_lanes<float>(centred_square);
    finite &= s + c < infinity;  // NaN would not last in a maximum
    norm = s > norm ? s : norm;
    centred_norm = c > centred_norm ? c : centred_norm;
  }
  float top = 0;
  for (int l = 0; l < W; ++l) top = largest[l] > top ? largest[l] : top;
  const float scale = top / 127;
  if (!finite || (top != 0 && scale < kInt8SmallestScale)) {
    // rows that are not finite, or so small that squares vanish: nothing can be said about them
    meta[0] = 1, meta[1] = meta[2] = meta[3] = infinity;
    return;
  }
  meta[0] = top == 0 ? 1 : scale;
  const float inverse = 1 / meta[0];
  float residual = 0;
  for (int64_t j = 0; j < n; ++j) {
    Floats square{};
    Ints sum{};
    for (int64_t k = 0; k < d; k += W) {
      const Floats c = load<Floats>(x + j * stride + k) - load<Floats>(centre + k);
      const Floats t = c * inverse + Exp2<float>::magic;  // rounds to an integer
      const Ints q = (Ints)t - (Ints)broadcast<Floats>(Exp2<float>::magic);
      const Floats off = c - (t - Exp2<float>::magic) * meta[0];
      square += off * off;
      sum += q;
      store(bytes + j * d + k, __builtin_convertvector(q, Bytes));
    }
    for (int l = 0; l < W; ++l) sums[j] += sum[l];
    const float s = sum_lanes<float>(square);
    residual = s > residual ? s : residual;
  }
  const float slack = square_sum_slack(d);
  // `off` itself is rounded, by an ulp of an entry at most
  meta[1] = square_root(residual) * slack + square_root(centred_norm) * 3e-7f;
  meta[2] = square_root(centred_norm) * slack;
  meta[3] = square_root(norm) * slack + 1e-20f;  // what vanished: the centre can be as small
}

#define ADAPTAU_INT8_TABLE kInt8UserLimit, quantize_panel, scan_int8, best_int8, select_rank
#else
#define ADAPTAU_INT8_TABLE 0, nullptr, nullptr, nullptr, nullptr
#endif

}  // namespace
}  // namespace ADAPTAU_ISA
}  // namespace adaptau
