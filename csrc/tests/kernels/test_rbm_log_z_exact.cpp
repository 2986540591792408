#include "common.h"
#include "kernels/rbm_log_z_exact.h"

namespace dvae_ext::tests {
namespace {

using namespace kernels;

template <class T>
void compare(int64_t enumerated, int64_t summed, double scale) {
  Numbers numbers;
  Buffer<T> weight(enumerated * summed), enumerated_bias(enumerated), summed_bias(summed);
  fill(weight, numbers, -scale, scale);
  fill(enumerated_bias, numbers, -scale, scale);
  fill(summed_bias, numbers, -scale, scale);
  RbmLogZExactBackward params = {};
  params.model.weight = weight.data();
  params.model.enumerated_bias = enumerated_bias.data();
  params.model.summed_bias = summed_bias.data();
  params.model.dtype = sizeof(T) == 8 ? DType::kFloat64 : DType::kFloat32;
  params.model.enumerated = enumerated;
  params.model.summed = summed;
  params.model.enumerated_stride = summed;
  params.model.summed_stride = 1;
  const double grad = 2;
  params.grad = &grad;

  double log_z[2];
  std::vector<Buffer<T>> grads[2];
  for (int backend = 0; backend < 2; ++backend) {
    Buffer<double> workspace(params.model.workspace_size(true));
    params.model.workspace = workspace.data();
    params.model.log_z = &log_z[backend];
    grads[backend].emplace_back(enumerated * summed);
    grads[backend].emplace_back(enumerated);
    grads[backend].emplace_back(summed);
    params.grad_weight = grads[backend][0].data();
    params.grad_enumerated_bias = grads[backend][1].data();
    params.grad_summed_bias = grads[backend][2].data();
    if (backend == 0) {
      scalar::rbm_log_z_exact(params.model, kSerial);
      scalar::rbm_log_z_exact_backward(params, kSerial);
    } else {
      EXPECT_EQUAL(rbm_log_z_exact_cuda(params.model, nullptr), 0);
      EXPECT_EQUAL(rbm_log_z_exact_backward_cuda(params, nullptr), 0);
    }
  }
  if (!close(log_z[1], log_z[0], 1e-12)) EXPECT_EQUAL(log_z[1], log_z[0]);
  for (std::size_t i = 0; i < 3; ++i) {
    for (std::size_t k = 0; k < grads[0][i].size(); ++k) {
      if (!close(grads[1][i][k], grads[0][i][k], sizeof(T) == 8 ? 1e-9 : 1e-5)) {
        EXPECT_EQUAL(grads[1][i][k], grads[0][i][k]);
      }
    }
  }
}

TEST(rbm_log_z_exact) {
  compare<float>(3, 5, 1);
  compare<double>(8, 40, 1);
  compare<float>(15, 3, 0.5);
  compare<double>(7, 6, 300);  // fields beyond the range of a product
  compare<double>(14, 0, 1);
}

TEST(rbm_log_z_exact_of_parameters_that_are_not_finite) { compare<double>(3, 70, HUGE_VAL); }

}  // namespace
}  // namespace dvae_ext::tests
