// From tensors to the plain structs of core/problem.h. Every argument check of the package is here
// or in the operator's own file next to it, once: the Python layer and the kernels rely on them.
// What a tensor is (dtype, shape, device) is checked on every device; what it holds on the CPU
// alone: elsewhere looking would wait for the device, so that kernels assert it instead.
//
// A message names the argument, what was expected, what came and the way out.
#pragma once

#include <torch/csrc/stable/device.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "../core/parallel.h"
#include "../core/problem.h"
#include "text.h"

namespace adaptau {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

std::string shape_of(const Tensor& t);                     // "[3, 64]"
const char* name_of(ScalarType type);                      // "float32"
std::string name_of(const torch::stable::Device& device);  // "cuda:0"

// PyTorch's own thread pool, at its current size.
Parallel torch_threads();

struct SizedCsr : Csr {
  int64_t nnz = 0;  // on a device nobody has looked whether indptr ends there
};

// The arguments of one call, all on the device of the first of them. Pointers are that device's.
class Arguments {
 public:
  explicit Arguments(const Tensor& first) : device_(first.device()) {}

  bool on_cpu() const { return device_.is_cpu(); }

  // A 2-d floating-point tensor; float64 on the CPU only.
  Matrix matrix(const char* name, const Tensor& t) const;

  // A contiguous 1-d int64 tensor of n elements (n < 0: any number).
  const int64_t* integers(const char* name, const Tensor& t, int64_t n) const;

  // The same, each in [low, high).
  const int64_t* ids(const char* name, const Tensor& t, int64_t n, int64_t low, int64_t high) const;

  // A CSR with n_rows rows; each row's indices ascending, distinct, in [0, n_columns).
  SizedCsr csr(const char* name, const OptionalTensor& indptr, const OptionalTensor& indices,
               int64_t n_rows, int64_t n_columns) const;

  // A contiguous 1-d tensor of n elements of the compute type.
  template <class T>
  const T* values(const char* name, const Tensor& t, int64_t n) const;

  // tau: n values, each finite and > 0.
  template <class T>
  const T* temperatures(const char* name, const Tensor& t, int64_t n) const;

  // Fails unless t is on the call's device.
  void check_device(const char* name, const Tensor& t) const;

 private:
  torch::stable::Device device_;
};

// u and i of one operator: the same dtype, d columns both, fewer than 2^31 rows.
void check_pair(const char* u_name, const Matrix& u, const char* i_name, const Matrix& i);

Normalize parse_normalize(const std::string& value);
Precision parse_precision(const std::string& value);
Denominator parse_denominator(const std::string& value);

enum class Reduction { mean, sum, none };
Reduction parse_reduction(const std::string& value);

// Which gradients the caller wants, as bits of an int argument; adaptau_ext/autograd.py has the
// twin.
enum GradientBits : int64_t {
  kGradUsers = 1,
  kGradItems = 2,
  kGradTau = 4,
  kGradPositiveTau = 8,
  kGradLogQ = 16,
};

// dtype the kernels compute and accumulate in: float64 for float64, otherwise float32.
inline ScalarType compute_type(const Matrix& m) {
  return m.dtype == DType::f64 ? ScalarType::Double : ScalarType::Float;
}

// f(T{}) with the compute type T; each device's kernels take one or the other.
struct Float32AndFloat64 {
  template <class F>
  static auto with_compute_type(const Matrix& m, F&& f) {
    return m.dtype == DType::f64 ? f(double{}) : f(float{});
  }
};
struct Float32Only {
  template <class F>
  static auto with_compute_type(const Matrix&, F&& f) {
    return f(float{});
  }
};

inline Tensor empty_like_compute(const Tensor& like, const Matrix& m,
                                 const std::vector<int64_t>& sizes) {
  return torch::stable::new_empty(like, sizes, compute_type(m));
}

template <class T>
T* data(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

}  // namespace adaptau
