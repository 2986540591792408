// log Z of a restricted Boltzmann machine by enumeration of its smaller side, and its gradient.
//
//   Z = sum over states s of the enumerated side of e^{b.s} prod_j (1 + e^{c_j + sum_i s_i w_ij})
//
// The states are split into three groups of bits, s = (high, middle, low), so that
// e^{field} = E_high[j] * E_middle[j] * E_low[j] and the inner loop is a product of
// (1 + A[j] * B[j]) over tables, without exp or log.
#pragma once

#include <cstdint>

#include "kernels/cpu_dispatch.h"
#include "kernels/dtype.h"
#include "math/macros.h"

namespace dvae_ext::kernels {

struct RbmLogZExact {
  static constexpr int64_t kMaxEnumerated = 30;
  static constexpr int64_t kLowBits = 6;
  static constexpr int64_t kMiddleBits = 8;
  static constexpr int64_t kLowStates = 1 << kLowBits;
  static constexpr int64_t kMaxSlots = 64;  // independent shares of the high states
  static constexpr int64_t kParts = 4;      // CUDA: shares of the middle states
  // A unit whose field may exceed this in any of the three groups is handled with exponents kept
  // apart: three groups, and two factors, must multiply within the range of a double.
  static constexpr double kMaxGroupField = 115.0;

  const void* weight;           // element (i, j) at i * enumerated_stride + j * summed_stride
  const void* enumerated_bias;  // [enumerated]
  const void* summed_bias;      // [summed]
  DType dtype;                  // of the three: kFloat32 or kFloat64
  int64_t enumerated;           // 1 .. kMaxEnumerated
  int64_t summed;
  int64_t enumerated_stride;
  int64_t summed_stride;
  double* log_z;      // out; NaN when a parameter is not finite
  double* workspace;  // CUDA: workspace_size() doubles

  DVAE_EXT_HD int64_t low_bits() const { return enumerated < kLowBits ? enumerated : kLowBits; }
  DVAE_EXT_HD int64_t middle_bits() const {
    const int64_t rest = enumerated - low_bits();
    return rest < kMiddleBits ? rest : kMiddleBits;
  }
  DVAE_EXT_HD int64_t high_bits() const { return enumerated - low_bits() - middle_bits(); }
  DVAE_EXT_HD int64_t slots() const { return high_bits() < 6 ? int64_t{1} << high_bits() : kMaxSlots; }
  int64_t workspace_size(bool backward) const {
    const int64_t tables = (kLowStates + (1 << kMiddleBits) + 1) * summed + 1;
    const int64_t weights = 2 * (kLowStates + (1 << kMiddleBits) + slots() * kParts);
    const int64_t moments = slots() * kParts * (enumerated + 1) * (summed + 1);
    return tables + weights + (backward ? moments : 0);
  }
};

struct RbmLogZExactBackward {
  RbmLogZExact model;  // log_z is an input here
  const double* grad;  // scalar
  void* grad_weight;   // same dtype and strides as the parameters
  void* grad_enumerated_bias;
  void* grad_summed_bias;
};

DVAE_EXT_DECLARE_CPU(rbm_log_z_exact, RbmLogZExact);
DVAE_EXT_DECLARE_CPU(rbm_log_z_exact_backward, RbmLogZExactBackward);
int rbm_log_z_exact_cuda(const RbmLogZExact& params, void* stream);
int rbm_log_z_exact_backward_cuda(const RbmLogZExactBackward& params, void* stream);

}  // namespace dvae_ext::kernels
