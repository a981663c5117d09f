#include "operators.h"

namespace adaptau {

void register_cuda_operators(Library& m) {
  register_graph(m);
  register_loss(m);
  register_retrieval(m);
  register_rows(m);
  register_sampled(m);
}

}  // namespace adaptau
