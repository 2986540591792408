#include "kernels/spike_exponential.h"

#include "kernels/cpu/elementwise.h"
#include "math/spike_exponential.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA {

void spike_exponential_icdf(const Elementwise& params, const Parallel& parallel) {
  elementwise<Forward<math::SpikeExponentialIcdf>>(params, parallel);
}
void spike_exponential_icdf_backward(const Elementwise& params, const Parallel& parallel) {
  elementwise<Backward<math::SpikeExponentialIcdf>>(params, parallel);
}
void spike_exponential_icdf_backward_logits(const Elementwise& params, const Parallel& parallel) {
  elementwise<Backward<math::SpikeExponentialIcdf, 1>>(params, parallel);
}

}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
