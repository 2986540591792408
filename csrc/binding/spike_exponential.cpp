#include "kernels/spike_exponential.h"

#include "binding/elementwise.h"

namespace dvae_ext::binding {

namespace {

Tensor spike_exponential_icdf(const Tensor& rho, const Tensor& logits, const Tensor& beta) {
  kernels::Elementwise params =
      elementwise_inputs("spike_exponential_icdf", {{rho, "rho"}, {logits, "logits"}, {beta, "beta"}});
  Tensor result = empty_like(rho);
  params.output[0] = result.mutable_data_ptr();
  DVAE_EXT_RUN(spike_exponential_icdf, params, rho);
  return result;
}

// `needed` has bit i set where the gradient of argument i is wanted; the others come back empty.
std::tuple<Tensor, Tensor, Tensor> spike_exponential_icdf_backward(const Tensor& grad, const Tensor& rho,
                                                                   const Tensor& logits, const Tensor& beta,
                                                                   int64_t needed) {
  kernels::Elementwise params = elementwise_inputs("spike_exponential_icdf_backward",
                                                   {{grad, "grad"}, {rho, "rho"}, {logits, "logits"}, {beta, "beta"}});
  Tensor output[3] = {wanted_output(needed & 1, grad), wanted_output(needed & 2, grad),
                      wanted_output(needed & 4, grad)};
  if (needed == 2) {  // the encoder's logits alone: the usual case, and less to compute
    params.output[0] = output[1].mutable_data_ptr();
    DVAE_EXT_RUN(spike_exponential_icdf_backward_logits, params, grad);
  } else {
    for (int i = 0; i < 3; ++i) params.output[i] = output_pointer(output[i], needed >> i & 1);
    DVAE_EXT_RUN(spike_exponential_icdf_backward, params, grad);
  }
  return {output[0], output[1], output[2]};
}

}  // namespace

DVAE_EXT_SCHEMAS(spike_exponential) {
  m.def("spike_exponential_icdf(Tensor rho, Tensor logits, Tensor beta) -> Tensor");
  m.def(
      "spike_exponential_icdf_backward(Tensor grad, Tensor rho, Tensor logits, Tensor beta, int needed) -> (Tensor, "
      "Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(dvae_ext, DVAE_EXT_DISPATCH_KEY, m) {
  m.impl("spike_exponential_icdf", TORCH_BOX(&spike_exponential_icdf));
  m.impl("spike_exponential_icdf_backward", TORCH_BOX(&spike_exponential_icdf_backward));
}

}  // namespace dvae_ext::binding
