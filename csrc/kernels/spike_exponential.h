// Spike-and-exponential smoothing: inverse CDF and density, with their gradients, elementwise.
#pragma once

#include "kernels/cpu_dispatch.h"
#include "kernels/elementwise.h"

namespace dvae_ext::kernels {

DVAE_EXT_DECLARE_CPU(spike_exponential_icdf, Elementwise);
DVAE_EXT_DECLARE_CPU(spike_exponential_icdf_backward, Elementwise);
DVAE_EXT_DECLARE_CPU(spike_exponential_icdf_backward_logits, Elementwise);
int spike_exponential_icdf_cuda(const Elementwise& params, void* stream);
int spike_exponential_icdf_backward_cuda(const Elementwise& params, void* stream);
int spike_exponential_icdf_backward_logits_cuda(const Elementwise& params, void* stream);

}  // namespace dvae_ext::kernels
