#include "kernels/mutual_posterior_divergence.h"

#include "binding/backend.h"

namespace dvae_ext::binding {

namespace {

template <class Params>
Params inputs(const char* op, const Tensor& mean, const Tensor& logvar) {
  DVAE_EXT_CHECK(mean.dim() == 2, op, ": mean is ", describe(mean), ", expected the shape [batch, dims]");
  DVAE_EXT_CHECK(mean.size(0) >= 2, op, ": mean has ", mean.size(0), " rows, expected at least 2: one has no pairs");
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

ScalarType compute_type(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// The three divergences, and for the backward pass the pairwise KL and the statistics in float64.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> mutual_posterior_divergence(const Tensor& mean,
                                                                               const Tensor& logvar) {
  auto params = inputs<kernels::MutualPosteriorDivergence>("mutual_posterior_divergence", mean, logvar);
  const int64_t tiles = kernels::mutual_posterior_divergence_tiles(params.batch);
  Tensor diverse = empty({}, mean), smooth = empty({}, mean), mpd = empty({}, mean);
  Tensor kl = empty({params.batch, params.batch}, compute_type(mean), mean);
  Tensor statistics = empty({kernels::kMpdStatistics}, ScalarType::Double, mean);
  Tensor row_statistics = empty({params.batch, 3}, ScalarType::Double, mean);
  Tensor partial = empty({tiles, tiles}, ScalarType::Double, mean);
  params.kl = kl.mutable_data_ptr();
  params.row_statistics = static_cast<double*>(row_statistics.mutable_data_ptr());
  params.partial_softplus = static_cast<double*>(partial.mutable_data_ptr());
  params.statistics = static_cast<double*>(statistics.mutable_data_ptr());
  params.diverse = diverse.mutable_data_ptr();
  params.smooth = smooth.mutable_data_ptr();
  params.mpd = mpd.mutable_data_ptr();
  DVAE_EXT_RUN(mutual_posterior_divergence, params, mean);
  return {diverse, smooth, mpd, kl, statistics};
}

std::tuple<Tensor, Tensor> mutual_posterior_divergence_backward(const Tensor& grad_diverse, const Tensor& grad_smooth,
                                                                const Tensor& grad_mpd, const Tensor& mean,
                                                                const Tensor& logvar, const Tensor& kl,
                                                                const Tensor& statistics) {
  const char* op = "mutual_posterior_divergence_backward";
  auto params = inputs<kernels::MutualPosteriorDivergenceBackward>(op, mean, logvar);
  const Tensor* grads[] = {&grad_diverse, &grad_smooth, &grad_mpd};
  const char* names[] = {"grad_diverse", "grad_smooth", "grad_mpd"};
  for (int i = 0; i < 3; ++i) {
    check_shape(*grads[i], {}, op, names[i]);
    check_same_dtype(*grads[i], mean, op, names[i]);
    check_same_device(*grads[i], mean, op, names[i]);
  }
  check_shape(kl, {params.batch, params.batch}, op, "kl");
  check_same_device(kl, mean, op, "kl");
  check_contiguous(kl, op, "kl");
  DVAE_EXT_CHECK(kl.scalar_type() == compute_type(mean), op, ": kl is ", describe(kl),
                 ", expected what the forward pass returned");
  check_shape(statistics, {kernels::kMpdStatistics}, op, "statistics");
  check_same_device(statistics, mean, op, "statistics");
  DVAE_EXT_CHECK(statistics.scalar_type() == ScalarType::Double, op, ": statistics is ", describe(statistics),
                 ", expected what the forward pass returned");
  Tensor grad_mean = empty_like(mean), grad_logvar = empty_like(logvar);
  params.kl = kl.const_data_ptr();
  params.statistics = static_cast<const double*>(statistics.const_data_ptr());
  params.grad_diverse = grad_diverse.const_data_ptr();
  params.grad_smooth = grad_smooth.const_data_ptr();
  params.grad_mpd = grad_mpd.const_data_ptr();
  params.grad_mean = grad_mean.mutable_data_ptr();
  params.grad_logvar = grad_logvar.mutable_data_ptr();
  DVAE_EXT_RUN(mutual_posterior_divergence_backward, params, mean);
  return {grad_mean, grad_logvar};
}

}  // namespace

DVAE_EXT_SCHEMAS(mutual_posterior_divergence) {
  m.def("mutual_posterior_divergence(Tensor mean, Tensor logvar) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "mutual_posterior_divergence_backward(Tensor grad_diverse, Tensor grad_smooth, Tensor grad_mpd, Tensor mean, "
      "Tensor logvar, Tensor kl, Tensor statistics) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(dvae_ext, DVAE_EXT_DISPATCH_KEY, m) {
  m.impl("mutual_posterior_divergence", TORCH_BOX(&mutual_posterior_divergence));
  m.impl("mutual_posterior_divergence_backward", TORCH_BOX(&mutual_posterior_divergence_backward));
}

}  // namespace dvae_ext::binding
