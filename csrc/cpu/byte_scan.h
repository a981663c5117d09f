// The scan of bytes of top-k: compares integer sums with a bound that provably misses nothing
// (docs/topk.md), and scores in float what is left in the end.
#pragma once

#include <memory>
#include <vector>

#include "candidate_lists.h"
#include "quantized.h"
#include "rough_lists.h"
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

  // Scores and ids [B, k].
  void topk(const Parallel& parallel, float* scores, int64_t* ids) const;

 private:
  struct Worker;

  ScanTasks tasks(int workers) const;
  void collect(Worker& w) const;
  Int8Panel panel(int64_t index, Worker& w) const;
  void start_bounds(Worker& w) const;
  void add_hits(int64_t n, int64_t panel, int64_t g, Worker& w) const;
  void add_scored(int64_t panel, int64_t g, Worker& w) const;
  void add(int64_t lane, const RoughCandidate& candidate, Worker& w) const;
  void score(int64_t lane, Worker& w) const;
  void write(Worker& w, float* scores, int64_t* ids) const;
  RoughCandidate as_candidate(int64_t user, float score, int32_t id) const;

  const TopkProblem& p_;
  const Scan<float>& scan_;
  PackedItems packed_;  // bytes == nullptr: a panel is quantised when it is read
  std::vector<float> centre_;
  Buffer<uint8_t> bytes_;
  Buffer<float> meta_;
  std::unique_ptr<QuantizedUsers> users_;
};

}  // namespace adaptau
