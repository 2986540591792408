// What every elementwise op shares: its parameter block, and its three passes made from one formula.
//
// A Formula (csrc/math) has kInputs tensors, kParameters shape parameters that are often one number for the whole call,
// a value and a gradient. Its passes are elementwise functions of more tensors.
#pragma once

#include "kernels/dtype.h"
#include "math/dual.h"

namespace dvae_ext::kernels {

struct Elementwise {
  static constexpr int kMaxInputs = 11, kMaxOutputs = 6;
  const void* input[kMaxInputs];  // contiguous, `size` elements or, where `uniform`, one
  bool uniform[kMaxInputs];
  bool wide[kMaxInputs];      // a uniform float32 beside 16-bit tensors: a number keeps its digits
  void* output[kMaxOutputs];  // contiguous, or null where nobody asked
  int64_t size;
  DType dtype;  // of all inputs and outputs
};

// The value of a uniform input, in the compute type.
template <class T, class Storage>
DVAE_EXT_HD T uniform_value(const Elementwise& params, int k) {
  return params.wide[k] ? T(*static_cast<const float*>(params.input[k]))
                        : T(math::load(*static_cast<const Storage*>(params.input[k])));
}

// ζ = value(x)
template <class Formula>
struct Forward {
  static constexpr int kInputs = Formula::kInputs, kParameters = Formula::kParameters, kOutputs = 1;
  template <class Storage>
  using Compute = math::compute_t<Storage>;
  template <class T>
  DVAE_EXT_HD static void apply(const T* x, T* out) {
    out[0] = Formula::value(x);
  }
};

// x_i's gradient = grad · ∂value/∂x_i. The first input is grad. With kOnly >= 0 that one output alone is computed, and
// the compiler drops what the others need.
template <class Formula, int kOnly = -1>
struct Backward {
  static constexpr int kArguments = Formula::kInputs + Formula::kParameters;
  static constexpr int kInputs = 1 + Formula::kInputs, kParameters = Formula::kParameters;
  static constexpr int kOutputs = kOnly >= 0 ? 1 : kArguments;
  template <class Storage>
  using Compute = math::compute_t<Storage>;
  template <class T>
  DVAE_EXT_HD static void apply(const T* x, T* out) {
    T slope[kArguments];
    Formula::gradient(x + 1, slope);
    if constexpr (kOnly >= 0) {
      out[0] = x[0] * slope[kOnly];
    } else {
      DVAE_EXT_UNROLL
      for (int i = 0; i < kArguments; ++i) out[i] = x[0] * slope[i];
    }
  }
};

// The gradient of Σ_i u_i · grad · ∂value/∂x_i: inputs are u (one per argument), grad, x; outputs belong to grad, x.
// The tangent of the gradient along u holds every second derivative that is needed.
template <class Formula>
struct SecondBackward {
  static constexpr int kArguments = Formula::kInputs + Formula::kParameters;
  static constexpr int kInputs = kArguments + 1 + Formula::kInputs, kParameters = Formula::kParameters;
  static constexpr int kOutputs = 1 + kArguments;
  template <class Storage>
  using Compute = double;
  template <class T>
  DVAE_EXT_HD static void apply(const T* x, T* out) {
    const T* u = x;
    const T grad = x[kArguments];
    math::Dual<T> point[kArguments], slope[kArguments];
    // A constant of the formula has the tangent 0, and 0 times an infinite argument would be NaN. Long before this
    // bound an argument has the effect of an infinite one.
    const T bound(1e100);
    for (int i = 0; i < kArguments; ++i) {
      point[i] = math::Dual<T>(math::within(x[kArguments + 1 + i], bound), u[i]);
    }
    Formula::gradient(point, slope);
    T along(0);
    for (int i = 0; i < kArguments; ++i) {
      along = along + u[i] * slope[i].value;
      out[1 + i] = grad * slope[i].tangent;
    }
    out[0] = along;
  }
};

// Whether the parameters (the last inputs of a pass) are one number each, so that what depends on them alone is
// computed once.
template <class Pass>
bool uniform_parameters(const Elementwise& params) {
  for (int i = 0; i < Pass::kParameters; ++i) {
    if (!params.uniform[Pass::kInputs + i]) return false;
  }
  return true;
}

}  // namespace dvae_ext::kernels
