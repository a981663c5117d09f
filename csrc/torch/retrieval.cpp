// Top-k, ranks and the draw of negatives on the CPU: arguments checked, kernels called.
#include <algorithm>
#include <chrono>
#include <tuple>

#include "../core/philox.h"
#include "../cpu/byte_scan.h"
#include "../cpu/operators.h"
#include "tensors.h"

namespace adaptau {
namespace {

// Rows as the operators normalise them.
Tensor unit_rows_cpu(Tensor i) {
  const Matrix items = matrix("i", i);
  Tensor out = empty_like_compute(i, items, {items.rows, items.cols});
  auto fill = [&](auto zero) {
    using T = decltype(zero);
    const int64_t ld = padded<T>(items.cols);
    T* rows = data<T>(out);
    for_each_task(torch_threads(), (items.rows + kTile - 1) / kTile, [&](int64_t panel, int) {
      Buffer<T> unit(kTile * ld);
      const int64_t first = panel * kTile, n = std::min<int64_t>(kTile, items.rows - first);
      read_rows(items, first, n, true, active_kernels<T>(), unit.get(), ld,
                static_cast<T*>(nullptr));
      for (int64_t j = 0; j < n; ++j)
        std::copy_n(unit.get() + j * ld, items.cols, rows + (first + j) * items.cols);
    });
  };
  if (items.dtype == DType::f64) {
    fill(double{});
  } else {
    fill(float{});
  }
  return out;
}

// What the scan of bytes wants to know of a catalogue; empty where it would not be used.
std::tuple<Tensor, Tensor, Tensor> pack_items_cpu(Tensor i) {
  const Matrix items = matrix("i", i);
  const Kernels<float>& kernels = active_kernels<float>();
  const bool packs = ByteScan::possible(items, kernels);
  const int64_t panels = packs ? (items.rows + kTile - 1) / kTile : 0, ld = byte_row(items.cols);
  Tensor bytes = torch::stable::new_empty(i, {panels, kTile, ld}, ScalarType::Byte);
  Tensor meta = torch::stable::new_empty(i, {panels, 4}, ScalarType::Float);
  Tensor centre = torch::stable::new_empty(i, {packs ? ld : 0}, ScalarType::Float);
  if (packs) {
    const auto found = item_centre(items, {false, false}, kernels);
    std::copy(found.begin(), found.end(), data<float>(centre));
    pack_items(items, {false, false}, data<float>(centre), torch_threads(), data<uint8_t>(bytes),
               data<float>(meta));
  }
  return {bytes, meta, centre};
}

// The tensors of pack_items, given together or not at all.
std::optional<PackedItems> packed_items(const OptionalTensor& bytes, const OptionalTensor& meta,
                                        const OptionalTensor& centre, const Matrix& items) {
  if (!bytes && !meta && !centre) return std::nullopt;
  const int64_t panels = (items.rows + kTile - 1) / kTile, ld = byte_row(items.cols);
  auto matches = [](const OptionalTensor& t, ScalarType type, int64_t n) {
    return t && t->scalar_type() == type && t->is_contiguous() && t->numel() == n;
  };
  if (!matches(bytes, ScalarType::Byte, panels * kTile * ld) ||
      !matches(meta, ScalarType::Float, panels * 4) || !matches(centre, ScalarType::Float, ld))
    fail("item_bytes, item_meta and item_centre must be what pack_items made of i (", items.rows,
         " x ", items.cols, ")");
  return PackedItems{static_cast<const uint8_t*>(bytes->const_data_ptr()),
                     static_cast<const float*>(meta->const_data_ptr()),
                     static_cast<const float*>(centre->const_data_ptr())};
}

std::tuple<Tensor, Tensor> topk_cpu(Tensor u, Tensor i, int64_t k, OptionalTensor exclude_indptr,
                                    OptionalTensor exclude_indices, std::string normalize,
                                    OptionalTensor item_bytes, OptionalTensor item_meta,
                                    OptionalTensor item_centre) {
  const Matrix users = matrix("u", u), items = matrix("i", i);
  check_pair("u", users, "i", items);
  if (k < 1 || k > items.rows) fail("k must be in [1, n_items = ", items.rows, "], got ", k);
  const Csr excluded = csr("exclude", exclude_indptr, exclude_indices, users.rows, items.rows);
  for (int64_t b = 0; excluded.indptr != nullptr && b < users.rows; ++b) {
    const int64_t gone = excluded.indptr[b + 1] - excluded.indptr[b];
    if (items.rows - gone < k)
      fail("k = ", k, " is more than the ", items.rows - gone, " items that row ", b,
           " has left after ", gone, " exclusions; lower k to at most ", items.rows - gone);
  }
  const TopkProblem problem{users, items, excluded, parse_normalize(normalize), k};
  const auto packed = packed_items(item_bytes, item_meta, item_centre, items);
  if (packed && problem.normalize.item)
    fail("normalize must be \"user\" or \"none\" with packed items, got \"", normalize,
         "\"; normalise i before packing it");
  Tensor scores = empty_like_compute(u, users, {users.rows, k});
  Tensor ids = torch::stable::new_empty(u, {users.rows, k}, ScalarType::Long);
  if (users.dtype == DType::f64) {
    topk<double>(problem, nullptr, data<double>(scores), data<int64_t>(ids), torch_threads());
  } else {
    topk<float>(problem, packed ? &*packed : nullptr, data<float>(scores), data<int64_t>(ids),
                torch_threads());
  }
  return {scores, ids};
}

Tensor ranks_cpu(Tensor u, Tensor i, Tensor target_indptr, Tensor target_indices,
                 OptionalTensor exclude_indptr, OptionalTensor exclude_indices,
                 std::string normalize) {
  const Matrix users = matrix("u", u), items = matrix("i", i);
  check_pair("u", users, "i", items);
  const RanksProblem problem{
      users, items, csr("targets", target_indptr, target_indices, users.rows, items.rows),
      csr("exclude", exclude_indptr, exclude_indices, users.rows, items.rows),
      parse_normalize(normalize)};
  Tensor out = torch::stable::new_empty(u, {target_indices.numel()}, ScalarType::Long);
  if (users.dtype == DType::f64) {
    ranks<double>(problem, data<int64_t>(out), torch_threads());
  } else {
    ranks<float>(problem, data<int64_t>(out), torch_threads());
  }
  return out;
}

Tensor draw_negatives(int64_t n_rows, int64_t n_negatives, int64_t n_items, int64_t seed) {
  if (n_rows < 0) fail("n_rows must be >= 0, got ", n_rows);
  if (n_negatives < 0) fail("n_negatives must be >= 0, got ", n_negatives);
  if (n_items < 1 || n_items >= (int64_t{1} << 31))
    fail("n_items must be in [1, 2^31), got ", n_items);
  Tensor out = torch::stable::empty({n_rows, n_negatives}, ScalarType::Long);
  int64_t* ids = data<int64_t>(out);
  const Kernels<float>& kernels = active_kernels<float>();
  for_each_task(torch_threads(), n_rows, [&](int64_t row, int) {
    std::vector<int32_t> drawn(n_negatives);
    kernels.draw_row(static_cast<uint64_t>(seed), row, n_negatives, static_cast<uint32_t>(n_items),
                     drawn.data());
    for (int64_t n = 0; n < n_negatives; ++n) ids[row * n_negatives + n] = drawn[n];
  });
  return out;
}

// Multiply-adds a second of one thread, in GFLOP/s: the roof that benchmarks put beside their rows.
double fma_peak(double seconds) {
  using Clock = std::chrono::steady_clock;
  double flops = 0, elapsed = 0, best = 0;
  for (const auto start = Clock::now(); elapsed < seconds;) {
    const auto before = Clock::now();
    flops = active_kernels<float>().multiply_add_rate(100000);
    const auto now = Clock::now();
    best = std::max(best, flops / std::chrono::duration<double>(now - before).count());
    elapsed = std::chrono::duration<double>(now - start).count();
  }
  return best * 1e-9;
}

std::string cpu_level() { return active_kernels<float>().name; }

}  // namespace
}  // namespace adaptau

STABLE_TORCH_LIBRARY_IMPL(adaptau, CPU, m) {
  using namespace adaptau;
  m.impl("unit_rows", TORCH_BOX(&unit_rows_cpu));
  m.impl("pack_items", TORCH_BOX(&pack_items_cpu));
  m.impl("topk", TORCH_BOX(&topk_cpu));
  m.impl("ranks", TORCH_BOX(&ranks_cpu));
}

STABLE_TORCH_LIBRARY_IMPL(adaptau, CompositeExplicitAutograd, m) {
  using namespace adaptau;
  m.impl("draw_negatives", TORCH_BOX(&draw_negatives));
  m.impl("cpu_level", TORCH_BOX(&cpu_level));
  m.impl("fma_peak", TORCH_BOX(&fma_peak));
}
