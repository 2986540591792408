#include "binding/elementwise.h"

namespace dvae_ext::binding {

kernels::Elementwise elementwise_inputs(const char* op, std::initializer_list<NamedTensor> inputs) {
  kernels::Elementwise params{};
  const Tensor& first = inputs.begin()->tensor;
  params.dtype = dtype_of(first, op, inputs.begin()->name);
  params.size = first.numel();
  int k = 0;
  for (const NamedTensor& input : inputs) {
    const bool half = params.dtype == kernels::DType::kBFloat16 || params.dtype == kernels::DType::kFloat16;
    params.wide[k] = half && input.tensor.numel() == 1 && input.tensor.scalar_type() == ScalarType::Float;
    if (!params.wide[k]) check_same_dtype(input.tensor, first, op, input.name);
    check_same_device(input.tensor, first, op, input.name);
    check_contiguous(input.tensor, op, input.name);
    DVAE_EXT_CHECK(input.tensor.numel() == params.size || input.tensor.numel() == 1, op, ": ", input.name, " is ",
                   describe(input.tensor), ", expected one element or the shape of ", inputs.begin()->name, ", ",
                   describe(first));
    params.input[k] = input.tensor.const_data_ptr();
    params.uniform[k] = input.tensor.numel() == 1 && (params.size != 1 || params.wide[k]);
    ++k;
  }
  return params;
}

}  // namespace dvae_ext::binding
