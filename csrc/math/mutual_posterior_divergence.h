// Softplus terms of MAE eq. 5 over many divergences.
#pragma once

#include "math/remainders.h"

namespace dvae_ext::math {
inline namespace DVAE_EXT_ISA {

// softplus(-x) + softplus(-y) = log(1 + u) with u = e^-x + e^-y + e^-x e^-y, and so on: one more factor in the chain,
// by fused multiply-adds on positive terms, exact to rounding in the tails. One log1p(u) ends a chain of up to 64.
template <class T>
DVAE_EXT_HD T softplus_chain(T u, T kl) {
  return fma(exp_of_minus(kl), T(1) + u, u);
}

// Subtracts scale * sigmoid(-kl), the derivative of scale * softplus(-kl), from the weights of both directions of a
// pair, given e^-kl of both. One division serves both sigmoids.
template <class T>
DVAE_EXT_HD void subtract_sigmoids(T e_ab, T e_ba, T scale, T& weight_ab, T& weight_ba) {
  const T one_ab = T(1) + e_ab, one_ba = T(1) + e_ba;
  const T shared = scale / (one_ab * one_ba);
  weight_ab -= e_ab * one_ba * shared;
  weight_ba -= e_ba * one_ab * shared;
}

}  // namespace DVAE_EXT_ISA
}  // namespace dvae_ext::math
