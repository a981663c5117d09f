// Scans of rows stored as bytes: four products an instruction lane, a third (or, with VNNI, a
// quarter) of the cost of float; with AMX, tiles of 16 x 16 sums, a fifth of what VNNI takes. The
// integer sum is exact; what the bytes lose is bounded per panel and user:
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
  // 255 * 63 * 2 fits 16 bits, so that nothing saturates
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

#if defined(__AMX_INT8__)
// Tile registers: 0 to 2 sums of 16 rows with all 48 lanes, 3 the rows, 4 to 6 the users.
constexpr int64_t kTileWords = 16;  // of a row, and lanes

void start_int8(int64_t d4) {
  const int64_t words = d4 < kTileWords ? d4 : kTileWords;
  TileShapes shapes;
  for (int t = 0; t < 7; ++t) {
    shapes.row_bytes[t] = static_cast<uint16_t>(t == 3 ? 4 * words : 64);
    shapes.rows[t] = static_cast<uint8_t>(t < 4 ? 16 : words);
  }
  load_shapes(shapes);
}
void stop_int8() { _tile_release(); }

ADAPTAU_INLINE void load_user_tiles(const int32_t* users) {
  constexpr int64_t row = kTile * 4;
  _tile_loadd(4, users, row);
  _tile_loadd(5, users + kTileWords, row);
  _tile_loadd(6, users + 2 * kTileWords, row);
}

// sums[16][48] of 16 rows of items. Where a row is a single tile wide the users are loaded already.
ADAPTAU_INLINE void int8_stripe(int64_t d4, const int32_t* items, const int32_t* users,
                                int32_t* sums) {
  constexpr int64_t row = kTile * 4;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  for (int64_t k = 0; k < d4; k += kTileWords) {
    if (d4 > kTileWords) load_user_tiles(users + k * kTile);
    _tile_loadd(3, items + k, d4 * 4);
    _tile_dpbusd(0, 3, 4);
    _tile_dpbusd(1, 3, 5);
    _tile_dpbusd(2, 3, 6);
  }
  _tile_stored(0, sums, row);
  _tile_stored(1, sums + kTileWords, row);
  _tile_stored(2, sums + 2 * kTileWords, row);
}

// Calls use(first item, first lane, sums) for every register tile, a stripe behind the tile unit.
template <class F>
ADAPTAU_INLINE void for_each_int8_tile(int64_t items, int64_t lanes, int64_t d4,
                                       const Int8Panel& panel, const Int8Users& users, F&& use) {
  constexpr int W = simd<float>::lanes, MR = kInt8Rows, NV = kInt8Vectors, stripes = kTile / 16;
  static_assert(NV * W == kTile && 16 % MR == 0);
  const auto* rows = reinterpret_cast<const int32_t*>(panel.bytes);
  const auto* packed = reinterpret_cast<const int32_t*>(users.bytes);
  alignas(64) int32_t all[kTile * kTile];
  auto make = [&](int s) {
    if (s < stripes) int8_stripe(d4, rows + s * 16 * d4, packed, all + s * 16 * kTile);
  };
  if (d4 <= kTileWords) load_user_tiles(packed);
  make(0);
  ADAPTAU_UNROLL
  for (int s = 0; s < stripes; ++s) {
    make(s + 1);
    const int64_t last = items < (s + 1) * 16 ? items : (s + 1) * 16;
    for (int64_t j = s * 16; j < last; j += MR) {
      const int32_t* from = all + j * kTile;
      if (lanes == kTile) {
        Ints sums[MR][NV];
        ADAPTAU_UNROLL
        for (int r = 0; r < MR; ++r) {
          ADAPTAU_UNROLL
          for (int v = 0; v < NV; ++v) sums[r][v] = load<Ints>(from + r * kTile + v * W);
        }
        use(j, 0, sums);
      } else {
        for (int64_t l = 0; l < lanes; l += W) {
          Ints sums[MR][1];
          ADAPTAU_UNROLL
          for (int r = 0; r < MR; ++r) sums[r][0] = load<Ints>(from + r * kTile + l);
          use(j, l, sums);
        }
      }
    }
  }
}
#else
void start_int8(int64_t) {}
void stop_int8() {}

