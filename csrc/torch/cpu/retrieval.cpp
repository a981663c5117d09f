// Top-k, ranks and what prepares a catalogue, on the CPU.
#include <algorithm>
#include <chrono>
#include <tuple>

#include "../../cpu/byte_scan.h"
#include "../../cpu/operators.h"
#include "../retrieval.h"

namespace adaptau {
namespace {

// Rows as the operators normalise them.
Tensor unit_rows_cpu(Tensor i) {
  const Matrix items = Arguments(i).matrix("i", i);
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

// What the scan of bytes wants to know of a catalogue; empty where it would not be used. With the
// centre of another call, parts of a catalogue that are whole panels are parts of its bytes.
std::tuple<Tensor, Tensor, Tensor> pack_items_cpu(Tensor i, OptionalTensor given) {
  const Matrix items = Arguments(i).matrix("i", i);
  const Kernels<float>& kernels = active_kernels<float>();
  const bool packs = ByteScan::possible(items, kernels);
  const int64_t panels = packs ? (items.rows + kTile - 1) / kTile : 0, ld = byte_row(items.cols);
  Tensor bytes = torch::stable::new_empty(i, {panels, kTile, ld}, ScalarType::Byte);
  Tensor meta = torch::stable::new_empty(i, {panels, 4}, ScalarType::Float);
  Tensor centre = torch::stable::new_empty(i, {packs ? ld : 0}, ScalarType::Float);
  if (packs) {
    if (given) {
      if (given->scalar_type() != ScalarType::Float || !given->is_contiguous() ||
          given->numel() != ld)
        fail("centre must be what pack_items made of other rows of ", items.cols, " columns");
      std::copy_n(static_cast<const float*>(given->const_data_ptr()), ld, data<float>(centre));
    } else {
      const auto found = item_centre(items, {false, false}, kernels);
      std::copy(found.begin(), found.end(), data<float>(centre));
    }
    pack_items(items, {false, false}, data<float>(centre), torch_threads(), data<uint8_t>(bytes),
               data<float>(meta));
  }
  return {bytes, meta, centre};
}

// The tensors of pack_items, given together or not at all.
std::optional<PackedItems> packed_items(const PackedTensors& packed, const Matrix& items) {
  if (!packed.given()) return std::nullopt;
  const auto& [bytes, meta, centre] = packed;
  const int64_t panels = (items.rows + kTile - 1) / kTile, ld = byte_row(items.cols);
  auto matches = [](const OptionalTensor& t, ScalarType type, int64_t n) {
    return t && t->scalar_type() == type && t->is_contiguous() && t->numel() == n;
  };
  if (!matches(bytes, ScalarType::Byte, panels * kTile * ld) ||
      !matches(meta, ScalarType::Float, panels * 4) || !matches(centre, ScalarType::Float, ld))
    fail("item_bytes, item_meta and item_centre must be what pack_items made of i (", items.rows,
         " x ", items.cols, ")");
  // NOLINTBEGIN(bugprone-unchecked-optional-access): `matches` has looked
  return PackedItems{static_cast<const uint8_t*>(bytes->const_data_ptr()),
                     static_cast<const float*>(meta->const_data_ptr()),
                     static_cast<const float*>(centre->const_data_ptr())};
  // NOLINTEND(bugprone-unchecked-optional-access)
}

struct Cpu : Float32AndFloat64 {
  template <class T>
  static void topk(const Tensor&, const TopkProblem& problem, int64_t, const PackedTensors& tensors,
                   T* scores, int64_t* ids) {
    const auto packed = packed_items(tensors, problem.items);
    adaptau::topk<T>(problem, packed && sizeof(T) == 4 ? &*packed : nullptr, scores, ids,
                     torch_threads());
  }

  template <class T>
  static void target_scores(const Tensor&, const RanksProblem& problem, const Tensor& out) {
    adaptau::target_scores<T>(problem, data<T>(out), torch_threads());
  }

  template <class T>
  static void ranks(const Tensor&, const RanksProblem& problem, int64_t, const Tensor& out) {
    adaptau::ranks<T>(problem, data<int64_t>(out), torch_threads());
  }
};

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
  m.impl("topk", TORCH_BOX(&topk_items<Cpu>));
  m.impl("ranks", TORCH_BOX(&ranks_of_targets<Cpu>));
  m.impl("target_scores", TORCH_BOX(&scores_of_targets<Cpu>));
}

STABLE_TORCH_LIBRARY_IMPL(adaptau, CompositeExplicitAutograd, m) {
  using namespace adaptau;
  m.impl("cpu_level", TORCH_BOX(&cpu_level));
  m.impl("fma_peak", TORCH_BOX(&fma_peak));
}
