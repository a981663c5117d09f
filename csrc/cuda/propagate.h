// Propagation over a bipartite graph on a GPU: see propagate.cu. As in operators.h: device
// pointers, scratch from the caller, the first error of the launches returned.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../core/problem.h"

namespace adaptau::cuda {

// Rows of a side's x by node, in ascending order, equal nodes in the order of the rows; for a side
// of which some are given.
struct SortedNodes {
  const int64_t *ids = nullptr, *order = nullptr;
};

struct PropagationCall {
  PropagationProblem problem;
  SortedNodes given[2];
  float* out[2];  // [wanted nodes, d]
};

int64_t propagate_workspace(const PropagationCall& call);
cudaError_t propagate(const PropagationCall& call, void* workspace, cudaStream_t stream);

}  // namespace adaptau::cuda
