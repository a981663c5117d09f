// Users and items as bytes, with what the loss of precision can do at most (kernels.h,
// docs/topk.md).
#pragma once

#include <vector>

#include "../core/parallel.h"
#include "rows.h"

namespace adaptau {

// A catalogue that was quantised beforehand, panel after panel. Pointers are borrowed.
struct PackedItems {
  const uint8_t* bytes = nullptr;  // [panels][48][bytes a row]
  const float* meta = nullptr;     // [panels][4] scale, residual, centred norm, norm
  const float* centre = nullptr;   // [bytes a row]
};

// Bytes a row takes: whole registers of four, and whole tiles of 64 where one is not enough.
inline int64_t byte_row(int64_t d) { return d <= 64 ? padded<float>(d) : (d + 63) / 64 * 64; }

// A thread may scan rows of d elements while this lives.
class Int8Scope {
 public:
  Int8Scope(const Kernels<float>& kernels, int64_t d) : kernels_(kernels) {
    kernels.start_int8(byte_row(d) / 4);
  }
  ~Int8Scope() { kernels_.stop_int8(); }
  Int8Scope(const Int8Scope&) = delete;
  Int8Scope& operator=(const Int8Scope&) = delete;

 private:
  const Kernels<float>& kernels_;
};

// A centre for the items: the mean of a spread of rows. Any vector is right; a good one makes the
// bytes finer where all items share a direction.
std::vector<float> item_centre(const Matrix& items, Normalize normalize,
                               const Kernels<float>& kernels);

// Quantises panel `panel` of the catalogue: bytes [48][padded d], meta [4]; rows [48, padded d] is
// scratch for what cannot be read in place.
void pack_panel(const Matrix& items, Normalize normalize, const float* centre, int64_t panel,
                const Kernels<float>& kernels, float* rows, uint8_t* bytes, float* meta);
// All of them: bytes [panels][48][padded d], meta [panels][4].
void pack_items(const Matrix& items, Normalize normalize, const float* centre,
                const Parallel& parallel, uint8_t* bytes, float* meta);

// All users of a scan, by groups of 48.
class QuantizedUsers {
 public:
  // limit: Kernels::int8_user_limit. rows: [groups * 48, ld], valid where lane < rows_in(group).
  QuantizedUsers(int64_t n_users, int64_t d, int64_t ld, const float* rows, const float* centre,
                 int limit, const Parallel& parallel);
  Int8Users group(int64_t g) const {
    const int64_t at = g * kTile;
    return {bytes_.get() + at * byte_row(d_),
            offset_.get() + at,
            scale_.get() + at,
            norm_.get() + at,
            residual_.get() + at,
            slack_.get() + at};
  }
  // <u, centre>: what a score is above its centred score.
  double lift(int64_t user) const { return lift_[user]; }

 private:
  int64_t d_;
  Buffer<int8_t> bytes_;
  Buffer<int32_t> offset_;
  Buffer<float> scale_, norm_, residual_, slack_;
  Buffer<double> lift_;
};

inline Int8Panel as_panel(const uint8_t* bytes, const float* meta) {
  return {bytes, meta[0], meta[1], meta[2], meta[3]};
}

}  // namespace adaptau
