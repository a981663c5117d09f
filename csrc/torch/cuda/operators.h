// The CUDA half of torch.ops.adaptau. One function registers all of it, for whatever device's
// library object it is given; each operator's file has its own.
#pragma once

#include <torch/csrc/stable/library.h>

namespace adaptau {

using Library = torch::stable::detail::StableLibrary;

void register_cuda_operators(Library& m);

void register_graph(Library& m);      // graph.cpp
void register_loss(Library& m);       // loss.cpp
void register_retrieval(Library& m);  // retrieval.cpp
void register_rows(Library& m);       // rows.cpp
void register_sampled(Library& m);    // sampled.cpp

}  // namespace adaptau
