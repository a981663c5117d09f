// Scans of bytes at one instruction set, against plain loops in double: what quantisation promises
// holds, every pair that reaches a bound is among the hits, and bounds are not generous.
//
// The scores are the chains of dot(), since those are what must not be missed. Random rows leave
// the bound far from its edge; Edge makes rows that sit on it.
#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>

#include "check.h"
#include "cpu/quantized.h"

using namespace adaptau;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr double kRoundoff = 5.9604644775390625e-8;  // 2^-24
using Rows = std::vector<std::vector<float>>;

Rows random_rows(int64_t n, int64_t d, unsigned seed, double scale = 1, double mean = 0) {
  const auto x = random_values<float>(n * d, seed, scale);
  Rows rows(n, std::vector<float>(d));
  for (int64_t i = 0; i < n * d; ++i) rows[i / d][i % d] = static_cast<float>(x[i] + mean);
  return rows;
}

// A group of users and a panel of items, brought into bytes.
struct Bytes {
  Bytes(Rows users, Rows items, std::vector<float> centre)
      : kernels(active_kernels<float>()),
        users(std::move(users)),
        items(std::move(items)),
        d(static_cast<int64_t>(centre.size())),
        ld(byte_row(d)),
        lanes(active_lanes<float>(static_cast<int64_t>(this->users.size()))),
        centre(ld, 0.f),
        user_rows(padded_rows(this->users)),
        item_rows(padded_rows(this->items)),
        bytes(kTile * ld) {
    std::copy(centre.begin(), centre.end(), this->centre.get());
    quantized =
        std::make_unique<QuantizedUsers>(this->users.size(), d, ld, user_rows.get(),
                                         this->centre.get(), kernels.int8_user_limit, Parallel{});
    kernels.quantize_panel(this->items.size(), ld, ld, item_rows.get(), this->centre.get(),
                           bytes.get(), meta);
  }
  int64_t scan(int64_t n, const float* bound, Int8Hits& hits) const {
    const Int8Scope scope(kernels, d);
    return kernels.scan_int8(n, lanes, ld / 4, panel(), group(), bound, hits);
  }
  Int8Panel panel() const { return as_panel(bytes.get(), meta); }
  Int8Users group() const { return quantized->group(0); }

  int byte_of_user(int64_t l, int64_t k) const {
    return group().bytes[(k / 4 * kTile + l) * 4 + k % 4];
  }
  int byte_of_item(int64_t j, int64_t k) const { return bytes[j * ld + k] - 128; }
  // What the kernel's integers say, and at most how far a score is from it.
  double from_bytes(int64_t j, int64_t l) const {
    int64_t sum = 0;
    for (int64_t k = 0; k < ld; ++k) sum += int64_t{byte_of_user(l, k)} * byte_of_item(j, k);
    return static_cast<double>(group().scale[l]) * meta[0] * static_cast<double>(sum);
  }
  double error(int64_t l) const {
    return static_cast<double>(group().norm[l]) * meta[1] +
           static_cast<double>(group().residual[l]) * meta[2] +
           static_cast<double>(group().slack[l]) * meta[3] + 1e-36;
  }
  float score(int64_t j, int64_t l) const {
    return kernels.dot(d, items[j].data(), users[l].data());
  }
  double centred_score(int64_t j, int64_t l) const { return score(j, l) - quantized->lift(l); }

  const Kernels<float>& kernels;
  const Rows users, items;
  const int64_t d, ld, lanes;
  Buffer<float> centre, user_rows, item_rows;
  Buffer<uint8_t> bytes;
  float meta[4];
  std::unique_ptr<QuantizedUsers> quantized;

 private:
  Buffer<float> padded_rows(const Rows& rows) const {
    Buffer<float> out(kTile * ld, 0.f);
    for (size_t r = 0; r < rows.size(); ++r)
      std::copy(rows[r].begin(), rows[r].end(), out.get() + r * ld);
    return out;
  }
};

