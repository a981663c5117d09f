// What the dense and the sampled loss share of their arguments.
#pragma once

#include <string>

#include "tensors.h"

namespace adaptau {

template <class T>
SoftmaxTerms<T> softmax_terms(const Arguments& given, const Tensor& tau,
                              const OptionalTensor& positive_tau, const OptionalTensor& log_q,
                              const std::string& denominator, const std::string& normalize,
                              int64_t n_rows, int64_t n_items) {
  return {given.temperatures<T>("tau", tau, n_rows),
          positive_tau ? given.temperatures<T>("positive_tau", *positive_tau, n_rows) : nullptr,
          log_q ? given.values<T>("log_q", *log_q, n_items) : nullptr,
          parse_denominator(denominator), parse_normalize(normalize)};
}

}  // namespace adaptau
