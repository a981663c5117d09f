// One instruction set's table of micro-kernels; compiled once per instruction set (see simd.h).
#include "../kernels.h"

#include "../../core/philox.h"
#include "simd.h"

namespace adaptau {
namespace ADAPTAU_ISA {
namespace {

ADAPTAU_INLINE float square_root(float x) { return __builtin_sqrtf(x); }
ADAPTAU_INLINE double square_root(double x) { return __builtin_sqrt(x); }

template <class T>
struct Limits;
template <>
struct Limits<float> {
  static constexpr float max = __FLT_MAX__, huge = 0x1p126f, nan = __builtin_nanf(""),
                         safe_square =
                             1e-30f;  // squares between this and its inverse are exact enough
};
template <>
struct Limits<double> {
  static constexpr double max = __DBL_MAX__, huge = 0x1p1022, nan = __builtin_nan(""),
                          safe_square = 1e-280;
};

}  // namespace
}  // namespace ADAPTAU_ISA
}  // namespace adaptau

#include "gemm.inl"
#include "rows.inl"
#include "softmax.inl"
#include "retrieval.inl"
#include "bf16.inl"
#include "amx.inl"
#include "int8.inl"
#include "random.inl"
#include "sampled.inl"
#include "propagate.inl"
#include "adam.inl"

#define ADAPTAU_STRING_(x) #x
#define ADAPTAU_STRING(x) ADAPTAU_STRING_(x)

namespace adaptau {
namespace ADAPTAU_ISA {

#define ADAPTAU_TABLE(T)        \
  {ADAPTAU_STRING(ADAPTAU_ISA), \
   gemm<Plain<T>>,              \
   normalize<T>,                \
   row_products<T>,             \
   normalize_backward<T>,       \
   exp_scores<T>,               \
   exp_tile<T>,                 \
   unit_tile<T>,                \
   max_tile<T>,                 \
   scan_tile<T>,                \
   count_scores<T>,             \
   dots<T>,                     \
   dots_with<T>,                \
   dot<T>,                      \
   axpy<T>,                     \
   multiply_add_rate<T>,        \
   ADAPTAU_BF16_TABLE,          \
   ADAPTAU_AMX_TABLE,           \
   ADAPTAU_INT8_TABLE,          \
   draw_row,                    \
   dropout_row<T>,              \
   sampled_users<T>,            \
   sampled_scatter<T>,          \
   gather_rows<T>,              \
   adam_missed<T>,              \
   adam_step<T>}

extern const Kernels<float> table_f32;
extern const Kernels<double> table_f64;
const Kernels<float> table_f32 = ADAPTAU_TABLE(float);
const Kernels<double> table_f64 = ADAPTAU_TABLE(double);

}  // namespace ADAPTAU_ISA
}  // namespace adaptau
