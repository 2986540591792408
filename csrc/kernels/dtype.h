// The element types that kernels store, and the choice among them at run time.
#pragma once

#include "math/half.h"

namespace dvae_ext::kernels {

enum class DType { kFloat32, kFloat64, kBFloat16, kFloat16 };

// Calls f with a null pointer of the storage type.
template <class F>
auto dispatch_dtype(DType dtype, const F& f) {
  switch (dtype) {
    case DType::kFloat64:
      return f(static_cast<double*>(nullptr));
    case DType::kBFloat16:
      return f(static_cast<math::BFloat16*>(nullptr));
    case DType::kFloat16:
      return f(static_cast<math::Float16*>(nullptr));
    default:
      return f(static_cast<float*>(nullptr));
  }
}

// The same for kernels that take only float32 and float64.
template <class F>
auto dispatch_float(DType dtype, const F& f) {
  return dtype == DType::kFloat64 ? f(static_cast<double*>(nullptr)) : f(static_cast<float*>(nullptr));
}

}  // namespace dvae_ext::kernels
