// What every op's binding needs: argument checks that name the argument, and a launch on the right backend.
//
// Each op's file is compiled once per shared object: for the CPU library, which also defines the schemas, and with
// DVAE_EXT_BACKEND_CUDA for the CUDA library.
#ifndef DVAE_EXT_BINDING_BACKEND_H  // not #pragma once: the build precompiles this header
#define DVAE_EXT_BINDING_BACKEND_H

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>

#include "kernels/dtype.h"
#include "kernels/parallel.h"
#if defined(DVAE_EXT_INTERPRETER)
#include "interpreter/interpreter.h"
#endif

namespace dvae_ext::binding {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

std::string describe(const Tensor& tensor);

// Each throws one sentence: what the op's argument is, what came, what was expected.
void check_shape(const Tensor& tensor, std::initializer_list<int64_t> expected, const char* op, const char* argument);
void check_same_dtype(const Tensor& tensor, const Tensor& like, const char* op, const char* argument);
void check_same_device(const Tensor& tensor, const Tensor& like, const char* op, const char* argument);
void check_contiguous(const Tensor& tensor, const char* op, const char* argument);
void check_key(const Tensor& key, const Tensor& like, const char* op);

// float32, float64, bfloat16 or float16; the second form float32 or float64 alone.
kernels::DType dtype_of(const Tensor& tensor, const char* op, const char* argument);
kernels::DType float_dtype_of(const Tensor& tensor, const char* op, const char* argument);

Tensor empty(std::initializer_list<int64_t> shape, const Tensor& like);
Tensor empty(std::initializer_list<int64_t> shape, ScalarType dtype, const Tensor& like);

kernels::Parallel torch_threads();

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream sentence;
  (sentence << ... << parts);
  throw std::runtime_error(sentence.str());
}

// Throws the CUDA error's sentence where code is not 0.
void check_launch(int code, const char* op);
void* current_stream(const Tensor& tensor);

}  // namespace dvae_ext::binding

// The sentence alone: STD_TORCH_CHECK would put this function, file and line in front of what the user reads.
#define DVAE_EXT_CHECK(condition, ...) \
  if (!(condition)) ::dvae_ext::binding::fail(__VA_ARGS__)

// Runs `op` with `params` where `tensor` lives.
#if defined(DVAE_EXT_BACKEND_CUDA)
#define DVAE_EXT_DISPATCH_KEY CUDA
#define DVAE_EXT_RUN(op, params, tensor)                                                           \
  do {                                                                                             \
    const torch::stable::accelerator::DeviceGuard device_guard((tensor).get_device_index());       \
    ::dvae_ext::binding::check_launch(                                                             \
        ::dvae_ext::kernels::op##_cuda(params, ::dvae_ext::binding::current_stream(tensor)), #op); \
  } while (false)
#elif defined(DVAE_EXT_INTERPRETER)
#define DVAE_EXT_DISPATCH_KEY CPU
#define DVAE_EXT_RUN(op, params, tensor)                                                       \
  do {                                                                                         \
    if (::dvae_ext::interpreter::enabled()) {                                                  \
      ::dvae_ext::binding::check_launch(::dvae_ext::kernels::op##_cuda(params, nullptr), #op); \
    } else {                                                                                   \
      ::dvae_ext::kernels::op##_cpu(params, ::dvae_ext::binding::torch_threads());             \
    }                                                                                          \
  } while (false)
#else
#define DVAE_EXT_DISPATCH_KEY CPU
#define DVAE_EXT_RUN(op, params, tensor) ::dvae_ext::kernels::op##_cpu(params, ::dvae_ext::binding::torch_threads())
#endif

// Schemas belong to the CPU library, which is always there; the CUDA library only adds implementations.
#if defined(DVAE_EXT_BACKEND_CUDA)
#define DVAE_EXT_SCHEMAS(name) \
  [[maybe_unused]] static void dvae_ext_schemas_##name(torch::stable::detail::StableLibrary& m)
#else
#define DVAE_EXT_SCHEMAS(name) STABLE_TORCH_LIBRARY_FRAGMENT(dvae_ext, m)
#endif

#endif
