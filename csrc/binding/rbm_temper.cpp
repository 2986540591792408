#include "kernels/rbm_temper.h"

#include <utility>

#include "binding/backend.h"

namespace dvae_ext::binding {

namespace {

using kernels::RbmTemper;

constexpr const char* kOp = "rbm_temper_";

void check(const Tensor& tensor, std::initializer_list<int64_t> shape, ScalarType dtype, const Tensor& like,
           const char* name) {
  DVAE_EXT_CHECK(tensor.scalar_type() == dtype, kOp, ": ", name, " has dtype ",
                 torch::headeronly::toString(tensor.scalar_type()), ", expected ", torch::headeronly::toString(dtype));
  check_shape(tensor, shape, kOp, name);
  check_same_device(tensor, like, kOp, name);
  check_contiguous(tensor, kOp, name);
}

void rbm_temper(const Tensor& visible, const Tensor& level, const Tensor& travel, const Tensor& statistics,
                const Tensor& weight, const Tensor& visible_bias, const Tensor& hidden_bias,
                const Tensor& reference_visible_bias, const Tensor& reference_hidden_bias, const Tensor& betas,
                const Tensor& shifts, const Tensor& key, int64_t sweeps, int64_t batch, int64_t first_ladder) {
  RbmTemper params{};
  params.dtype = float_dtype_of(weight, kOp, "weight");
  DVAE_EXT_CHECK(visible.dim() == 3 && visible.size(1) > 0, kOp, ": visible is ", describe(visible),
                 ", expected [ladders, levels, n_visible] with at least one level");
  DVAE_EXT_CHECK(weight.dim() == 2 && weight.size(0) > 0 && weight.size(1) > 0, kOp, ": weight is ", describe(weight),
                 ", expected [n_visible, n_hidden] with at least one unit on each side");
  params.ladders = visible.size(0);
  params.levels = visible.size(1);
  params.n_visible = weight.size(0);
  params.n_hidden = weight.size(1);
  DVAE_EXT_CHECK(params.levels <= RbmTemper::kMaxLevels, kOp, ": visible has ", params.levels,
                 " levels, expected at most ", RbmTemper::kMaxLevels);
  DVAE_EXT_CHECK(sweeps >= 0 && batch > 0 && sweeps % batch == 0, kOp, ": sweeps is ", sweeps, " and batch ", batch,
                 ", expected sweeps to be a multiple of a positive batch");
  DVAE_EXT_CHECK(first_ladder >= 0, kOp, ": first_ladder is ", first_ladder, ", expected 0 or more");

  const ScalarType dtype = weight.scalar_type();
  check(weight, {params.n_visible, params.n_hidden}, dtype, weight, "weight");
  check(visible, {params.ladders, params.levels, params.n_visible}, dtype, weight, "visible");
  check(level, {params.ladders, params.levels}, ScalarType::Long, weight, "level");
  check(travel, {params.ladders, params.levels}, ScalarType::Long, weight, "travel");
  check(statistics, {params.ladders, kernels::kTemperStatistics, params.levels}, ScalarType::Double, weight,
        "statistics");
  check(visible_bias, {params.n_visible}, dtype, weight, "visible_bias");
  check(hidden_bias, {params.n_hidden}, dtype, weight, "hidden_bias");
  check(reference_visible_bias, {params.n_visible}, dtype, weight, "reference_visible_bias");
  check(reference_hidden_bias, {params.n_hidden}, dtype, weight, "reference_hidden_bias");
  check(betas, {params.levels}, ScalarType::Double, weight, "betas");
  check(shifts, {params.levels - 1}, ScalarType::Double, weight, "shifts");
  check_key(key, weight, kOp);

  params.visible = visible.mutable_data_ptr();
  params.level = static_cast<int64_t*>(level.mutable_data_ptr());
  params.travel = static_cast<int64_t*>(travel.mutable_data_ptr());
  params.statistics = static_cast<double*>(statistics.mutable_data_ptr());
  params.weight = weight.const_data_ptr();
  params.visible_bias = visible_bias.const_data_ptr();
  params.hidden_bias = hidden_bias.const_data_ptr();
  params.reference_visible_bias = reference_visible_bias.const_data_ptr();
  params.reference_hidden_bias = reference_hidden_bias.const_data_ptr();
  params.betas = static_cast<const double*>(betas.const_data_ptr());
  params.shifts = static_cast<const double*>(shifts.const_data_ptr());
  params.key = static_cast<const int64_t*>(key.const_data_ptr());
  params.first_ladder = first_ladder;
  params.sweeps = sweeps;
  params.batch = batch;
  uint32_t problems = 0;
  params.problems = &problems;
#if defined(DVAE_EXT_BACKEND_CUDA) || defined(DVAE_EXT_INTERPRETER)
  Tensor workspace = empty({params.workspace_size()}, ScalarType::Byte, weight);
  params.workspace = workspace.mutable_data_ptr();
#endif
  if (params.ladders == 0 || sweeps == 0) return;
  DVAE_EXT_RUN(rbm_temper, params, weight);
  DVAE_EXT_CHECK((problems & kernels::kRbmTemperVisible) == 0, kOp,
                 ": visible holds a state that is neither 0 nor 1, expected 0 and 1 alone");
  DVAE_EXT_CHECK((problems & kernels::kRbmTemperLevel) == 0, kOp,
                 ": level is no permutation of 0 ... levels - 1 in some ladder");
  DVAE_EXT_CHECK((problems & kernels::kRbmTemperModel) == 0, kOp,
                 ": weight, a bias, betas or shifts holds NaN or infinity, expected finite numbers");
}

}  // namespace

DVAE_EXT_SCHEMAS(rbm_temper) {
  m.def(
      "rbm_temper_(Tensor(a!) visible, Tensor(b!) level, Tensor(c!) travel, Tensor(d!) statistics, Tensor weight, "
      "Tensor "
      "visible_bias, Tensor hidden_bias, Tensor reference_visible_bias, Tensor reference_hidden_bias, Tensor betas, "
      "Tensor shifts, Tensor key, SymInt sweeps, SymInt batch, SymInt first_ladder) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(dvae_ext, DVAE_EXT_DISPATCH_KEY, m) { m.impl("rbm_temper_", TORCH_BOX(&rbm_temper)); }

}  // namespace dvae_ext::binding