// sums[r][v] = sum over k of item row r (unsigned) times the users of vector v (signed).
template <int MR, int NV>
ADAPTAU_INLINE void int8_tile(int64_t d4, const int32_t* items, int64_t stride,
                              const int32_t* users, Ints (&sums)[MR][NV]) {
  constexpr int W = simd<float>::lanes;
  ADAPTAU_UNROLL
  for (int r = 0; r < MR; ++r) {
    ADAPTAU_UNROLL
    for (int v = 0; v < NV; ++v) sums[r][v] = Ints{};
  }
  for (int64_t k = 0; k < d4; ++k) {
    Ints u[NV];
    ADAPTAU_UNROLL
    for (int v = 0; v < NV; ++v) u[v] = load<Ints>(users + k * kTile + v * W);
    ADAPTAU_UNROLL
    for (int r = 0; r < MR; ++r) {
      const Ints x = broadcast<Ints>(items[r * stride + k]);
      ADAPTAU_UNROLL
      for (int v = 0; v < NV; ++v) sums[r][v] = add_byte_products(sums[r][v], x, u[v]);
    }
  }
}

// Calls use(first item, first lane, sums) for every register tile. Rows beyond `items` are computed
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
      Ints sums[MR][NV];
      int8_tile<MR, NV>(d4, rows + j * d4, d4, packed + l, sums);
      use(j, l, sums);
    }
  for (; l < lanes; l += W)
    for (int64_t j = 0; j < items; j += MR) {
      Ints sums[MR][1];
      int8_tile<MR, 1>(d4, rows + j * d4, d4, packed + l, sums);
      use(j, l, sums);
    }
}

#endif

ADAPTAU_INLINE Ints larger(Ints a, Ints b) { return a > b ? a : b; }

