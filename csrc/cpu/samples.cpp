#include "samples.h"

namespace adaptau {
namespace {

constexpr int64_t kBucketBytes = 512 * 1024;  // of item rows: half a second-level cache
constexpr int64_t kMaxStarts = 4 << 20;       // bounds the table of places at 16 MiB
constexpr int64_t kBlockSamples = 64 * 1024;

}  // namespace

SortedSamples::SortedSamples(int64_t n_rows, int64_t n_negatives, int64_t n_items,
                             int64_t row_bytes)
    : n_rows_(n_rows), n_negatives_(n_negatives), n_items_(n_items) {
  shift_ = 5;
  while (shift_ < 16 &&
         (kBucketBytes >= row_bytes << (shift_ + 1) || (n_items_ >> shift_) * n_rows_ > kMaxStarts))
    ++shift_;
  n_buckets_ = (n_items_ + bucket_items() - 1) >> shift_;
  block_rows_ = std::clamp<int64_t>(kBlockSamples / std::max<int64_t>(n_negatives, 1), 1, 64);
  starts_ = Buffer<uint32_t>(n_buckets_ * n_rows_ + 1);
  local_ = Buffer<uint16_t>(n_rows_ * n_negatives_);
}

void SortedSamples::sort(const Parallel& parallel, Draw draw, const void* context) {
  starts_[0] = 0;
  for_each_task(parallel, n_blocks(), [&](int64_t block, int) {
    Buffer<int32_t> ids(rows_in(block) * n_negatives_);
    sort_block(block, draw, context, ids.get());
  });
}

// Counting sort. The slot after a cell's own holds first its count, then the place of its next
// sample, and in the end, where the cell ends, its successor's start.
void SortedSamples::sort_block(int64_t block, Draw draw, const void* context, int32_t* ids) {
  // Copies: the compiler has to assume that counting changes the members.
  const int64_t rows = rows_in(block), cells = rows * n_buckets_, N = n_negatives_;
  const int shift = shift_;
  const uint32_t mask = static_cast<uint32_t>(bucket_items() - 1);
  uint16_t* local = local_.get();
  uint32_t* next = starts_.get() + first_row(block) * n_buckets_ + 1;
  std::fill_n(next, cells, 0u);
  // Two rows at a time: neighbouring steps then wait less for the same counter.
  const auto for_each_pair = [&](auto&& f) {
    for (int64_t r = 0; r < rows; r += 2) {
      const int32_t *a = ids + r * N, *b = a + N;
      const bool pair = r + 1 < rows;
      for (int64_t n = 0; n < N; ++n) {
        f(a[n], next + r + (a[n] >> shift) * rows);
        if (pair) f(b[n], next + r + 1 + (b[n] >> shift) * rows);
      }
    }
  };
  for (int64_t r = 0; r < rows; ++r) {
    draw(context, first_row(block) + r, ids + r * N);
    // Placing writes all over the block: its lines are fetched meanwhile.
    for (int64_t n = 0; n < N; n += 32)
      __builtin_prefetch(local + (first_row(block) + r) * N + n, 1);
  }
  for_each_pair([](int32_t, uint32_t* count) { ++*count; });
  uint32_t total = static_cast<uint32_t>(first_row(block) * N);
  for (int64_t cell = 0; cell < cells; ++cell) {
    const uint32_t count = next[cell];
    next[cell] = total;
    total += count;
  }
  for_each_pair([=](int32_t id, uint32_t* place) {
    local[(*place)++] = static_cast<uint16_t>(static_cast<uint32_t>(id) & mask);
  });
}

}  // namespace adaptau
