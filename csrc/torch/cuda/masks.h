// The buckets of masked pairs, in tensors that live as long as they do.
#pragma once

#include "../../cuda/operators.h"
#include "device.h"
#include "sorting.h"

namespace adaptau {

class Masks {
 public:
  Masks(const char* name, const DeviceScope& device, const cuda::MaskPairs& pairs) {
    if (!pairs.any() || pairs.n_users == 0) return;
    const int64_t buckets = cuda::mask_buckets(pairs);
    if (buckets == 0) return;
    const Tensor counts = device.scratch(buckets, ScalarType::Int);
    torch::stable::zero_(const_cast<Tensor&>(counts));
    check_launches(name, cuda::count_masks(pairs, data<int32_t>(counts), device.stream()));
    offsets_ = inclusive_sums(counts);
    entries_ = device.scratch(cuda::max_mask_entries(pairs), ScalarType::Int);
    check_launches(name, cuda::fill_masks(pairs, data<int32_t>(counts), data<int32_t>(*offsets_),
                                          data<uint32_t>(*entries_), device.stream()));
    buckets_ = {data<int32_t>(*offsets_), data<uint32_t>(*entries_),
                (pairs.n_users + cuda::kMaskTile - 1) / cuda::kMaskTile,
                (pairs.n_items + cuda::kMaskTile - 1) / cuda::kMaskTile};
  }
  const cuda::MaskBuckets& buckets() const { return buckets_; }

 private:
  OptionalTensor offsets_, entries_;
  cuda::MaskBuckets buckets_;
};

}  // namespace adaptau
