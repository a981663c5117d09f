// The scan of bytes of top-k: compares integer sums with a bound that provably misses nothing
// (docs/topk.md), and scores the few that pass in float.
#pragma once

#include <memory>
#include <vector>

#include "candidate_lists.h"
#include "quantized.h"
#include "scan.h"

namespace adaptau {

class ByteScan {
 public:
  static bool possible(const Matrix& items, const Kernels<float>& kernels);
  // Possible, and does it pay?
  static bool worthwhile(const TopkProblem& p, bool packed, const Kernels<float>& kernels);

  // packed: the catalogue's bytes from an earlier call, or nullptr.
  ByteScan(const TopkProblem& problem, const PackedItems* packed, const Scan<float>& scan,
           const Parallel& parallel);

  ScanTasks tasks(int workers) const;
  void run(const ScanShare& share, CandidateLists<float>& lists) const;

 private:
  struct Worker;

  Int8Panel panel(int64_t index, Worker& w) const;
  void start_bounds(const ScanShare& share, const CandidateLists<float>& lists, Worker& w) const;
  void score_hits(const ScanShare& share, int64_t panel, CandidateLists<float>& lists,
                  Worker& w) const;
  void raise(int64_t b, int64_t range, const CandidateLists<float>& lists, float& bound) const;

  const TopkProblem& p_;
  const Scan<float>& scan_;
  PackedItems packed_;  // bytes == nullptr: a panel is quantised when it is read
  std::vector<float> centre_;
  Buffer<uint8_t> bytes_;
  Buffer<float> meta_;
  std::unique_ptr<QuantizedUsers> users_;
};

// Offers the hits of one tile of float scores; `threshold` holds the group's keys and follows the
// lists.
template <class T>
void score_tile(const Scan<T>& scan, typename Scan<T>::Reader& reader, int64_t range, int64_t panel,
                int64_t g, CandidateLists<T>& lists, Key<T>* threshold) {
  uint16_t hits[kTile * kTile];
  const T* tile = reader.score(g);
  const int64_t n = scan.kernels().scan_tile(reader.items(), scan.lanes(g), tile, threshold, hits);
  for (int64_t h = 0; h < n; ++h) {
    const int64_t lane = hits[h] % kTile, b = g * kTile + lane;
    if (lane >= scan.users_in(g)) continue;
    const Key<T> key = score_key(tile[hits[h]]);
    if (key < threshold[lane]) continue;  // risen since the tile was scanned
    if (lists.offer(range, b, key, panel * kTile + hits[h] / kTile))
      threshold[lane] = lists.threshold(range, b);
  }
}

}  // namespace adaptau
