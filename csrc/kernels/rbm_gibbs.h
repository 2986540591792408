// Block Gibbs sampling of a restricted Boltzmann machine, in place, all sweeps in one call.
#pragma once

#include <cstdint>

#include "kernels/cpu_dispatch.h"
#include "kernels/dtype.h"

namespace dvae_ext::kernels {

struct RbmGibbs {
  DType dtype;         // of weight and biases: float32 or float64
  DType state_dtype;   // of the states: the same, or bfloat16
  void* visible;       // [chains, n_visible], 0 or 1
  void* hidden;        // [chains, n_hidden], 0 or 1
  const void* weight;  // [n_visible, n_hidden]
  const void* visible_bias;
  const void* hidden_bias;
  const int64_t* key;  // seed, offset
  int64_t chains;
  int64_t n_visible;
  int64_t n_hidden;
  int64_t sweeps;
  uint32_t* problems;  // CPU only: an or of RbmGibbsProblem; states stay as they were when it is not 0
};

enum RbmGibbsProblem : uint32_t {
  kRbmGibbsVisible = 1,      // a state is neither 0 nor 1
  kRbmGibbsHidden = 2,       // a state is neither 0 nor 1
  kRbmGibbsWeight = 4,       // not finite
  kRbmGibbsVisibleBias = 8,  // NaN
  kRbmGibbsHiddenBias = 16,  // NaN
};

// Counter word 0 of the draws for units 4 b ... 4 b + 3 is b, with this bit set for the visible half-sweep.
inline constexpr uint32_t kRbmGibbsVisibleStream = 0x80000000u;

DVAE_EXT_DECLARE_CPU(rbm_gibbs, RbmGibbs);
int rbm_gibbs_cuda(const RbmGibbs& params, void* stream);

}  // namespace dvae_ext::kernels
