#include "common.h"
#include "interpreter/interpreter.h"
#include "kernels/rbm_gibbs.h"

namespace dvae_ext::tests {
namespace {

using namespace kernels;

template <class T>
void compare(int64_t chains, int64_t n_visible, int64_t n_hidden, int64_t sweeps) {
  Numbers numbers;
  Buffer<T> weight(n_visible * n_hidden), visible_bias(n_visible), hidden_bias(n_hidden);
  fill(weight, numbers, -1, 1);
  fill(visible_bias, numbers, -0.5, 0.5);
  fill(hidden_bias, numbers, -0.5, 0.5);
  Buffer<T> visible[2] = {Buffer<T>(chains * n_visible), Buffer<T>(chains * n_visible)};
  Buffer<T> hidden[2] = {Buffer<T>(chains * n_hidden), Buffer<T>(chains * n_hidden)};
  Buffer<int64_t> key(2);
  key[0] = 42;
  key[1] = 7;
  uint32_t problems = 0;
  for (std::size_t k = 0; k < visible[0].size(); ++k) visible[0][k] = visible[1][k] = numbers(0, 1) < 0.5 ? T(0) : T(1);
  for (int backend = 0; backend < 2; ++backend) {
    RbmGibbs params = {};
    params.dtype = params.state_dtype = sizeof(T) == 8 ? DType::kFloat64 : DType::kFloat32;
    params.visible = visible[backend].data();
    params.hidden = hidden[backend].data();
    params.weight = weight.data();
    params.visible_bias = visible_bias.data();
    params.hidden_bias = hidden_bias.data();
    params.key = key.data();
    params.chains = chains;
    params.n_visible = n_visible;
    params.n_hidden = n_hidden;
    params.sweeps = sweeps;
    params.problems = &problems;
    if (backend == 0) {
      scalar::rbm_gibbs(params, kSerial);
    } else {
      EXPECT_EQUAL(rbm_gibbs_cuda(params, nullptr), 0);
    }
  }
  // The draws are the same; a field that rounds to the other side of one would be the only difference.
  for (std::size_t k = 0; k < visible[0].size(); ++k) EXPECT_EQUAL(visible[1][k], visible[0][k]);
  for (std::size_t k = 0; k < hidden[0].size(); ++k) EXPECT_EQUAL(hidden[1][k], hidden[0][k]);
}

TEST(rbm_gibbs_resident) {
  compare<float>(9, 37, 70, 2);
  compare<double>(3, 33, 5, 2);
}

// Weights that do not fit into shared memory, on a device with little of it.
TEST(rbm_gibbs_streamed) {
  const interpreter::Device whole = interpreter::device();
  interpreter::Device small = whole;
  small.shared_bytes_per_block = 48 * 1024;
  interpreter::set_device(small);
  compare<float>(9, 100, 140, 2);
  interpreter::set_device(whole);
}

}  // namespace
}  // namespace dvae_ext::tests
