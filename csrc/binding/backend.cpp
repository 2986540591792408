#include "binding/backend.h"

#include <sstream>
#include <vector>

#if defined(DVAE_EXT_BACKEND_CUDA)
#include <cuda_runtime_api.h>
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);
#endif

namespace dvae_ext::binding {

namespace {

std::string shape_text(torch::headeronly::IntHeaderOnlyArrayRef shape) {
  std::ostringstream out;
  out << '[';
  for (size_t i = 0; i < shape.size(); ++i) out << (i ? ", " : "") << shape[i];
  out << ']';
  return out.str();
}

std::string device_text(const Tensor& tensor) {
  return tensor.is_cuda() ? "cuda:" + std::to_string(tensor.get_device_index()) : "cpu";
}

}  // namespace

std::string describe(const Tensor& tensor) {
  std::ostringstream out;
  out << torch::headeronly::toString(tensor.scalar_type()) << ' ' << shape_text(tensor.sizes()) << " on "
      << device_text(tensor);
  return out.str();
}

void check_shape(const Tensor& tensor, std::initializer_list<int64_t> expected, const char* op, const char* argument) {
  const torch::headeronly::IntHeaderOnlyArrayRef want(expected.begin(), expected.size());
  bool equal = tensor.sizes().size() == want.size();
  for (size_t i = 0; equal && i < want.size(); ++i) equal = tensor.sizes()[i] == want[i];
  DVAE_EXT_CHECK(equal, op, ": ", argument, " has shape ", shape_text(tensor.sizes()), ", expected ", shape_text(want));
}

void check_same_dtype(const Tensor& tensor, const Tensor& like, const char* op, const char* argument) {
  DVAE_EXT_CHECK(tensor.scalar_type() == like.scalar_type(), op, ": ", argument, " has dtype ",
                 torch::headeronly::toString(tensor.scalar_type()), ", expected ",
                 torch::headeronly::toString(like.scalar_type()), " like the first argument");
}

void check_same_device(const Tensor& tensor, const Tensor& like, const char* op, const char* argument) {
  DVAE_EXT_CHECK(tensor.is_cuda() == like.is_cuda() && tensor.get_device_index() == like.get_device_index(), op, ": ",
                 argument, " is on ", device_text(tensor), ", expected ", device_text(like),
                 " like the first argument");
}

void check_contiguous(const Tensor& tensor, const char* op, const char* argument) {
  DVAE_EXT_CHECK(tensor.is_contiguous(), op, ": ", argument, " is not contiguous, expected a contiguous tensor");
}

void check_key(const Tensor& key, const Tensor& like, const char* op) {
  DVAE_EXT_CHECK(key.scalar_type() == ScalarType::Long, op, ": key has dtype ",
                 torch::headeronly::toString(key.scalar_type()), ", expected int64 from dvae_ext.rng.key");
  check_shape(key, {2}, op, "key");
  check_same_device(key, like, op, "key");
  check_contiguous(key, op, "key");
}

kernels::DType dtype_of(const Tensor& tensor, const char* op, const char* argument) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return kernels::DType::kFloat32;
    case ScalarType::Double:
      return kernels::DType::kFloat64;
    case ScalarType::BFloat16:
      return kernels::DType::kBFloat16;
    case ScalarType::Half:
      return kernels::DType::kFloat16;
    default:
      DVAE_EXT_CHECK(false, op, ": ", argument, " has dtype ", torch::headeronly::toString(tensor.scalar_type()),
                     ", expected float32, float64, bfloat16 or float16");
  }
}

kernels::DType float_dtype_of(const Tensor& tensor, const char* op, const char* argument) {
  const ScalarType dtype = tensor.scalar_type();
  DVAE_EXT_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double, op, ": ", argument, " has dtype ",
                 torch::headeronly::toString(dtype), ", expected float32 or float64");
  return dtype == ScalarType::Float ? kernels::DType::kFloat32 : kernels::DType::kFloat64;
}

Tensor empty(std::initializer_list<int64_t> shape, const Tensor& like) {
  return torch::stable::new_empty(like, torch::headeronly::IntHeaderOnlyArrayRef(shape.begin(), shape.size()));
}

Tensor empty(std::initializer_list<int64_t> shape, ScalarType dtype, const Tensor& like) {
  return torch::stable::new_empty(like, torch::headeronly::IntHeaderOnlyArrayRef(shape.begin(), shape.size()), dtype);
}

kernels::Parallel torch_threads() {
  return {[](void*, int64_t begin, int64_t end, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context) {
            torch::stable::parallel_for(begin, end, grain,
                                        [&](int64_t first, int64_t last) { body(context, first, last); });
          },
          nullptr, static_cast<int>(torch::stable::get_num_threads())};
}

void check_launch(int code, const char* op) {
#if defined(DVAE_EXT_BACKEND_CUDA)
  DVAE_EXT_CHECK(code == 0, op,
                 ": the CUDA kernel did not start: ", cudaGetErrorString(static_cast<cudaError_t>(code)));
#else
  DVAE_EXT_CHECK(code == 0, op, ": the interpreted CUDA kernel returned error ", code);
#endif
}

void* current_stream([[maybe_unused]] const Tensor& tensor) {
  void* stream = nullptr;
#if defined(DVAE_EXT_BACKEND_CUDA)
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
#endif
  return stream;
}

}  // namespace dvae_ext::binding
