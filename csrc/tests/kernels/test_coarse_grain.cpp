#include "common.h"
#include "kernels/coarse_grain_kl.h"
#include "kernels/coarse_grain_sample.h"

namespace dvae_ext::tests {
namespace {

using namespace kernels;

template <class T>
constexpr DType kType = sizeof(T) == 8 ? DType::kFloat64 : DType::kFloat32;

template <class T>
void expect_close(Buffer<T>& got, Buffer<T>& expected) {
  for (std::size_t k = 0; k < got.size(); ++k) {
    if (!close(got[k], expected[k], sizeof(T) == 8 ? 1e-9 : 1e-3)) EXPECT_EQUAL(got[k], expected[k]);
  }
}

template <class T>
void compare_sample(int64_t samples, int64_t batch, int64_t dims, int64_t order, int64_t points) {
  Numbers numbers;
  Buffer<T> coefficients(batch * dims * order), grad_z(samples * batch * dims);
  fill(coefficients, numbers, -1, 1);
  fill(grad_z, numbers, -1, 1);
  Buffer<int64_t> key(2);
  key[0] = 11;
  key[1] = 3;
  Buffer<double> temperature(1);
  temperature[0] = 0.5;
  Buffer<T> z[2] = {Buffer<T>(samples * batch * dims), Buffer<T>(samples * batch * dims)};
  Buffer<T> grads[2] = {Buffer<T>(batch * dims * order), Buffer<T>(batch * dims * order)};
  for (int backend = 0; backend < 2; ++backend) {
    const CoarseGrainSample forward{
        kType<T>,   samples,          batch, dims, order, points, temperature.data(), coefficients.data(),
        key.data(), z[backend].data()};
    const CoarseGrainSampleBackward backward{kType<T>,
                                             samples,
                                             batch,
                                             dims,
                                             order,
                                             points,
                                             temperature.data(),
                                             coefficients.data(),
                                             key.data(),
                                             grad_z.data(),
                                             grads[backend].data()};
    if (backend == 0) {
      scalar::coarse_grain_sample(forward, kSerial);
      scalar::coarse_grain_sample_backward(backward, kSerial);
    } else {
      EXPECT_EQUAL(coarse_grain_sample_cuda(forward, nullptr), 0);
      EXPECT_EQUAL(coarse_grain_sample_backward_cuda(backward, nullptr), 0);
    }
  }
  expect_close(z[1], z[0]);
  expect_close(grads[1], grads[0]);
}

TEST(coarse_grain_sample) {
  compare_sample<float>(3, 2, 3, 4, 41);
  compare_sample<double>(2, 3, 2, 3, 100);
}

template <class T>
void compare_kl(int64_t batch, int64_t dims, int64_t order, int64_t points) {
  Numbers numbers;
  Buffer<T> q(batch * dims * order), p(dims * order), grad(batch * dims);
  fill(q, numbers, -1, 1);
  fill(p, numbers, -1, 1);
  fill(grad, numbers, -1, 1);
  Buffer<double> partial(coarse_grain_kl_chunks(batch) * dims * order);
  Buffer<T> kl[2] = {Buffer<T>(batch * dims), Buffer<T>(batch * dims)};
  Buffer<T> grad_q[2] = {Buffer<T>(batch * dims * order), Buffer<T>(batch * dims * order)};
  Buffer<T> grad_p[2] = {Buffer<T>(dims * order), Buffer<T>(dims * order)};
  for (int backend = 0; backend < 2; ++backend) {
    const CoarseGrainKl forward{kType<T>, batch, dims, order, points, q.data(), p.data(), kl[backend].data()};
    const CoarseGrainKlBackward backward{kType<T>,
                                         batch,
                                         dims,
                                         order,
                                         points,
                                         q.data(),
                                         p.data(),
                                         grad.data(),
                                         grad_q[backend].data(),
                                         grad_p[backend].data(),
                                         partial.data()};
    if (backend == 0) {
      scalar::coarse_grain_kl(forward, kSerial);
      scalar::coarse_grain_kl_backward(backward, kSerial);
    } else {
      EXPECT_EQUAL(coarse_grain_kl_cuda(forward, nullptr), 0);
      EXPECT_EQUAL(coarse_grain_kl_backward_cuda(backward, nullptr), 0);
    }
  }
  expect_close(kl[1], kl[0]);
  expect_close(grad_q[1], grad_q[0]);
  expect_close(grad_p[1], grad_p[0]);
}

TEST(coarse_grain_kl) {
  compare_kl<float>(9, 3, 4, 41);
  compare_kl<double>(3, 2, 3, 100);
}

}  // namespace
}  // namespace dvae_ext::tests
