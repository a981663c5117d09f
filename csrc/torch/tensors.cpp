#include "tensors.h"

#include <atomic>
#include <cmath>
#include <exception>
#include <limits>

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace adaptau {
namespace {

// ThreadSanitizer does not see how PyTorch's pool, which is not compiled for it, starts and joins
// threads. Elsewhere these are nothing.
#if defined(__SANITIZE_THREAD__)
char fork, join;
void release(char& edge) { __tsan_release(&edge); }
void acquire(char& edge) { __tsan_acquire(&edge); }
#else
constexpr char fork = 0, join = 0;
constexpr void release(char) {}
constexpr void acquire(char) {}
#endif

}  // namespace

std::string shape_of(const Tensor& t) {
  std::ostringstream out;
  out << '[';
  for (int64_t i = 0; i < t.dim(); ++i) out << (i == 0 ? "" : ", ") << t.size(i);
  out << ']';
  return out.str();
}

const char* name_of(ScalarType type) {
  switch (type) {
    case ScalarType::Float: return "float32";
    case ScalarType::Double: return "float64";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Half: return "float16";
    case ScalarType::Long: return "int64";
    case ScalarType::Int: return "int32";
    case ScalarType::Bool: return "bool";
    default: return "another dtype";
  }
}

Parallel torch_threads() {
  return {static_cast<int>(torch::stable::get_num_threads()),
          [](int workers, void (*body)(void*), void* context) {
            std::atomic_flag failed = ATOMIC_FLAG_INIT;
            std::exception_ptr problem;  // PyTorch would lose what it is
            const auto share = [&](int64_t begin, int64_t end) {
              acquire(fork);
              try {
                for (int64_t i = begin; i < end; ++i) body(context);
              } catch (...) {
                if (!failed.test_and_set()) problem = std::current_exception();
              }
              release(join);
            };
            release(fork);
            torch::stable::parallel_for(0, workers, 1, share);
            acquire(join);
            if (problem) std::rethrow_exception(problem);
          }};
}

std::string name_of(const torch::stable::Device& device) {
  using torch::headeronly::DeviceType;
  std::string name;
  switch (device.type()) {
    case DeviceType::CPU: return "cpu";
    case DeviceType::CUDA: name = "cuda"; break;
    case DeviceType::Meta: name = "meta"; break;
    default: name = "another device";
  }
  return device.has_index() ? name + ":" + std::to_string(device.index()) : name;
}

void Arguments::check_device(const char* name, const Tensor& t) const {
  if (t.device() != device_)
    fail(name, " must be on ", name_of(device_), " like the other arguments, got a tensor on ",
         name_of(t.device()), "; move all of them to one device");
}

Matrix Arguments::matrix(const char* name, const Tensor& t) const {
  check_device(name, t);
  if (t.dim() != 2) fail(name, " must be a matrix [rows, d], got shape ", shape_of(t));
  DType dtype;
  switch (t.scalar_type()) {
    case ScalarType::Float: dtype = DType::f32; break;
    case ScalarType::Double: dtype = DType::f64; break;
    case ScalarType::BFloat16: dtype = DType::bf16; break;
    case ScalarType::Half: dtype = DType::f16; break;
    default:
      fail(name, " must be float32, float64, bfloat16 or float16, got ", name_of(t.scalar_type()),
           "; convert it with .float()");
  }
  if (dtype == DType::f64 && !on_cpu())
    fail(name,
         " is float64, which is computed on the CPU only; convert it with .float() or move "
         "all arguments with .cpu()");
  if (t.size(1) > std::numeric_limits<int32_t>::max())
    fail(name, " must have fewer than 2^31 columns d, got ", t.size(1));
  // Without elements there is no memory: then no address in it may be computed, either.
  if (on_cpu() && t.numel() == 0) return {t.const_data_ptr(), dtype, t.size(0), t.size(1), 0, 0};
  return {t.const_data_ptr(), dtype, t.size(0), t.size(1), t.stride(0), t.stride(1)};
}

void check_pair(const char* u_name, const Matrix& u, const char* i_name, const Matrix& i) {
  if (u.dtype != i.dtype)
    fail(u_name, " and ", i_name, " must have the same dtype; convert one with .to(other.dtype)");
  if (u.cols != i.cols)
    fail(u_name, " and ", i_name, " must have the same number of columns d, got ", u.cols, " and ",
         i.cols);
  for (const auto& [name, rows] : {std::pair{u_name, u.rows}, std::pair{i_name, i.rows}})
    if (rows > std::numeric_limits<int32_t>::max())
      fail(name, " must have fewer than 2^31 rows (ids are int32 inside), got ", rows,
           "; split it");
}

const int64_t* Arguments::integers(const char* name, const Tensor& t, int64_t n) const {
  check_device(name, t);
  if (t.scalar_type() != ScalarType::Long)
    fail(name, " must be int64, got ", name_of(t.scalar_type()), "; convert it with .long()");
  if (t.dim() != 1 || (n >= 0 && t.size(0) != n))
    fail(name, " must have shape [", n >= 0 ? std::to_string(n) : "n", "], got ", shape_of(t));
  if (!t.is_contiguous()) fail(name, " must be contiguous; call .contiguous()");
  return static_cast<const int64_t*>(t.const_data_ptr());
}

const int64_t* Arguments::ids(const char* name, const Tensor& t, int64_t n, int64_t low,
                              int64_t high) const {
  const int64_t* values = integers(name, t, n);
  if (!on_cpu()) return values;
  const int64_t count = t.size(0);  // a call into PyTorch
  for (int64_t i = 0; i < count; ++i)
    if (values[i] < low || values[i] >= high)
      fail(name, " must lie in [", low, ", ", high, "), got ", values[i], " at position ", i);
  return values;
}

SizedCsr Arguments::csr(const char* name, const OptionalTensor& indptr,
                        const OptionalTensor& indices, int64_t n_rows, int64_t n_columns) const {
  if (indptr.has_value() != indices.has_value())
    fail(name, " must be a pair (indptr, indices), got only one of them");
  if (!indptr.has_value()) return {};
  const std::string indptr_name = std::string(name) + " indptr";
  const std::string indices_name = std::string(name) + " indices";
  const int64_t nnz = indices->numel();
  const int64_t* p = ids(indptr_name.c_str(), *indptr, n_rows + 1, 0, nnz + 1);
  const int64_t* j = ids(indices_name.c_str(), *indices, -1, 0, n_columns);
  if (!on_cpu()) return {{p, j}, nnz};
  if (p[0] != 0 || p[n_rows] != nnz)
    fail(indptr_name, " must start at 0 and end at len(indices) = ", nnz, ", got ", p[0], " and ",
         p[n_rows]);
  for (int64_t r = 0; r < n_rows; ++r) {
    if (p[r] > p[r + 1])
      fail(indptr_name, " must not decrease, got ", p[r], " then ", p[r + 1], " at row ", r);
    for (int64_t e = p[r] + 1; e < p[r + 1]; ++e)
      if (j[e - 1] >= j[e])
        fail(indices_name, " must be ascending and distinct within a row, got ", j[e - 1], " then ",
             j[e], " in row ", r,
             "; sort each row and drop duplicates "
             "(scipy: sum_duplicates(), sort_indices())");
  }
  return {{p, j}, nnz};
}

Normalize parse_normalize(const std::string& value) {
  if (value == "both") return {true, true};
  if (value == "user") return {true, false};
  if (value == "item") return {false, true};
  if (value == "none") return {false, false};
  fail("normalize must be \"both\", \"user\", \"item\" or \"none\", got \"", value, "\"");
}

Precision parse_precision(const std::string& value) {
  if (value == "float32") return Precision::float32;
  if (value == "tf32") return Precision::tf32;
  if (value == "bfloat16") return Precision::bfloat16;
  fail("precision must be \"float32\", \"tf32\" or \"bfloat16\", got \"", value, "\"");
}

Denominator parse_denominator(const std::string& value) {
  if (value == "all") return Denominator::all;
  if (value == "negatives") return Denominator::negatives;
  fail("denominator must be \"all\" or \"negatives\", got \"", value, "\"");
}

Reduction parse_reduction(const std::string& value) {
  if (value == "mean") return Reduction::mean;
  if (value == "sum") return Reduction::sum;
  if (value == "none") return Reduction::none;
  fail("reduction must be \"mean\", \"sum\" or \"none\", got \"", value, "\"");
}

template <class T>
const T* Arguments::values(const char* name, const Tensor& t, int64_t n) const {
  check_device(name, t);
  constexpr ScalarType expected = sizeof(T) == 4 ? ScalarType::Float : ScalarType::Double;
  if (t.scalar_type() != expected)
    fail(name, " must be ", name_of(expected), " here, got ", name_of(t.scalar_type()));
  if (t.dim() != 1 || t.size(0) != n) fail(name, " must have shape [", n, "], got ", shape_of(t));
  if (!t.is_contiguous()) fail(name, " must be contiguous; call .contiguous()");
  return static_cast<const T*>(t.const_data_ptr());
}

template <class T>
const T* Arguments::temperatures(const char* name, const Tensor& t, int64_t n) const {
  const T* tau = values<T>(name, t, n);
  if (!on_cpu()) return tau;
  for (int64_t b = 0; b < n; ++b)
    if (!(tau[b] > 0 && std::isfinite(tau[b])))
      fail(name, " must be finite and > 0 (it divides the scores), got ", tau[b], " at row ", b);
  return tau;
}

template const float* Arguments::values<float>(const char*, const Tensor&, int64_t) const;
template const double* Arguments::values<double>(const char*, const Tensor&, int64_t) const;
template const float* Arguments::temperatures<float>(const char*, const Tensor&, int64_t) const;
template const double* Arguments::temperatures<double>(const char*, const Tensor&, int64_t) const;

}  // namespace adaptau
