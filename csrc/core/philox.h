// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy
// as 1, 2, 3" (SC 2011), and the draw of negatives built on it.
//
// A draw is a pure function of (seed, row, column): any thread, block or device computes the same
// id, and nothing has to be stored. Words come four at a time; id = high 32 bits of word * n, with
// Lemire's rejection so that every id is exactly equally likely.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace adaptau {

constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53u, kPhiloxMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxWeyl0 = 0x9E3779B9u, kPhiloxWeyl1 = 0xBB67AE85u;
constexpr int kPhiloxRounds = 10;

struct PhiloxWords {
  uint32_t word[4];
};

ADAPTAU_HOST_DEVICE inline PhiloxWords philox(uint64_t seed, PhiloxWords counter) {
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  uint32_t c0 = counter.word[0], c1 = counter.word[1], c2 = counter.word[2], c3 = counter.word[3];
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(kPhiloxMultiplier0) * c0;
    const uint64_t p1 = static_cast<uint64_t>(kPhiloxMultiplier1) * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ key0;
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ key1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    key0 += kPhiloxWeyl0;
    key1 += kPhiloxWeyl1;
  }
  return {{c0, c1, c2, c3}};
}

// Counter words: [column / 4, row low, row high, attempt].
ADAPTAU_HOST_DEVICE inline PhiloxWords draw_words(uint64_t seed, int64_t row, uint32_t block,
                                                  uint32_t attempt) {
  return philox(seed,
                {{block, static_cast<uint32_t>(row), static_cast<uint32_t>(row >> 32), attempt}});
}

// Words whose low product falls below this would favour some ids; they are drawn again.
ADAPTAU_HOST_DEVICE inline uint32_t rejection_threshold(uint32_t n) { return (0u - n) % n; }

// The id drawn at (row, column), 0 <= id < n; `word` is that column's word of attempt 0.
ADAPTAU_HOST_DEVICE inline uint32_t draw_from_word(uint64_t seed, int64_t row, uint32_t column,
                                                   uint32_t n, uint32_t word) {
  uint64_t product = static_cast<uint64_t>(word) * n;
  if (static_cast<uint32_t>(product) < n) {
    const uint32_t threshold = rejection_threshold(n);
    for (uint32_t attempt = 1; static_cast<uint32_t>(product) < threshold; ++attempt)
      product =
          static_cast<uint64_t>(draw_words(seed, row, column / 4, attempt).word[column % 4]) * n;
  }
  return static_cast<uint32_t>(product >> 32);
}

ADAPTAU_HOST_DEVICE inline uint32_t draw(uint64_t seed, int64_t row, uint32_t column, uint32_t n) {
  return draw_from_word(seed, row, column, n,
                        draw_words(seed, row, column / 4, 0).word[column % 4]);
}

// Dropout: element (row, column) is dropped where its sixteen bits of the draw are below the
// probability, in steps of 2^-16. A block serves eight columns, the low half of a word the first of
// two.
constexpr int64_t kDropoutColumns = 8;

ADAPTAU_HOST_DEVICE inline uint32_t dropout_bits(const PhiloxWords& words, uint32_t column) {
  return words.word[column / 2 % 4] >> column % 2 * 16 & 0xffffu;
}

}  // namespace adaptau
