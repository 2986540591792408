#include "kernels/rbm_log_z_exact.h"

#include "binding/backend.h"

namespace dvae_ext::binding {

namespace {

using kernels::RbmLogZExact;

RbmLogZExact model_params(const char* op, const Tensor& weight, const Tensor& visible_bias, const Tensor& hidden_bias) {
  RbmLogZExact params{};
  params.dtype = float_dtype_of(weight, op, "weight");
  DVAE_EXT_CHECK(weight.dim() == 2 && weight.size(0) > 0 && weight.size(1) > 0, op, ": weight is ", describe(weight),
                 ", expected [n_visible, n_hidden] with at least one unit on each side");
  check_shape(visible_bias, {weight.size(0)}, op, "visible_bias");
  check_shape(hidden_bias, {weight.size(1)}, op, "hidden_bias");
  for (const auto& [tensor, name] :
       {std::pair(&visible_bias, "visible_bias"), std::pair(&hidden_bias, "hidden_bias")}) {
    check_same_dtype(*tensor, weight, op, name);
    check_same_device(*tensor, weight, op, name);
    check_contiguous(*tensor, op, name);
  }
  check_contiguous(weight, op, "weight");

  const bool by_visible = weight.size(0) <= weight.size(1);
  params.weight = weight.const_data_ptr();
  params.enumerated_bias = (by_visible ? visible_bias : hidden_bias).const_data_ptr();
  params.summed_bias = (by_visible ? hidden_bias : visible_bias).const_data_ptr();
  params.enumerated = weight.size(by_visible ? 0 : 1);
  params.summed = weight.size(by_visible ? 1 : 0);
  params.enumerated_stride = by_visible ? weight.size(1) : 1;
  params.summed_stride = by_visible ? 1 : weight.size(1);
  DVAE_EXT_CHECK(params.enumerated <= RbmLogZExact::kMaxEnumerated, op, ": the smaller side of weight has ",
                 params.enumerated, " units, expected at most ", RbmLogZExact::kMaxEnumerated,
                 ", whose states can be enumerated; dvae_ext.rbm.log_z estimates log Z of larger models");
  return params;
}

// The CUDA kernels' tables; the CPU kernels bring their own.
Tensor workspace_for(RbmLogZExact& params, bool backward, const Tensor& like) {
#if defined(DVAE_EXT_BACKEND_CUDA) || defined(DVAE_EXT_INTERPRETER)
  Tensor workspace = empty({params.workspace_size(backward)}, ScalarType::Double, like);
#else
  static_cast<void>(backward);
  Tensor workspace = empty({0}, ScalarType::Double, like);
#endif
  params.workspace = static_cast<double*>(workspace.mutable_data_ptr());
  return workspace;
}

Tensor rbm_log_z_exact(const Tensor& weight, const Tensor& visible_bias, const Tensor& hidden_bias) {
  RbmLogZExact params = model_params("rbm_log_z_exact", weight, visible_bias, hidden_bias);
  const Tensor workspace = workspace_for(params, false, weight);
  Tensor log_z = empty({}, ScalarType::Double, weight);
  params.log_z = static_cast<double*>(log_z.mutable_data_ptr());
  DVAE_EXT_RUN(rbm_log_z_exact, params, weight);
  return log_z;
}

std::tuple<Tensor, Tensor, Tensor> rbm_log_z_exact_backward(const Tensor& grad, const Tensor& log_z,
                                                            const Tensor& weight, const Tensor& visible_bias,
                                                            const Tensor& hidden_bias) {
  const char* op = "rbm_log_z_exact_backward";
  kernels::RbmLogZExactBackward params{};
  params.model = model_params(op, weight, visible_bias, hidden_bias);
  for (const auto& [tensor, name] : {std::pair(&grad, "grad"), std::pair(&log_z, "log_z")}) {
    check_shape(*tensor, {}, op, name);
    check_same_device(*tensor, weight, op, name);
    DVAE_EXT_CHECK(tensor->scalar_type() == ScalarType::Double, op, ": ", name, " is ", describe(*tensor),
                   ", expected float64");
  }
  const Tensor workspace = workspace_for(params.model, true, weight);
  Tensor grad_weight = empty_like(weight);
  Tensor grad_visible = empty_like(visible_bias);
  Tensor grad_hidden = empty_like(hidden_bias);
  const bool by_visible = weight.size(0) <= weight.size(1);
  params.model.log_z = static_cast<double*>(log_z.mutable_data_ptr());
  params.grad = static_cast<const double*>(grad.const_data_ptr());
  params.grad_weight = grad_weight.mutable_data_ptr();
  params.grad_enumerated_bias = (by_visible ? grad_visible : grad_hidden).mutable_data_ptr();
  params.grad_summed_bias = (by_visible ? grad_hidden : grad_visible).mutable_data_ptr();
  DVAE_EXT_RUN(rbm_log_z_exact_backward, params, weight);
  return {grad_weight, grad_visible, grad_hidden};
}

}  // namespace

DVAE_EXT_SCHEMAS(rbm_log_z_exact) {
  m.def("rbm_log_z_exact(Tensor weight, Tensor visible_bias, Tensor hidden_bias) -> Tensor");
  m.def(
      "rbm_log_z_exact_backward(Tensor grad, Tensor log_z, Tensor weight, Tensor visible_bias, Tensor hidden_bias) -> "
      "(Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(dvae_ext, DVAE_EXT_DISPATCH_KEY, m) {
  m.impl("rbm_log_z_exact", TORCH_BOX(&rbm_log_z_exact));
  m.impl("rbm_log_z_exact_backward", TORCH_BOX(&rbm_log_z_exact_backward));
}

}  // namespace dvae_ext::binding
