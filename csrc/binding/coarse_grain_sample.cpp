#include "kernels/coarse_grain_sample.h"

#include "binding/backend.h"

namespace dvae_ext::binding {

namespace {

template <class Params>
Params inputs(const char* op, const Tensor& coefficients, const Tensor& key, const Tensor& temperature,
              int64_t num_points, int64_t num_samples) {
  DVAE_EXT_CHECK(coefficients.dim() == 3, op, ": coefficients is ", describe(coefficients),
                 ", expected the shape [batch, dims, order]");
  check_contiguous(coefficients, op, "coefficients");
  check_key(key, coefficients, op);
  check_shape(temperature, {}, op, "temperature");
  DVAE_EXT_CHECK(temperature.scalar_type() == ScalarType::Double, op, ": temperature is ", describe(temperature),
                 ", expected float64");
  check_same_device(temperature, coefficients, op, "temperature");
  Params params{};
  params.dtype = dtype_of(coefficients, op, "coefficients");
  params.num_samples = num_samples;
  params.batch = coefficients.size(0);
  params.dims = coefficients.size(1);
  params.order = coefficients.size(2);
  params.num_points = num_points;
  params.temperature = static_cast<const double*>(temperature.const_data_ptr());
  params.coefficients = coefficients.const_data_ptr();
  params.key = static_cast<const int64_t*>(key.const_data_ptr());
  constexpr int64_t words = int64_t{1} << 32;  // of a generator counter, which tells the samples apart
#if !defined(DVAE_EXT_BACKEND_CUDA)            // to read it there would wait for the device
  DVAE_EXT_CHECK(*params.temperature > 0, op, ": temperature is ", *params.temperature, ", expected a positive number");
#endif
  DVAE_EXT_CHECK(params.order >= 1 && params.order <= num_points - 2, op, ": the polynomial has order ", params.order,
                 " on a grid of ", num_points, " points, expected an order from 1 to num_points - 2");
  DVAE_EXT_CHECK(num_samples >= 0 && num_samples * params.batch * params.dims < words, op, ": num_samples is ",
                 num_samples, " for coefficients of ", params.batch, " x ", params.dims,
                 " densities, expected fewer than 2^32 samples in all");
  return params;
}

Tensor coarse_grain_sample(const Tensor& coefficients, const Tensor& key, const Tensor& temperature, int64_t num_points,
                           int64_t num_samples) {
  auto params = inputs<kernels::CoarseGrainSample>("coarse_grain_sample", coefficients, key, temperature, num_points,
                                                   num_samples);
  Tensor z = empty({num_samples, params.batch, params.dims}, coefficients);
  params.z = z.mutable_data_ptr();
  DVAE_EXT_RUN(coarse_grain_sample, params, coefficients);
  return z;
}

Tensor coarse_grain_sample_backward(const Tensor& grad, const Tensor& coefficients, const Tensor& key,
                                    const Tensor& temperature, int64_t num_points) {
  const char* op = "coarse_grain_sample_backward";
  DVAE_EXT_CHECK(grad.dim() == 3, op, ": grad is ", describe(grad), ", expected the shape [samples, batch, dims]");
  auto params =
      inputs<kernels::CoarseGrainSampleBackward>(op, coefficients, key, temperature, num_points, grad.size(0));
  check_shape(grad, {params.num_samples, params.batch, params.dims}, op, "grad");
  check_same_dtype(grad, coefficients, op, "grad");
  check_same_device(grad, coefficients, op, "grad");
  check_contiguous(grad, op, "grad");
  Tensor grad_coefficients = empty_like(coefficients);
  params.grad_z = grad.const_data_ptr();
  params.grad_coefficients = grad_coefficients.mutable_data_ptr();
  DVAE_EXT_RUN(coarse_grain_sample_backward, params, coefficients);
  return grad_coefficients;
}

}  // namespace

DVAE_EXT_SCHEMAS(coarse_grain_sample) {
  m.def(
      "coarse_grain_sample(Tensor coefficients, Tensor key, Tensor temperature, SymInt num_points, SymInt num_samples) "
      "-> "
      "Tensor");
  m.def(
      "coarse_grain_sample_backward(Tensor grad, Tensor coefficients, Tensor key, Tensor temperature, SymInt "
      "num_points) "
      "-> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(dvae_ext, DVAE_EXT_DISPATCH_KEY, m) {
  m.impl("coarse_grain_sample", TORCH_BOX(&coarse_grain_sample));
  m.impl("coarse_grain_sample_backward", TORCH_BOX(&coarse_grain_sample_backward));
}

}  // namespace dvae_ext::binding
