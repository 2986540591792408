// Overlapping exponential smoothing: inverse CDF and density, with their gradients, elementwise.
#pragma once

#include "kernels/cpu_dispatch.h"
#include "kernels/elementwise.h"

namespace dvae_ext::kernels {

DVAE_EXT_DECLARE_CPU(overlap_exponential_icdf, Elementwise);
DVAE_EXT_DECLARE_CPU(overlap_exponential_icdf_backward, Elementwise);
DVAE_EXT_DECLARE_CPU(overlap_exponential_icdf_backward_logits, Elementwise);
DVAE_EXT_DECLARE_CPU(overlap_exponential_icdf_backward_backward, Elementwise);
int overlap_exponential_icdf_cuda(const Elementwise& params, void* stream);
int overlap_exponential_icdf_backward_cuda(const Elementwise& params, void* stream);
int overlap_exponential_icdf_backward_logits_cuda(const Elementwise& params, void* stream);
int overlap_exponential_icdf_backward_backward_cuda(const Elementwise& params, void* stream);

DVAE_EXT_DECLARE_CPU(overlap_exponential_log_prob, Elementwise);
DVAE_EXT_DECLARE_CPU(overlap_exponential_log_prob_backward, Elementwise);
DVAE_EXT_DECLARE_CPU(overlap_exponential_log_prob_backward_logits, Elementwise);
DVAE_EXT_DECLARE_CPU(overlap_exponential_log_prob_backward_backward, Elementwise);
int overlap_exponential_log_prob_cuda(const Elementwise& params, void* stream);
int overlap_exponential_log_prob_backward_cuda(const Elementwise& params, void* stream);
int overlap_exponential_log_prob_backward_logits_cuda(const Elementwise& params, void* stream);
int overlap_exponential_log_prob_backward_backward_cuda(const Elementwise& params, void* stream);

}  // namespace dvae_ext::kernels