double norm(int64_t d, const std::function<double(int64_t)>& x) {
  double square = 0;
  for (int64_t k = 0; k < d; ++k) square += x(k) * x(k);
  return std::sqrt(square);
}

// quantize_panel and QuantizedUsers keep their promises, and within a little (rows in a safe
// range).
void promises(const Bytes& c) {
  const int64_t n = static_cast<int64_t>(c.items.size());
  double residual = 0, centred_norm = 0, length = 0, top = 0;
  for (int64_t j = 0; j < n; ++j) {
    const auto centred = [&](int64_t k) {
      return static_cast<double>(c.items[j][k] - c.centre[k]);  // rounded to float
    };
    for (int64_t k = 0; k < c.d; ++k) {
      const int q = c.byte_of_item(j, k);
      top = std::max(top, std::abs(centred(k)));
      CHECK(std::abs(q) <= 127);
      CHECK_NEAR(double{c.meta[0]} * q, centred(k), 0.5001 * c.meta[0]);
    }
    residual = std::max(residual, norm(c.d, [&](int64_t k) {
                          return centred(k) - double{c.meta[0]} * c.byte_of_item(j, k);
                        }));
    centred_norm = std::max(centred_norm, norm(c.d, centred));
    length = std::max(length, norm(c.d, [&](int64_t k) { return double{c.items[j][k]}; }));
  }
  for (int64_t i = n * c.ld; i < kTile * c.ld; ++i) CHECK(c.bytes[i] == 128);
  const double loose = 1 + 4e-7 * static_cast<double>(c.ld + 64);
  if (top > 0) CHECK_NEAR(c.meta[0], top / 127, 1e-6 * top);
  CHECK(c.meta[1] >= residual && c.meta[1] <= residual * loose + 4e-7 * centred_norm);
  CHECK(c.meta[2] >= centred_norm && c.meta[2] <= centred_norm * loose);
  CHECK(c.meta[3] >= length && c.meta[3] <= length * loose);

  const Int8Users group = c.group();
  for (size_t l = 0; l < c.users.size(); ++l) {
    const auto u = [&](int64_t k) { return double{c.users[l][k]}; };
    const auto rounded = [&](int64_t k) {
      return static_cast<double>(group.scale[l]) * c.byte_of_user(l, k);
    };
    const double size = norm(c.d, u);
    const double off = norm(c.d, [&](int64_t k) { return u(k) - rounded(k); });
    const double chain = static_cast<double>(c.d) * kRoundoff;
    int32_t sum = 0;
    for (int64_t k = 0; k < c.d; ++k) {
      CHECK(std::abs(c.byte_of_user(l, k)) <= c.kernels.int8_user_limit);
      sum += c.byte_of_user(l, k);
    }
    CHECK(group.offset[l] == 128 * sum);
    CHECK(group.norm[l] >= norm(c.d, rounded));
    CHECK(group.residual[l] >= off + kRoundoff * size);
    CHECK(group.residual[l] <= 1.0001 * off + 3 * kRoundoff * size);
    CHECK(group.slack[l] >= chain / (1 - chain) * size);
    CHECK(group.slack[l] <= 1.03 * (chain + 16 * kRoundoff) * size);
  }
}

