#include "kernels/overlap_exponential.h"

#include "binding/elementwise.h"

namespace dvae_ext::binding {

namespace {

Tensor overlap_exponential_icdf(const Tensor& rho, const Tensor& logits, const Tensor& beta) {
  kernels::Elementwise params =
      elementwise_inputs("overlap_exponential_icdf", {{rho, "rho"}, {logits, "logits"}, {beta, "beta"}});
  Tensor result = empty_like(rho);
  params.output[0] = result.mutable_data_ptr();
  DVAE_EXT_RUN(overlap_exponential_icdf, params, rho);
  return result;
}

// `needed` has bit i set where the gradient of argument i is wanted; the others come back empty.
std::tuple<Tensor, Tensor, Tensor> overlap_exponential_icdf_backward(const Tensor& grad, const Tensor& rho,
                                                                     const Tensor& logits, const Tensor& beta,
                                                                     int64_t needed) {
  kernels::Elementwise params = elementwise_inputs("overlap_exponential_icdf_backward",
                                                   {{grad, "grad"}, {rho, "rho"}, {logits, "logits"}, {beta, "beta"}});
  Tensor output[3] = {wanted_output(needed & 1, grad), wanted_output(needed & 2, grad),
                      wanted_output(needed & 4, grad)};
  if (needed == 2) {  // the encoder's logits alone: the usual case, and less to compute
    params.output[0] = output[1].mutable_data_ptr();
    DVAE_EXT_RUN(overlap_exponential_icdf_backward_logits, params, grad);
  } else {
    for (int i = 0; i < 3; ++i) params.output[i] = output_pointer(output[i], needed >> i & 1);
    DVAE_EXT_RUN(overlap_exponential_icdf_backward, params, grad);
  }
  return {output[0], output[1], output[2]};
}

// The gradient of the backward pass: first of grad, then of each argument.
std::tuple<Tensor, Tensor, Tensor, Tensor> overlap_exponential_icdf_backward_backward(
    const Tensor& grad_rho, const Tensor& grad_logits, const Tensor& grad_beta, const Tensor& grad, const Tensor& rho,
    const Tensor& logits, const Tensor& beta) {
  kernels::Elementwise params =
      elementwise_inputs("overlap_exponential_icdf_backward_backward", {{grad_rho, "grad_rho"},
                                                                        {grad_logits, "grad_logits"},
                                                                        {grad_beta, "grad_beta"},
                                                                        {grad, "grad"},
                                                                        {rho, "rho"},
                                                                        {logits, "logits"},
                                                                        {beta, "beta"}});
  Tensor output[4];
  for (int i = 0; i < 4; ++i) {
    output[i] = empty_like(grad_rho);
    params.output[i] = output[i].mutable_data_ptr();
  }
  DVAE_EXT_RUN(overlap_exponential_icdf_backward_backward, params, grad);
  return {output[0], output[1], output[2], output[3]};
}

Tensor overlap_exponential_log_prob(const Tensor& zeta, const Tensor& logits, const Tensor& beta) {
  kernels::Elementwise params =
      elementwise_inputs("overlap_exponential_log_prob", {{zeta, "zeta"}, {logits, "logits"}, {beta, "beta"}});
  Tensor result = empty_like(zeta);
  params.output[0] = result.mutable_data_ptr();
  DVAE_EXT_RUN(overlap_exponential_log_prob, params, zeta);
  return result;
}

// `needed` has bit i set where the gradient of argument i is wanted; the others come back empty.
std::tuple<Tensor, Tensor, Tensor> overlap_exponential_log_prob_backward(const Tensor& grad, const Tensor& zeta,
                                                                         const Tensor& logits, const Tensor& beta,
                                                                         int64_t needed) {
  kernels::Elementwise params = elementwise_inputs(
      "overlap_exponential_log_prob_backward", {{grad, "grad"}, {zeta, "zeta"}, {logits, "logits"}, {beta, "beta"}});
  Tensor output[3] = {wanted_output(needed & 1, grad), wanted_output(needed & 2, grad),
                      wanted_output(needed & 4, grad)};
  if (needed == 2) {  // the encoder's logits alone: the usual case, and less to compute
    params.output[0] = output[1].mutable_data_ptr();
    DVAE_EXT_RUN(overlap_exponential_log_prob_backward_logits, params, grad);
  } else {
    for (int i = 0; i < 3; ++i) params.output[i] = output_pointer(output[i], needed >> i & 1);
    DVAE_EXT_RUN(overlap_exponential_log_prob_backward, params, grad);
  }
  return {output[0], output[1], output[2]};
}

// The gradient of the backward pass: first of grad, then of each argument.
std::tuple<Tensor, Tensor, Tensor, Tensor> overlap_exponential_log_prob_backward_backward(
    const Tensor& grad_zeta, const Tensor& grad_logits, const Tensor& grad_beta, const Tensor& grad, const Tensor& zeta,
    const Tensor& logits, const Tensor& beta) {
  kernels::Elementwise params =
      elementwise_inputs("overlap_exponential_log_prob_backward_backward", {{grad_zeta, "grad_zeta"},
                                                                            {grad_logits, "grad_logits"},
                                                                            {grad_beta, "grad_beta"},
                                                                            {grad, "grad"},
                                                                            {zeta, "zeta"},
                                                                            {logits, "logits"},
                                                                            {beta, "beta"}});
  Tensor output[4];
  for (int i = 0; i < 4; ++i) {
    output[i] = empty_like(grad_zeta);
    params.output[i] = output[i].mutable_data_ptr();
  }
  DVAE_EXT_RUN(overlap_exponential_log_prob_backward_backward, params, grad);
  return {output[0], output[1], output[2], output[3]};
}

}  // namespace

DVAE_EXT_SCHEMAS(overlap_exponential) {
  m.def("overlap_exponential_icdf(Tensor rho, Tensor logits, Tensor beta) -> Tensor");
  m.def(
      "overlap_exponential_icdf_backward(Tensor grad, Tensor rho, Tensor logits, Tensor beta, int needed) -> (Tensor, "
      "Tensor, Tensor)");
  m.def(
      "overlap_exponential_icdf_backward_backward(Tensor grad_rho, Tensor grad_logits, Tensor grad_beta, Tensor grad, "
      "Tensor rho, Tensor logits, Tensor beta) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("overlap_exponential_log_prob(Tensor zeta, Tensor logits, Tensor beta) -> Tensor");
  m.def(
      "overlap_exponential_log_prob_backward(Tensor grad, Tensor zeta, Tensor logits, Tensor beta, int needed) -> "
      "(Tensor, Tensor, Tensor)");
  m.def(
      "overlap_exponential_log_prob_backward_backward(Tensor grad_zeta, Tensor grad_logits, Tensor grad_beta, Tensor "
      "grad, Tensor zeta, Tensor logits, Tensor beta) -> (Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(dvae_ext, DVAE_EXT_DISPATCH_KEY, m) {
  m.impl("overlap_exponential_icdf", TORCH_BOX(&overlap_exponential_icdf));
  m.impl("overlap_exponential_icdf_backward", TORCH_BOX(&overlap_exponential_icdf_backward));
  m.impl("overlap_exponential_icdf_backward_backward", TORCH_BOX(&overlap_exponential_icdf_backward_backward));
  m.impl("overlap_exponential_log_prob", TORCH_BOX(&overlap_exponential_log_prob));
  m.impl("overlap_exponential_log_prob_backward", TORCH_BOX(&overlap_exponential_log_prob_backward));
  m.impl("overlap_exponential_log_prob_backward_backward", TORCH_BOX(&overlap_exponential_log_prob_backward_backward));
}

}  // namespace dvae_ext::binding
