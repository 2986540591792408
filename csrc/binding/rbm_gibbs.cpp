#include "kernels/rbm_gibbs.h"

#include <limits>

#include "binding/backend.h"

namespace dvae_ext::binding {

namespace {

void rbm_gibbs_(Tensor visible, Tensor hidden, const Tensor& weight, const Tensor& visible_bias,
                const Tensor& hidden_bias, const Tensor& key, int64_t sweeps) {
  constexpr const char* kOp = "rbm_gibbs_";
  kernels::RbmGibbs params{};
  DVAE_EXT_CHECK(weight.dim() == 2, kOp, ": weight is ", describe(weight), ", expected [n_visible, n_hidden]");
  DVAE_EXT_CHECK(visible.dim() == 2, kOp, ": visible is ", describe(visible), ", expected [chains, n_visible]");
  params.chains = visible.size(0);
  params.n_visible = weight.size(0);
  params.n_hidden = weight.size(1);
  params.sweeps = sweeps;
  params.dtype = float_dtype_of(weight, kOp, "weight");
  params.state_dtype = dtype_of(visible, kOp, "visible");
  DVAE_EXT_CHECK(params.state_dtype == params.dtype || params.state_dtype == kernels::DType::kBFloat16, kOp,
                 ": visible has dtype ", torch::headeronly::toString(visible.scalar_type()),
                 ", expected bfloat16 or the dtype of weight, ", torch::headeronly::toString(weight.scalar_type()));
  check_same_dtype(hidden, visible, kOp, "hidden");
  check_same_dtype(visible_bias, weight, kOp, "visible_bias");
  check_same_dtype(hidden_bias, weight, kOp, "hidden_bias");
  check_shape(visible, {params.chains, params.n_visible}, kOp, "visible");
  check_shape(hidden, {params.chains, params.n_hidden}, kOp, "hidden");
  check_shape(visible_bias, {params.n_visible}, kOp, "visible_bias");
  check_shape(hidden_bias, {params.n_hidden}, kOp, "hidden_bias");
  check_same_device(hidden, visible, kOp, "hidden");
  check_same_device(weight, visible, kOp, "weight");
  check_same_device(visible_bias, visible, kOp, "visible_bias");
  check_same_device(hidden_bias, visible, kOp, "hidden_bias");
  check_contiguous(visible, kOp, "visible");
  check_contiguous(hidden, kOp, "hidden");
  check_contiguous(weight, kOp, "weight");
  check_contiguous(visible_bias, kOp, "visible_bias");
  check_contiguous(hidden_bias, kOp, "hidden_bias");
  check_key(key, visible, kOp);
  DVAE_EXT_CHECK(sweeps >= 0, kOp, ": sweeps is ", sweeps, ", expected 0 or more");
  // A draw's counter has 32 bits for the chain and 31 for the block of 4 units.
  DVAE_EXT_CHECK(params.chains <= int64_t{std::numeric_limits<uint32_t>::max()}, kOp, ": visible has ", params.chains,
                 " chains, expected fewer than 2^32");
  DVAE_EXT_CHECK(params.n_visible < (int64_t{1} << 32) && params.n_hidden < (int64_t{1} << 32), kOp, ": weight is ",
                 describe(weight), ", expected fewer than 2^32 units a side");

  uint32_t problems = 0;
  params.visible = visible.mutable_data_ptr();
  params.hidden = hidden.mutable_data_ptr();
  params.weight = weight.const_data_ptr();
  params.visible_bias = visible_bias.const_data_ptr();
  params.hidden_bias = hidden_bias.const_data_ptr();
  params.key = static_cast<const int64_t*>(key.const_data_ptr());
  params.problems = &problems;
  DVAE_EXT_RUN(rbm_gibbs, params, visible);
  DVAE_EXT_CHECK((problems & kernels::kRbmGibbsVisible) == 0, kOp, ": visible holds other values than 0 and 1");
  DVAE_EXT_CHECK((problems & kernels::kRbmGibbsHidden) == 0, kOp, ": hidden holds other values than 0 and 1");
  DVAE_EXT_CHECK((problems & kernels::kRbmGibbsWeight) == 0, kOp,
                 ": weight holds NaN or infinity, expected finite numbers");
  DVAE_EXT_CHECK((problems & kernels::kRbmGibbsVisibleBias) == 0, kOp, ": visible_bias holds NaN");
  DVAE_EXT_CHECK((problems & kernels::kRbmGibbsHiddenBias) == 0, kOp, ": hidden_bias holds NaN");
}

}  // namespace

DVAE_EXT_SCHEMAS(rbm_gibbs) {
  m.def(
      "rbm_gibbs_(Tensor(a!) visible, Tensor(b!) hidden, Tensor weight, Tensor visible_bias, Tensor hidden_bias, "
      "Tensor key, SymInt sweeps) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(dvae_ext, DVAE_EXT_DISPATCH_KEY, m) { m.impl("rbm_gibbs_", TORCH_BOX(&rbm_gibbs_)); }

}  // namespace dvae_ext::binding