// The hits for these bounds: all that reach them, ascending in a lane, and, where rows are usable,
// no other than the error allows. Returns how many of those there are.
int64_t hits_are_right(const Bytes& c, const std::vector<float>& bound, bool usable) {
  const int64_t n = static_cast<int64_t>(c.items.size());
  Int8Hits hits;
  const int64_t n_hits = c.scan(n, bound.data(), hits);
  std::vector<int64_t> last(kTile, -1);
  std::vector<bool> found(kTile * kTile, false);
  for (int64_t h = 0; h < n_hits; ++h) {
    const int64_t hit = hits.position[h], j = hit / kTile, l = hit % kTile;
    CHECK(j < n && l < c.lanes && j > last[l]);
    last[l] = j;
    found[hit] = true;
    // scale * sum is within the error, with what byte_scan.cpp adds for its own roundings
    const double score = c.centred_score(j, l),
                 about = static_cast<double>(hits.scale[l]) * hits.sum[h];
    const double error = hits.error[l] + std::abs(about) * kInt8Roundings;
    CHECK(!usable || std::isnan(hits.scale[l]) || !(std::abs(score - about) > error));
  }
  int64_t beside = 0;
  for (int64_t l = 0; l < c.lanes; ++l)
    for (int64_t j = 0; j < n; ++j) {
      if (bound[l] == kInf) {  // switched off, like lanes without a user
        CHECK(!found[j * kTile + l]);
      } else if (c.centred_score(j, l) >= bound[l]) {
        CHECK(found[j * kTile + l]);
      } else if (found[j * kTile + l] && usable) {
        ++beside;
        // a sum is at most the lowered bound's; two units are rounding
        const double unit = static_cast<double>(c.group().scale[l]) * c.meta[0];
        const double q = (bound[l] - c.error(l)) / unit;
        CHECK(!(c.from_bytes(j, l) < unit * (q - 3 - 2e-6 * std::abs(q))));
      }
    }
  return beside;
}

// Bounds on scores of the pairs themselves, a little above and a little below.
int64_t scan(const Bytes& c, bool usable = true) {
  int64_t beside = 0;
  const int64_t n = static_cast<int64_t>(c.items.size());
  for (int64_t turn = 0; turn < 9; ++turn) {
    std::vector<float> bound(kTile, kInf);
    for (int64_t l = 0; l < static_cast<int64_t>(c.users.size()); ++l) {
      const double s = c.centred_score((l + turn * 5) % n, l);
      float b = static_cast<float>(s);
      if (b > s) b = std::nextafter(b, -kInf);  // rounded down, as topk does
      bound[l] = turn % 3 == 0 ? b : std::nextafter(b, turn % 3 == 1 ? kInf : -kInf);
    }
    beside += hits_are_right(c, bound, usable);
  }
  return beside;
}

// Lower bounds of the largest centred score in every group of so many items.
void best_of(const Bytes& c, int64_t size) {
  const int64_t n = static_cast<int64_t>(c.items.size()), groups = (n + size - 1) / size;
  Buffer<float> out(kTile / size * kTile, -1.f);
  const Int8Scope scope(c.kernels, c.d);
  c.kernels.best_int8(n, c.lanes, c.ld / 4, size, c.panel(), c.group(), out.get());
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t l = 0; l < static_cast<int64_t>(c.users.size()); ++l) {
      double score = -std::numeric_limits<double>::infinity(), from_bytes = score;
      for (int64_t j = g * size; j < std::min(n, (g + 1) * size); ++j) {
        const double s = c.centred_score(j, l);
        score = s >= score ? s : score;  // NaN reaches no bound
        from_bytes = std::max(from_bytes, c.from_bytes(j, l));
      }
      const float low = out[g * kTile + l];
      CHECK(low <= score);
      const double expected = from_bytes - c.error(l) - 2e-6 * std::abs(from_bytes);
      CHECK(!std::isfinite(low) || low >= expected - 1e-5 * c.error(l));
    }
  for (int64_t i = groups * kTile; i < kTile / size * kTile; ++i) CHECK(out[i] == -1);
}
void best(const Bytes& c) {
  best_of(c, 8);
  best_of(c, kTile);
}

