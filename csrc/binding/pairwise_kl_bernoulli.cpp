#include "kernels/pairwise_kl_bernoulli.h"

#include "binding/backend.h"

namespace dvae_ext::binding {

namespace {

template <class Params>
Params inputs(const char* op, const Tensor& logits) {
  DVAE_EXT_CHECK(logits.dim() == 2, op, ": logits is ", describe(logits), ", expected the shape [batch, dims]");
  check_contiguous(logits, op, "logits");
  Params params{};
  params.dtype = dtype_of(logits, op, "logits");
  params.batch = logits.size(0);
  params.dims = logits.size(1);
  params.logits = logits.const_data_ptr();
  return params;
}

Tensor pairwise_kl_bernoulli(const Tensor& logits) {
  auto params = inputs<kernels::PairwiseKlBernoulli>("pairwise_kl_bernoulli", logits);
  Tensor kl = empty({params.batch, params.batch}, logits);
  params.kl = kl.mutable_data_ptr();
  DVAE_EXT_RUN(pairwise_kl_bernoulli, params, logits);
  return kl;
}

Tensor pairwise_kl_bernoulli_backward(const Tensor& grad, const Tensor& logits) {
  const char* op = "pairwise_kl_bernoulli_backward";
  auto params = inputs<kernels::PairwiseKlBernoulliBackward>(op, logits);
  check_shape(grad, {params.batch, params.batch}, op, "grad");
  check_same_dtype(grad, logits, op, "grad");
  check_same_device(grad, logits, op, "grad");
  check_contiguous(grad, op, "grad");
  Tensor grad_logits = empty_like(logits);
  params.grad_kl = grad.const_data_ptr();
  params.grad_logits = grad_logits.mutable_data_ptr();
  DVAE_EXT_RUN(pairwise_kl_bernoulli_backward, params, logits);
  return grad_logits;
}

}  // namespace

DVAE_EXT_SCHEMAS(pairwise_kl_bernoulli) {
  m.def("pairwise_kl_bernoulli(Tensor logits) -> Tensor");
  m.def("pairwise_kl_bernoulli_backward(Tensor grad, Tensor logits) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(dvae_ext, DVAE_EXT_DISPATCH_KEY, m) {
  m.impl("pairwise_kl_bernoulli", TORCH_BOX(&pairwise_kl_bernoulli));
  m.impl("pairwise_kl_bernoulli_backward", TORCH_BOX(&pairwise_kl_bernoulli_backward));
}

}  // namespace dvae_ext::binding
