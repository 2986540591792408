#include "kernels/coarse_grain_kl.h"

#include "binding/backend.h"

namespace dvae_ext::binding {

namespace {

template <class Params>
Params inputs(const char* op, const Tensor& q, const Tensor& p, int64_t num_points) {
  DVAE_EXT_CHECK(q.dim() == 3, op, ": q_coefficients is ", describe(q), ", expected the shape [batch, dims, order]");
  check_shape(p, {q.size(1), q.size(2)}, op, "p_coefficients");
  check_same_dtype(p, q, op, "p_coefficients");
  check_same_device(p, q, op, "p_coefficients");
  check_contiguous(q, op, "q_coefficients");
  check_contiguous(p, op, "p_coefficients");
  Params params{};
  params.dtype = dtype_of(q, op, "q_coefficients");
  params.batch = q.size(0);
  params.dims = q.size(1);
  params.order = q.size(2);
  params.num_points = num_points;
  params.q_coefficients = q.const_data_ptr();
  params.p_coefficients = p.const_data_ptr();
  DVAE_EXT_CHECK(params.order >= 1 && params.order <= num_points - 2, op, ": the polynomial has order ", params.order,
                 " on a grid of ", num_points, " points, expected an order from 1 to num_points - 2");
  return params;
}

Tensor coarse_grain_kl(const Tensor& q, const Tensor& p, int64_t num_points) {
  auto params = inputs<kernels::CoarseGrainKl>("coarse_grain_kl", q, p, num_points);
  Tensor kl = empty({params.batch, params.dims}, q);
  params.kl = kl.mutable_data_ptr();
  DVAE_EXT_RUN(coarse_grain_kl, params, q);
  return kl;
}

std::tuple<Tensor, Tensor> coarse_grain_kl_backward(const Tensor& grad, const Tensor& q, const Tensor& p,
                                                    int64_t num_points) {
  const char* op = "coarse_grain_kl_backward";
  auto params = inputs<kernels::CoarseGrainKlBackward>(op, q, p, num_points);
  check_shape(grad, {params.batch, params.dims}, op, "grad");
  check_same_dtype(grad, q, op, "grad");
  check_same_device(grad, q, op, "grad");
  check_contiguous(grad, op, "grad");
  Tensor grad_q = empty_like(q), grad_p = empty_like(p);
  Tensor partial =
      empty({kernels::coarse_grain_kl_chunks(params.batch), params.dims, params.order}, ScalarType::Double, q);
  params.grad_kl = grad.const_data_ptr();
  params.grad_q_coefficients = grad_q.mutable_data_ptr();
  params.grad_p_coefficients = grad_p.mutable_data_ptr();
  params.partial = static_cast<double*>(partial.mutable_data_ptr());
  DVAE_EXT_RUN(coarse_grain_kl_backward, params, q);
  return {grad_q, grad_p};
}

}  // namespace

DVAE_EXT_SCHEMAS(coarse_grain_kl) {
  m.def("coarse_grain_kl(Tensor q_coefficients, Tensor p_coefficients, SymInt num_points) -> Tensor");
  m.def(
      "coarse_grain_kl_backward(Tensor grad, Tensor q_coefficients, Tensor p_coefficients, SymInt num_points) -> "
      "(Tensor, "
      "Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(dvae_ext, DVAE_EXT_DISPATCH_KEY, m) {
  m.impl("coarse_grain_kl", TORCH_BOX(&coarse_grain_kl));
  m.impl("coarse_grain_kl_backward", TORCH_BOX(&coarse_grain_kl_backward));
}

}  // namespace dvae_ext::binding