void ordinary_rows() {
  for (int64_t d : {1, 3, 16, 17, 64, 100, 257, 1000})
    for (int64_t n : {1, 7, 12, 48})
      for (int64_t n_users : {1, 16, 17, 48})
        for (double mean : {0.0, 30.0}) {
          const unsigned seed = static_cast<unsigned>(d * n + n_users);
          const Bytes c(random_rows(n_users, d, seed), random_rows(n, d, seed + 1, 1, mean),
                        std::vector<float>(d, static_cast<float>(mean)));
          promises(c);
          const int64_t beside = scan(c);
          if (d >= 16 && d <= 100 && n * n_users > 100) CHECK(beside <= 9 * n * n_users / 5);
          best(c);
        }
  // a centre that is none
  const Bytes far(random_rows(48, 33, 1), random_rows(48, 33, 2), std::vector<float>(33, 1e4f));
  promises(far);
  scan(far);
  best(far);
}

// Negative scores, so that the zero rows beyond the panel's items would beat them.
void missing_rows_do_not_count() {
  for (int64_t n : {1, 5, 9, 44}) {
    Rows users = random_rows(48, 20, 5), items = random_rows(n, 20, 6);
    for (auto& row : users)
      for (float& x : row) x = std::abs(x) + 1;
    for (auto& row : items)
      for (float& x : row) x = -std::abs(x) - 1;
    const Bytes c(users, items, std::vector<float>(20, 0.f));
    scan(c);
    best(c);
  }
}

// Rows for which one part of the error bound is all there is, and nearly attained.
namespace edge {

// Whole numbers with the largest at the limit: bytes are exact, and so are scores.
Bytes exact(int64_t d, int limit) {
  Rows users(48, std::vector<float>(d)), items = users;
  for (int64_t r = 0; r < 48; ++r)
    for (int64_t k = 0; k < d; ++k) {
      users[r][k] = static_cast<float>(k == 0 ? limit : (r * 31 + k * 17) % (2 * limit) - limit);
      items[r][k] = static_cast<float>(k == d - 1 ? -127 : (r * 57 + k * 101) % 254 - 127);
    }
  return Bytes(users, items, std::vector<float>(d, 0.f));
}

// Entries that lie `off` of a unit away from whole ones, all on the side that raises the score.
std::vector<float> rounded_off(int64_t d, int limit, float off, int64_t seed) {
  std::vector<float> x(d);
  for (int64_t k = 0; k < d; ++k)
    x[k] = k == 0 ? static_cast<float>(limit) : static_cast<float>(1 + (k + seed) % 5) + off;
  return x;
}
Bytes residual_of_items(int64_t d, int limit, float off) {
  Rows users(48, std::vector<float>(d, static_cast<float>(limit))), items;
  for (int64_t r = 0; r < 48; ++r) items.push_back(rounded_off(d, 127, off, r));
  return Bytes(users, items, std::vector<float>(d, 0.f));
}
Bytes residual_of_users(int64_t d, int limit, float off) {
  Rows users, items;
  for (int64_t r = 0; r < 48; ++r) {
    users.push_back(rounded_off(d, limit, off, r));
    items.emplace_back(d, 127.f);
  }
  return Bytes(users, items, std::vector<float>(d, 0.f));
}

// u = 1 and x near 1, such that every addition of the chain is rounded by nearly half an ulp in one
// direction; the centre is that row, so that the bytes are zeros and only the slack is left.
Bytes rounding_of_scores(int64_t d, float direction) {
  std::vector<float> row(d, 1.f);
  float sum = 1;
  for (int64_t k = 1; k < d; ++k) {
    const float ulp = std::nextafter(sum, kInf) - sum, grain = 0x1p-23f;
    row[k] = ulp > 2 * grain ? 1 + ulp / 2 + direction * grain : 1.f;
    sum += row[k];
  }
  Rows items(48, row);
  for (int64_t r = 1; r < 48; ++r) items[r][r % d] += 0x1p-20f;  // a fine scale for the panel
  return Bytes(Rows(48, std::vector<float>(d, 1.f)), items, row);
}

void all() {
  const int limit = active_kernels<float>().int8_user_limit;
  for (int64_t d : {16, 64, 100}) {
    const Bytes c = exact(d, limit);
    CHECK(c.meta[0] == 1 && c.group().scale[0] == 1);
    promises(c);
    CHECK(scan(c) <= 9 * 48 * 4);  // only what lies two units or so below
    best(c);
  }
  for (int64_t d : {64, 1000})
    for (float off : {0.49f, -0.49f})
      for (auto make : {residual_of_items, residual_of_users}) {
        const Bytes c = make(d, limit, off);
        promises(c);
        scan(c);
        best(c);
      }
  for (int64_t d : {257, 1000, 4096})
    for (float direction : {1.f, -1.f}) {
      const Bytes c = rounding_of_scores(d, direction);
      promises(c);
      scan(c);
      best(c);
    }
}

}  // namespace edge

