#include "kernels/overlap_logistic.h"

#include "binding/elementwise.h"

namespace dvae_ext::binding {

namespace {

Tensor overlap_logistic_icdf(const Tensor& rho, const Tensor& logits, const Tensor& mu0, const Tensor& mu1,
                             const Tensor& scale) {
  kernels::Elementwise params = elementwise_inputs(
      "overlap_logistic_icdf", {{rho, "rho"}, {logits, "logits"}, {mu0, "mu0"}, {mu1, "mu1"}, {scale, "scale"}});
  Tensor result = empty_like(rho);
  params.output[0] = result.mutable_data_ptr();
  DVAE_EXT_RUN(overlap_logistic_icdf, params, rho);
  return result;
}

// `needed` has bit i set where the gradient of argument i is wanted; the others come back empty.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> overlap_logistic_icdf_backward(const Tensor& grad, const Tensor& rho,
                                                                                  const Tensor& logits,
                                                                                  const Tensor& mu0, const Tensor& mu1,
                                                                                  const Tensor& scale, int64_t needed) {
  kernels::Elementwise params = elementwise_inputs(
      "overlap_logistic_icdf_backward",
      {{grad, "grad"}, {rho, "rho"}, {logits, "logits"}, {mu0, "mu0"}, {mu1, "mu1"}, {scale, "scale"}});
  Tensor output[5] = {wanted_output(needed & 1, grad), wanted_output(needed & 2, grad), wanted_output(needed & 4, grad),
                      wanted_output(needed & 8, grad), wanted_output(needed & 16, grad)};
  if (needed == 2) {  // the encoder's logits alone: the usual case, and less to compute
    params.output[0] = output[1].mutable_data_ptr();
    DVAE_EXT_RUN(overlap_logistic_icdf_backward_logits, params, grad);
  } else {
    for (int i = 0; i < 5; ++i) params.output[i] = output_pointer(output[i], needed >> i & 1);
    DVAE_EXT_RUN(overlap_logistic_icdf_backward, params, grad);
  }
  return {output[0], output[1], output[2], output[3], output[4]};
}

Tensor overlap_logistic_log_prob(const Tensor& zeta, const Tensor& logits, const Tensor& mu0, const Tensor& mu1,
                                 const Tensor& scale) {
  kernels::Elementwise params = elementwise_inputs(
      "overlap_logistic_log_prob", {{zeta, "zeta"}, {logits, "logits"}, {mu0, "mu0"}, {mu1, "mu1"}, {scale, "scale"}});
  Tensor result = empty_like(zeta);
  params.output[0] = result.mutable_data_ptr();
  DVAE_EXT_RUN(overlap_logistic_log_prob, params, zeta);
  return result;
}

// `needed` has bit i set where the gradient of argument i is wanted; the others come back empty.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> overlap_logistic_log_prob_backward(
    const Tensor& grad, const Tensor& zeta, const Tensor& logits, const Tensor& mu0, const Tensor& mu1,
    const Tensor& scale, int64_t needed) {
  kernels::Elementwise params = elementwise_inputs(
      "overlap_logistic_log_prob_backward",
      {{grad, "grad"}, {zeta, "zeta"}, {logits, "logits"}, {mu0, "mu0"}, {mu1, "mu1"}, {scale, "scale"}});
  Tensor output[5] = {wanted_output(needed & 1, grad), wanted_output(needed & 2, grad), wanted_output(needed & 4, grad),
                      wanted_output(needed & 8, grad), wanted_output(needed & 16, grad)};
  if (needed == 2) {  // the encoder's logits alone: the usual case, and less to compute
    params.output[0] = output[1].mutable_data_ptr();
    DVAE_EXT_RUN(overlap_logistic_log_prob_backward_logits, params, grad);
  } else {
    for (int i = 0; i < 5; ++i) params.output[i] = output_pointer(output[i], needed >> i & 1);
    DVAE_EXT_RUN(overlap_logistic_log_prob_backward, params, grad);
  }
  return {output[0], output[1], output[2], output[3], output[4]};
}

}  // namespace

DVAE_EXT_SCHEMAS(overlap_logistic) {
  m.def("overlap_logistic_icdf(Tensor rho, Tensor logits, Tensor mu0, Tensor mu1, Tensor scale) -> Tensor");
  m.def(
      "overlap_logistic_icdf_backward(Tensor grad, Tensor rho, Tensor logits, Tensor mu0, Tensor mu1, Tensor scale, "
      "int needed) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("overlap_logistic_log_prob(Tensor zeta, Tensor logits, Tensor mu0, Tensor mu1, Tensor scale) -> Tensor");
  m.def(
      "overlap_logistic_log_prob_backward(Tensor grad, Tensor zeta, Tensor logits, Tensor mu0, Tensor mu1, Tensor "
      "scale, int needed) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(dvae_ext, DVAE_EXT_DISPATCH_KEY, m) {
  m.impl("overlap_logistic_icdf", TORCH_BOX(&overlap_logistic_icdf));
  m.impl("overlap_logistic_icdf_backward", TORCH_BOX(&overlap_logistic_icdf_backward));
  m.impl("overlap_logistic_log_prob", TORCH_BOX(&overlap_logistic_log_prob));
  m.impl("overlap_logistic_log_prob_backward", TORCH_BOX(&overlap_logistic_log_prob_backward));
}

}  // namespace dvae_ext::binding