// One bit a lane where sum > limit.
ADAPTAU_INLINE uint32_t beyond(Ints sum, Ints limit) {
#if defined(__AVX512F__)
  return _mm512_cmpgt_epi32_mask((__m512i)sum, (__m512i)limit);
#else
  return mask_bits<float>(sum > limit);
#endif
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

// su sp where it is far from over- and underflow, so that all of the above is too, and where |u||x|
// is so far below the largest float that no partial sum of a score overflows; else NaN.
ADAPTAU_INLINE Floats int8_scale(const Int8Panel& panel, const Int8Users& users, int64_t l) {
  const Floats scale = load<Floats>(users.scale + l) * panel.scale;
  const Floats slack = load<Floats>(users.slack + l) * panel.norm;  // over 1e-6 |u||x|
  const Ints safe = (scale > 1e-30f) & (scale < 1e30f) & (slack < 1e30f);
  return safe ? scale : broadcast<Floats>(__builtin_nanf(""));
}

int64_t scan_int8(int64_t items, int64_t lanes, int64_t d4, const Int8Panel& panel,
                  const Int8Users& users, const float* bound, Int8Hits& hits) {
  constexpr int W = simd<float>::lanes;
  constexpr float never = 1073741824.f;  // 2^30, beyond any sum
  int32_t threshold[kTile];
  for_each_vector<float>(lanes, [&](int64_t l) {
    // bound = +inf switches a lane off, also where the error is infinite; NaN lets everything pass
    const Floats b = load<Floats>(bound + l), error = int8_error(panel, users, l),
                 scale = int8_scale(panel, users, l);
    store(hits.scale + l, scale);
    store(hits.error + l, error);
    Floats q = (b - error) / scale;
    q -= (q < 0 ? -q : q) * kInt8Roundings;
    q = q > -never ? q : broadcast<Floats>(-never);
    q = q < never ? q : broadcast<Floats>(never);
    q = b == __builtin_inff() ? broadcast<Floats>(never) : q;
    store(threshold + l, __builtin_convertvector(q, Ints) - 2 + load<Ints>(users.offset + l));
  });
  int64_t n = 0;
  for_each_int8_tile(items, lanes, d4, panel, users, [&](int64_t j, int64_t l, auto& sums) {
    constexpr int MR = sizeof(sums) / sizeof(sums[0]), NV = sizeof(sums[0]) / sizeof(Ints);
    Ints limit[NV];
    uint64_t lanes_hit = 0;
    ADAPTAU_UNROLL
    for (int v = 0; v < NV; ++v) {
      limit[v] = load<Ints>(threshold + l + v * W);
      Ints top = sums[0][v];
      ADAPTAU_UNROLL
      for (int r = 1; r < MR; ++r) top = larger(top, sums[r][v]);
      lanes_hit |= static_cast<uint64_t>(beyond(top, limit[v])) << (v * W);
    }
    if (lanes_hit == 0) return;
    // A bit a row. (Constant indices only: a variable one would keep all sums in memory, inside the
    // loop over k.)
    int32_t rows_hit[NV * W], copy[MR][NV * W];
    ADAPTAU_UNROLL
    for (int v = 0; v < NV; ++v) {
      Ints rows{};
      ADAPTAU_UNROLL
      for (int r = 0; r < MR; ++r) {
        rows |= (sums[r][v] > limit[v]) & (1 << r);
        store(copy[r] + v * W, sums[r][v] - load<Ints>(users.offset + l + v * W));
      }
      store(rows_hit + v * W, rows);
    }
    const uint32_t valid = items - j < MR ? (1u << (items - j)) - 1 : ~0u;
    for (; lanes_hit != 0; lanes_hit &= lanes_hit - 1) {
      const int lane = __builtin_ctzll(lanes_hit);
      for (uint32_t rows = rows_hit[lane] & valid; rows != 0; rows &= rows - 1) {
        const int row = __builtin_ctz(rows);
        hits.position[n] = static_cast<uint16_t>((j + row) * kTile + l + lane);
        hits.sum[n++] = copy[row][lane];
      }
    }
  });
  return n;
}

void best_int8(int64_t items, int64_t lanes, int64_t d4, int64_t group, const Int8Panel& panel,
               const Int8Users& users, float* best) {
  constexpr int W = simd<float>::lanes;
  for_each_int8_tile(items, lanes, d4, panel, users, [&](int64_t j, int64_t l, auto& sums) {
    constexpr int MR = sizeof(sums) / sizeof(sums[0]), NV = sizeof(sums[0]) / sizeof(Ints);
    const int64_t rows = items - j;
    ADAPTAU_UNROLL
    for (int v = 0; v < NV; ++v) {
      Ints top = sums[0][v];
      ADAPTAU_UNROLL
      for (int r = 1; r < MR; ++r)
        if (r < rows) top = larger(top, sums[r][v]);
      const int64_t lane = l + v * W;
      const Floats s = __builtin_convertvector(top - load<Ints>(users.offset + lane), Floats) *
                       int8_scale(panel, users, lane);
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
      smallest = ((x > nothing) & (x < smallest)) ? x : smallest;
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

ADAPTAU_INLINE float largest_lane(Floats v) {
  float top = v[0];
  for (int l = 1; l < simd<float>::lanes; ++l) top = v[l] > top ? v[l] : top;
  return top;
}

// Counts, of which no branch depends on the keys.
void order_keys(int64_t n, const uint64_t* keys, int32_t* place) {
  for (int64_t c = 0; c < n; ++c) {
    const Words mine = broadcast<Words>(keys[c]);
    Words larger{};
    for (int64_t o = 0; o < n; o += kWordLanes) larger -= (Words)(load<Words>(keys + o) > mine);
    uint64_t count = 0;
    ADAPTAU_UNROLL
    for (int l = 0; l < kWordLanes; ++l) count += larger[l];
    place[c] = static_cast<int32_t>(count);
  }
}

float select_value(int64_t n, int64_t rank, const float* x) {
  constexpr int W = simd<float>::lanes;
  const Floats nothing = broadcast<Floats>(-__builtin_inff());
  auto count = [&](auto&& counts) {
    Ints found{};
    for (int64_t c = 0; c < n; c += W) found -= counts(load<Floats>(x + c));
    return static_cast<int64_t>(sum_lanes<float>(__builtin_convertvector(found, Floats)));
  };
  Floats top = nothing, bottom = -nothing;  // of the numbers: -inf has no middle
  for (int64_t c = 0; c < n; c += W) {
    const Floats v = load<Floats>(x + c);
    top = v > top ? v : top;
    bottom = ((v > nothing) & (v < bottom)) ? v : bottom;
  }
  if (count([&](Floats v) { return v > nothing; }) < rank) return -__builtin_inff();
  float high = largest_lane(top), low = -largest_lane(-bottom);
  for (int step = 0; step < 20; ++step) {
    const float middle = low * 0.5f + high * 0.5f;
    const int64_t reached = count([&](Floats v) { return v >= middle; });
    if (reached >= rank) {
      low = middle;
      if (reached == rank) break;
    } else {
      high = middle;
    }
  }
  return low;
}

// x^2 summed in float is below the truth by at most this factor, and its root by half of it.
ADAPTAU_INLINE float square_sum_slack(int64_t d) {
  return 1.f + 2e-7f * static_cast<float>(d + 64);
}

// The low byte of every lane.
ADAPTAU_INLINE void store_low_bytes(uint8_t* out, Ints x) {
#if defined(__AVX512F__)
  _mm_storeu_si128((__m128i*)out, _mm512_cvtepi32_epi8((__m512i)x));
#else
  const __m256i low = _mm256_shuffle_epi8(
      (__m256i)x, _mm256_set1_epi32(0x0c080400));  // four bytes at the front of each half
  const uint64_t front = static_cast<uint32_t>(_mm256_extract_epi32(low, 0));
  const uint64_t back = static_cast<uint32_t>(_mm256_extract_epi32(low, 4));
  const uint64_t bytes = front | back << 32;
  memcpy(out, &bytes, sizeof bytes);
#endif
}

void quantize_panel(int64_t n, int64_t d, int64_t stride, const float* x, const float* centre,
                    uint8_t* bytes, float* meta) {
  constexpr int W = simd<float>::lanes;
  const float infinity = __builtin_inff();
  Floats norm{}, centred_norm{}, size{};
  bool finite = true;
  for (int64_t r = 0; r < n; r += W) {
    Floats squares[W], centred_squares[W];
    ADAPTAU_UNROLL
    for (int i = 0; i < W; ++i) {
      Floats square{}, centred_square{};
      if (r + i < n) {
        const float* row = x + (r + i) * stride;
        for (int64_t k = 0; k < d; k += W) {
          __builtin_prefetch(row + kTile * stride + k, 0, 2);  // the next panel's
          const Floats v = load<Floats>(row + k), c = v - load<Floats>(centre + k);
          const Floats above = c < 0 ? -c : c;
          size = above > size ? above : size;
          square += v * v;
          centred_square += c * c;
        }
      }
      squares[i] = square;
      centred_squares[i] = centred_square;
    }
    const Floats s = merge_rows<float, W>(squares), c = merge_rows<float, W>(centred_squares);
    finite &=
        mask_bits<float>(s + c < infinity) == (1u << W) - 1;  // NaN would not last in a maximum
    norm = s > norm ? s : norm;
    centred_norm = c > centred_norm ? c : centred_norm;
  }
  const float top = largest_lane(size), scale = top / 127;
  if (!finite || (top != 0 && scale < kInt8SmallestScale)) {
    // rows that are not finite, or so small that squares vanish: nothing can be said about them
    memset(bytes, 128, kTile * d);
    meta[0] = 1, meta[1] = meta[2] = meta[3] = infinity;
    return;
  }
  meta[0] = top == 0 ? 1 : scale;
  const float inverse = 1 / meta[0];
  Floats residual{};
  for (int64_t r = 0; r < n; r += W) {
    Floats squares[W];
    ADAPTAU_UNROLL
    for (int i = 0; i < W; ++i) {
      Floats square{};
      if (r + i < n) {
        const float* row = x + (r + i) * stride;
        for (int64_t k = 0; k < d; k += W) {
          const Floats c = load<Floats>(row + k) - load<Floats>(centre + k);
          const Floats t =
              c * inverse + Exp2<float>::magic;  // rounds to an integer, in the low bits
          const Floats off = c - (t - Exp2<float>::magic) * meta[0];
          square += off * off;
          store_low_bytes(bytes + (r + i) * d + k, (Ints)t ^ 128);
        }
      }
      squares[i] = square;
    }
    const Floats s = merge_rows<float, W>(squares);
    residual = s > residual ? s : residual;
  }
  memset(bytes + n * d, 128, (kTile - n) * d);
  const float slack = square_sum_slack(d), centred = square_root(largest_lane(centred_norm));
  // `off` itself is rounded, by an ulp of an entry at most
  meta[1] = square_root(largest_lane(residual)) * slack + centred * 3e-7f;
  meta[2] = centred * slack;
  // what vanished: the centre can be as small
  meta[3] = square_root(largest_lane(norm)) * slack + 1e-20f;
}

#define ADAPTAU_INT8_TABLE                                                                  \
  kInt8UserLimit, start_int8, stop_int8, quantize_panel, scan_int8, best_int8, select_rank, \
      select_value, order_keys
#else
#define ADAPTAU_INT8_TABLE 0, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr
#endif

}  // namespace
}  // namespace ADAPTAU_ISA
}  // namespace adaptau