// Rows about which nothing can be said: everything passes, except where the bound is +inf.
void unusable_rows() {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (float bad : {nan, -nan, kInf, -kInf, 1e30f, 3e38f})
    for (int64_t at : {0, 5, 47})
      for (int64_t entries : {1, 3, 17}) {
        Rows items = random_rows(48, 17, 7);
        std::fill_n(items[at].begin(), entries, bad);
        const Bytes c(random_rows(48, 17, 8), items, std::vector<float>(17, 0.25f));
        for (float x : {-1e30f, 0.f, 1e30f}) {
          Int8Hits hits;
          std::vector<float> bound(kTile, x);
          bound[3] = kInf;
          CHECK(c.scan(48, bound.data(), hits) == 47 * 48);
        }
        best(c);
      }
  Rows users = random_rows(48, 17, 8);
  users[4][3] = nan, users[5][16] = kInf, users[6][0] = -kInf;
  const Bytes c(users, random_rows(48, 17, 7), std::vector<float>(17, 0.25f));
  Int8Hits hits;
  std::vector<float> bound(kTile, kInf);
  bound[4] = bound[5] = bound[6] = 1e30f;
  CHECK(c.scan(48, bound.data(), hits) == 3 * 48);
  best(c);
}

// Far from 1: nothing is missed where squares vanish, products overflow or chains pass FLT_MAX.
void extreme_norms() {
  for (double user : {1e-45, 1e-40, 1e-22, 1e-12, 1.0, 1e15, 1e20, 1e30, 1e38})
    for (double item : {1e-45, 1e-40, 1e-24, 1e-20, 1e-11, 1.0, 1e9, 1e18, 1e25, 1e38})
      for (double centre : {0.0, 1.0, 1e6}) {
        const Bytes c(random_rows(16, 5, 9, user / 8),
                      random_rows(24, 5, 10, item / 8, centre * item / 64),
                      std::vector<float>(5, static_cast<float>(centre * item / 64)));
        scan(c, false);
        best(c);
      }
  // a centre so far away that centred scores overflow though scores do not
  for (float far : {8e18f, -8e18f}) {
    const Bytes c(random_rows(16, 5, 9, 1e21), random_rows(24, 5, 10, 1e12),
                  std::vector<float>(5, far));
    scan(c, false);
    best(c);
  }
  // a chain that is infinite after its first step, about a third of them, and a product that is not
  const float largest = std::numeric_limits<float>::max() / 3e20f;
  Rows items = random_rows(48, 3, 11, 1);
  for (auto& row : items)
    for (int k = 0; k < 3; ++k)
      row[k] = (k < 2 ? largest : 0.f) + (k == 1 ? 0.f : 2e13f * std::tanh(row[k]));
  for (float sign : {1.f, -1.f}) {
    const Bytes c(Rows(16, {sign * 3e20f, sign * -3e20f, 3e20f}), items, {largest, largest, 0.f});
    scan(c, false);
    best(c);
  }
}

