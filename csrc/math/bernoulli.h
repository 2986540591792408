// One Bernoulli draw with success probability sigmoid(logit).
#pragma once

#include "math/elementary.h"

namespace dvae_ext::math {
inline namespace DVAE_EXT_ISA {

// u < sigmoid(x) without the division: u (1 + exp(-x)) < 1. With u from uniform_open the outcome is certain for
// |x| > 17, and a NaN logit gives false.
template <class T>
DVAE_EXT_HD bool bernoulli(T logit, T uniform) {
  return uniform * (T(1) + exp(-logit)) < T(1);
}

}  // namespace DVAE_EXT_ISA
}  // namespace dvae_ext::math
