#include "kernels/spike_exponential.h"

#include "kernels/cuda/elementwise.h"
#include "math/spike_exponential.h"

namespace dvae_ext::kernels {

int spike_exponential_icdf_cuda(const Elementwise& params, void* stream) {
  return elementwise<Forward<math::SpikeExponentialIcdf>>(params, stream);
}
int spike_exponential_icdf_backward_cuda(const Elementwise& params, void* stream) {
  return elementwise<Backward<math::SpikeExponentialIcdf>>(params, stream);
}
int spike_exponential_icdf_backward_logits_cuda(const Elementwise& params, void* stream) {
  return elementwise<Backward<math::SpikeExponentialIcdf, 1>>(params, stream);
}

}  // namespace dvae_ext::kernels