void one_column(const Kernels<float>& kernels, int64_t n, int64_t rank, const float* column,
                const std::vector<float>& sorted) {
  std::vector<float> x(n + 16, -kInf);
  for (int64_t c = 0; c < n; ++c) x[c] = column[c * kTile];
  const float value = kernels.select_value(n, rank, x.data());
  const int64_t reach = std::count_if(x.begin(), x.end(), [&](float v) { return v >= value; });
  if (rank > n || sorted[rank - 1] == -kInf) {
    CHECK(value == -kInf);
    return;
  }
  CHECK(reach >= rank && value <= sorted[rank - 1]);
  float smallest = sorted[0];
  for (float v : sorted)
    if (v > -kInf) smallest = v;
  // it may stop early, below the rank-th but above the next one
  CHECK(reach == rank ||
        value >= sorted[rank - 1] - 1e-5 * (static_cast<double>(sorted[0]) - smallest));
}

// As many keys are larger as std::sort puts before, whatever lies around the sign bit.
void places_of_keys() {
  const Kernels<float>& kernels = active_kernels<float>();
  for (int64_t n : {0, 1, 7, 8, 9, 85, 256}) {
    std::vector<uint64_t> keys(n + 8, 0), sorted;
    for (int64_t c = 0; c < n; ++c) keys[c] = static_cast<uint64_t>(c + 1) * 0x9E3779B97F4A7C15ull;
    std::vector<int32_t> place(n);
    kernels.order_keys(n, keys.data(), place.data());
    sorted.assign(keys.begin(), keys.begin() + n);
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    for (int64_t c = 0; c < n; ++c) CHECK(sorted[place[c]] == keys[c]);
  }
}

void ranks_of_maxima() {
  const Kernels<float>& kernels = active_kernels<float>();
  for (int64_t n : {1, 6, 48, 300})
    for (int kind = 0; kind < 6; ++kind) {
      Buffer<float> column(n * kTile);
      const auto x = random_values<float>(n * kTile, 12 + kind, kind == 1 ? 1e38 : 1);
      for (int64_t i = 0; i < n * kTile; ++i) {
        column[i] = kind == 2 ? std::round(2 * x[i]) : kind == 3 ? 0.75f : x[i];
        if (kind == 4 && i / kTile % 3 == 0) column[i] = -kInf;
        if (kind == 5) column[i] = -kInf;
      }
      for (int32_t first : {1, 5, 290}) {
        int32_t rank[kTile];
        float out[kTile];
        for (int l = 0; l < kTile; ++l) rank[l] = l == 7 ? 1 << 30 : first + l % 16;
        std::fill_n(out, kTile, kInf);
        kernels.select_rank(n, kTile, column.get(), rank, out);
        for (int l = 0; l < kTile; ++l) {
          std::vector<float> sorted;
          for (int64_t g = 0; g < n; ++g) sorted.push_back(column[g * kTile + l]);
          std::sort(sorted.begin(), sorted.end(), std::greater<float>());
          const float exact = rank[l] <= n ? sorted[rank[l] - 1] : -kInf;
          CHECK(out[l] <= exact);
          if (l % 16 == 0) one_column(kernels, n, rank[l], column.get() + l, sorted);
          float smallest = sorted[0];
          for (float value : sorted)
            if (value > -kInf) smallest = value;
          if (exact > -kInf)
            CHECK_NEAR(out[l], exact, 1e-5 * (static_cast<double>(sorted[0]) - smallest));
        }
      }
    }
}

}  // namespace

int main(int, char** argv) {
  try {
    CHECK(active_kernels<float>().name == std::string(argv[1]));
  } catch (const std::runtime_error& missing) {
    std::printf("skipped: %s\n", missing.what());
    return 77;
  }
  if (active_kernels<float>().scan_int8 == nullptr) {
    std::printf("skipped: no scans of bytes\n");
    return 77;
  }
  ordinary_rows();
  missing_rows_do_not_count();
  edge::all();
  unusable_rows();
  extreme_norms();
  ranks_of_maxima();
  places_of_keys();
  return report();
}
