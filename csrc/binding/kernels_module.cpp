// dvae_ext._kernels: the torch-free library for NumPy. Build and machine facts, and the scalar formulas vectorised for
// accuracy tests.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/cpu_dispatch.h"
#include "kernels/overlap_exponential.h"
#include "kernels/overlap_logistic.h"
#include "kernels/spike_exponential.h"

namespace py = pybind11;

namespace dvae_ext::binding {

namespace {

using Kernel = void (*)(const kernels::Elementwise&, const kernels::Parallel&);

template <class T>
py::list run(Kernel kernel, int outputs, const py::args& inputs) {
  using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;
  kernels::Elementwise params{};
  params.dtype = sizeof(T) == 8 ? kernels::DType::kFloat64 : kernels::DType::kFloat32;
  std::vector<Array> held;
  for (const auto& input : inputs) held.push_back(py::cast<Array>(input));
  for (const Array& array : held) params.size = std::max<int64_t>(params.size, array.size());
  for (size_t k = 0; k < held.size(); ++k) {
    if (held[k].size() != params.size && held[k].size() != 1) {
      throw std::invalid_argument("argument " + std::to_string(k) + " has " + std::to_string(held[k].size()) +
                                  " elements, expected 1 or " + std::to_string(params.size));
    }
    params.input[k] = held[k].data();
    params.uniform[k] = held[k].size() == 1 && params.size != 1;
  }
  py::list results;
  for (int k = 0; k < outputs; ++k) {
    py::array_t<T> result(params.size);
    params.output[k] = result.mutable_data();
    results.append(result);
  }
  kernel(params, {nullptr, nullptr, 1});
  return results;
}

// f32(*arrays) and f64(*arrays): flat arrays in, a list of flat arrays out, in the compute type of that precision.
void define(py::module_& module, const char* name, Kernel kernel, size_t inputs, int outputs) {
  const auto checked = [=](const py::args& arguments) {
    if (arguments.size() != inputs) {
      throw std::invalid_argument("expected " + std::to_string(inputs) + " arrays, got " +
                                  std::to_string(arguments.size()));
    }
  };
  module.def((std::string(name) + "_f32").c_str(), [=](const py::args& arguments) {
    checked(arguments);
    return run<float>(kernel, outputs, arguments);
  });
  module.def((std::string(name) + "_f64").c_str(), [=](const py::args& arguments) {
    checked(arguments);
    return run<double>(kernel, outputs, arguments);
  });
}

}  // namespace

PYBIND11_MODULE(_kernels, module) {
  module.doc() = "The torch-free kernels of dvae_ext on NumPy arrays.";
  module.def("cpu_isa", &kernels::cpu_isa_name, "The instruction set that CPU kernels use on this machine.");
  module.def(
      "vector_bits",
      [] {
        switch (kernels::cpu_isa()) {
          case kernels::Isa::kAvx512:
            return 512;
          case kernels::Isa::kAvx2:
            return 256;
          default:
            return 128;
        }
      },
      "The width of a vector register in that set.");
  module.def("compiler", [] { return std::string("g++ ") + __VERSION__; });

#define DVAE_EXT_DEFINE(op, inputs, arguments)        \
  define(module, #op, &kernels::op##_cpu, inputs, 1); \
  define(module, #op "_backward", &kernels::op##_backward_cpu, inputs + 1, arguments)
  DVAE_EXT_DEFINE(overlap_exponential_icdf, 3, 3);
  DVAE_EXT_DEFINE(overlap_exponential_log_prob, 3, 3);
  DVAE_EXT_DEFINE(overlap_logistic_icdf, 5, 5);
  DVAE_EXT_DEFINE(overlap_logistic_log_prob, 5, 5);
  DVAE_EXT_DEFINE(spike_exponential_icdf, 3, 3);
#undef DVAE_EXT_DEFINE
}

}  // namespace dvae_ext::binding
