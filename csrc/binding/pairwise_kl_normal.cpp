#include "kernels/pairwise_kl_normal.h"

#include "binding/backend.h"

namespace dvae_ext::binding {

namespace {

// mean and logvar are [batch, dims], contiguous, alike.
template <class Params>
Params inputs(const char* op, const Tensor& mean, const Tensor& logvar) {
  DVAE_EXT_CHECK(mean.dim() == 2, op, ": mean is ", describe(mean), ", expected the shape [batch, dims]");
  check_shape(logvar, {mean.size(0), mean.size(1)}, op, "logvar");
  check_same_dtype(logvar, mean, op, "logvar");
  check_same_device(logvar, mean, op, "logvar");
  check_contiguous(mean, op, "mean");
  check_contiguous(logvar, op, "logvar");
  Params params{};
  params.dtype = dtype_of(mean, op, "mean");
  params.batch = mean.size(0);
  params.dims = mean.size(1);
  params.mean = mean.const_data_ptr();
  params.logvar = logvar.const_data_ptr();
  return params;
}

Tensor pairwise_kl_normal(const Tensor& mean, const Tensor& logvar) {
  auto params = inputs<kernels::PairwiseKlNormal>("pairwise_kl_normal", mean, logvar);
  Tensor kl = empty({params.batch, params.batch}, mean);
  params.kl = kl.mutable_data_ptr();
  DVAE_EXT_RUN(pairwise_kl_normal, params, mean);
  return kl;
}

std::tuple<Tensor, Tensor> pairwise_kl_normal_backward(const Tensor& grad, const Tensor& mean, const Tensor& logvar) {
  const char* op = "pairwise_kl_normal_backward";
  auto params = inputs<kernels::PairwiseKlNormalBackward>(op, mean, logvar);
  check_shape(grad, {params.batch, params.batch}, op, "grad");
  check_same_dtype(grad, mean, op, "grad");
  check_same_device(grad, mean, op, "grad");
  check_contiguous(grad, op, "grad");
  Tensor grad_mean = empty_like(mean), grad_logvar = empty_like(logvar);
  params.grad_kl = grad.const_data_ptr();
  params.grad_mean = grad_mean.mutable_data_ptr();
  params.grad_logvar = grad_logvar.mutable_data_ptr();
  DVAE_EXT_RUN(pairwise_kl_normal_backward, params, mean);
  return {grad_mean, grad_logvar};
}

}  // namespace

DVAE_EXT_SCHEMAS(pairwise_kl_normal) {
  m.def("pairwise_kl_normal(Tensor mean, Tensor logvar) -> Tensor");
  m.def("pairwise_kl_normal_backward(Tensor grad, Tensor mean, Tensor logvar) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(dvae_ext, DVAE_EXT_DISPATCH_KEY, m) {
  m.impl("pairwise_kl_normal", TORCH_BOX(&pairwise_kl_normal));
  m.impl("pairwise_kl_normal_backward", TORCH_BOX(&pairwise_kl_normal_backward));
}

}  // namespace dvae_ext::binding
