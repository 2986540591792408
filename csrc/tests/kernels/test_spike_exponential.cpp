#include "elementwise.h"
#include "kernels/spike_exponential.h"
#include "math/spike_exponential.h"

namespace dvae_ext::tests {
namespace {

using namespace kernels;

TEST(spike_exponential) {
  COMPARE(spike_exponential_icdf, Forward<math::SpikeExponentialIcdf>);
  COMPARE(spike_exponential_icdf_backward, Backward<math::SpikeExponentialIcdf>);
}

}  // namespace
}  // namespace dvae_ext::tests
