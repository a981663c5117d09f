// The samples of the sampled loss, sorted by bucket of items: two bytes each, ids are not stored.
//
// Rows are sorted a block at a time, so that a block's ids are drawn once, into a buffer that stays
// in cache. Within a block, samples are ordered by bucket, then row, then column:
//   starts [block][bucket][row of the block], local [block][bucket][row][samples]
#pragma once

#include <algorithm>
#include <cstdint>

#include "../core/parallel.h"
#include "kernels.h"
#include "scratch.h"

namespace adaptau {

class SortedSamples {
 public:
  // Row b's ids into ids[n_negatives].
  using Draw = void (*)(const void* context, int64_t b, int32_t* ids);

  SortedSamples(int64_t n_rows, int64_t n_negatives, int64_t n_items, int64_t row_bytes);

  void sort(const Parallel& parallel, Draw draw, const void* context);

  int64_t n_buckets() const { return n_buckets_; }
  int64_t bucket_items() const { return int64_t{1} << shift_; }
  int64_t first_item(int64_t bucket) const { return bucket << shift_; }
  int64_t items_in(int64_t bucket) const {
    return std::min(bucket_items(), n_items_ - first_item(bucket));
  }

  int64_t n_blocks() const { return (n_rows_ + block_rows_ - 1) / block_rows_; }
  int64_t block_rows() const { return block_rows_; }
  int64_t first_row(int64_t block) const { return block * block_rows_; }
  int64_t rows_in(int64_t block) const { return std::min(block_rows_, n_rows_ - first_row(block)); }

  // starts[r] .. starts[r + 1] are the places of the samples of the block's row r in the bucket.
  const uint32_t* starts(int64_t block, int64_t bucket) const {
    return starts_.get() + first_row(block) * n_buckets_ + bucket * rows_in(block);
  }
  const uint16_t* local() const { return local_.get(); }  // item within its bucket

  // rows: of the bucket's items, or nullptr where they are not read
  template <class T>
  BucketSamples<T> in_bucket(int64_t block, int64_t bucket, const T* rows, int64_t ld) const {
    return {rows_in(block), starts(block, bucket), local(), rows, ld};
  }

  // f(first block, last block), a task each: long runs of rows keep a bucket in cache, enough runs
  // keep the threads busy.
  template <class F>
  void for_each_run(const Parallel& parallel, F&& f) const {
    const int64_t blocks = n_blocks(), run = (blocks + parallel.workers - 1) / parallel.workers;
    if (blocks == 0) return;
    for_each_task(parallel, (blocks + run - 1) / run,
                  [&](int64_t task, int) { f(task * run, std::min(task * run + run, blocks)); });
  }

  // f(n, place) for every sample of row b in the order of its ids, which are walked as they were
  // when they were placed; next[n_buckets]: scratch.
  template <class F>
  void for_each_listed(int64_t b, const int64_t* ids, uint32_t* next, F&& f) const {
    const int64_t block = b / block_rows_, r = b - first_row(block);
    for (int64_t bucket = 0; bucket < n_buckets_; ++bucket) next[bucket] = starts(block, bucket)[r];
    for (int64_t n = 0; n < n_negatives_; ++n) f(n, next[ids[n] >> shift_]++);
  }

  // f(place, item) for every sample of row b, bucket after bucket.
  template <class F>
  void for_each_of_row(int64_t b, F&& f) const {
    const int64_t block = b / block_rows_;
    for (int64_t bucket = 0; bucket < n_buckets_; ++bucket) {
      const uint32_t* start = starts(block, bucket) + (b - first_row(block));
      for (uint32_t p = start[0]; p < start[1]; ++p) f(p, first_item(bucket) + local_[p]);
    }
  }

  // f(item within the bucket) for every sample of the bucket.
  template <class F>
  void for_each_use(int64_t bucket, F&& f) const {
    for (int64_t block = 0; block < n_blocks(); ++block) {
      const uint32_t* start = starts(block, bucket);
      for (uint32_t p = start[0], end = start[rows_in(block)]; p < end; ++p) f(local_[p]);
    }
  }

  // f(row, place, item within the bucket) for every sample of the bucket, row after row.
  template <class F>
  void for_each_of_bucket(int64_t bucket, F&& f) const {
    for (int64_t block = 0; block < n_blocks(); ++block) {
      const uint32_t* start = starts(block, bucket);
      for (int64_t r = 0; r < rows_in(block); ++r)
        for (uint32_t p = start[r]; p < start[r + 1]; ++p) f(first_row(block) + r, p, local_[p]);
    }
  }

 private:
  void sort_block(int64_t block, Draw draw, const void* context, int32_t* ids);

  int64_t n_rows_, n_negatives_, n_items_, n_buckets_, block_rows_;
  int shift_;  // items a bucket = 2^shift
  Buffer<uint32_t> starts_;
  Buffer<uint16_t> local_;
};

}  // namespace adaptau
