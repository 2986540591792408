#include "common.h"
#include "kernels/mutual_posterior_divergence.h"
#include "kernels/pairwise_kl_bernoulli.h"
#include "kernels/pairwise_kl_normal.h"

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

// More posteriors than a tile has rows, more dimensions than a stage holds.
template <class T>
void compare_normal(int64_t batch, int64_t dims) {
  Numbers numbers;
  Buffer<T> mean(batch * dims), logvar(batch * dims), grad(batch * batch);
  fill(mean, numbers, -1, 1);
  fill(logvar, numbers, -1, 1);
  fill(grad, numbers, -1, 1);
  Buffer<T> kl[2] = {Buffer<T>(batch * batch), Buffer<T>(batch * batch)};
  Buffer<T> grad_mean[2] = {Buffer<T>(batch * dims), Buffer<T>(batch * dims)};
  Buffer<T> grad_logvar[2] = {Buffer<T>(batch * dims), Buffer<T>(batch * dims)};
  for (int backend = 0; backend < 2; ++backend) {
    const PairwiseKlNormal forward{kType<T>, batch, dims, mean.data(), logvar.data(), kl[backend].data()};
    const PairwiseKlNormalBackward backward{kType<T>,
                                            batch,
                                            dims,
                                            mean.data(),
                                            logvar.data(),
                                            grad.data(),
                                            grad_mean[backend].data(),
                                            grad_logvar[backend].data()};
    if (backend == 0) {
      scalar::pairwise_kl_normal(forward, kSerial);
      scalar::pairwise_kl_normal_backward(backward, kSerial);
    } else {
      EXPECT_EQUAL(pairwise_kl_normal_cuda(forward, nullptr), 0);
      EXPECT_EQUAL(pairwise_kl_normal_backward_cuda(backward, nullptr), 0);
    }
  }
  expect_close(kl[1], kl[0]);
  expect_close(grad_mean[1], grad_mean[0]);
  expect_close(grad_logvar[1], grad_logvar[0]);
}

TEST(pairwise_kl_normal) {
  compare_normal<float>(70, 19);
  compare_normal<double>(35, 9);
}

template <class T>
void compare_bernoulli(int64_t batch, int64_t dims) {
  Numbers numbers;
  Buffer<T> logits(batch * dims), grad(batch * batch);
  fill(logits, numbers, -3, 3);
  fill(grad, numbers, -1, 1);
  Buffer<T> kl[2] = {Buffer<T>(batch * batch), Buffer<T>(batch * batch)};
  Buffer<T> grad_logits[2] = {Buffer<T>(batch * dims), Buffer<T>(batch * dims)};
  for (int backend = 0; backend < 2; ++backend) {
    const PairwiseKlBernoulli forward{kType<T>, batch, dims, logits.data(), kl[backend].data()};
    const PairwiseKlBernoulliBackward backward{kType<T>,      batch,       dims,
                                               logits.data(), grad.data(), grad_logits[backend].data()};
    if (backend == 0) {
      scalar::pairwise_kl_bernoulli(forward, kSerial);
      scalar::pairwise_kl_bernoulli_backward(backward, kSerial);
    } else {
      EXPECT_EQUAL(pairwise_kl_bernoulli_cuda(forward, nullptr), 0);
      EXPECT_EQUAL(pairwise_kl_bernoulli_backward_cuda(backward, nullptr), 0);
    }
  }
  expect_close(kl[1], kl[0]);
  expect_close(grad_logits[1], grad_logits[0]);
}

TEST(pairwise_kl_bernoulli) {
  compare_bernoulli<float>(70, 19);
  compare_bernoulli<double>(35, 9);
}

template <class T>
void compare_mpd(int64_t batch, int64_t dims) {
  Numbers numbers;
  Buffer<T> mean(batch * dims), logvar(batch * dims), grads(3);
  fill(mean, numbers, -1, 1);
  fill(logvar, numbers, -1, 1);
  fill(grads, numbers, 0.5, 1);
  Buffer<T> values[2] = {Buffer<T>(3), Buffer<T>(3)};
  Buffer<T> grad_mean[2] = {Buffer<T>(batch * dims), Buffer<T>(batch * dims)};
  Buffer<T> grad_logvar[2] = {Buffer<T>(batch * dims), Buffer<T>(batch * dims)};
  const int64_t tiles = mutual_posterior_divergence_tiles(batch);
  for (int backend = 0; backend < 2; ++backend) {
    Buffer<T> kl(batch * batch);
    Buffer<double> rows(batch * 3), partial(tiles * tiles), statistics(kMpdStatistics);
    T* out = values[backend].data();
    const MutualPosteriorDivergence forward{kType<T>,          batch,     dims,        mean.data(),
                                            logvar.data(),     kl.data(), rows.data(), partial.data(),
                                            statistics.data(), out,       out + 1,     out + 2};
    const MutualPosteriorDivergenceBackward backward{kType<T>,
                                                     batch,
                                                     dims,
                                                     mean.data(),
                                                     logvar.data(),
                                                     kl.data(),
                                                     statistics.data(),
                                                     grads.data(),
                                                     grads.data() + 1,
                                                     grads.data() + 2,
                                                     grad_mean[backend].data(),
                                                     grad_logvar[backend].data()};
    if (backend == 0) {
      scalar::mutual_posterior_divergence(forward, kSerial);
      scalar::mutual_posterior_divergence_backward(backward, kSerial);
    } else {
      EXPECT_EQUAL(mutual_posterior_divergence_cuda(forward, nullptr), 0);
      EXPECT_EQUAL(mutual_posterior_divergence_backward_cuda(backward, nullptr), 0);
    }
  }
  expect_close(values[1], values[0]);
  expect_close(grad_mean[1], grad_mean[0]);
  expect_close(grad_logvar[1], grad_logvar[0]);
}

TEST(mutual_posterior_divergence) {
  compare_mpd<float>(70, 19);
  compare_mpd<double>(35, 9);
}

}  // namespace
}  // namespace dvae_ext::tests
