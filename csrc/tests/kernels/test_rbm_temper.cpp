#include "common.h"
#include "interpreter/interpreter.h"
#include "kernels/rbm_temper.h"

namespace dvae_ext::tests {
namespace {

using namespace kernels;

template <class T>
void compare(int64_t ladders, int64_t levels, int64_t n_visible, int64_t n_hidden, int64_t sweeps, int64_t batch) {
  Numbers numbers;
  const int64_t replicas = ladders * levels, entries = ladders * kTemperStatistics * levels;
  Buffer<T> weight(n_visible * n_hidden), biases(2 * (n_visible + n_hidden));
  fill(weight, numbers, -0.5, 0.5);
  fill(biases, numbers, -0.5, 0.5);
  Buffer<double> betas(levels), shifts(levels - 1);
  for (int64_t l = 0; l < levels; ++l) betas[l] = levels == 1 ? 1.0 : static_cast<double>(l) / (levels - 1);
  Buffer<int64_t> key(2);
  key[0] = 5;
  Buffer<T> visible[2] = {Buffer<T>(replicas * n_visible), Buffer<T>(replicas * n_visible)};
  Buffer<int64_t> level[2] = {Buffer<int64_t>(replicas), Buffer<int64_t>(replicas)};
  Buffer<int64_t> travel[2] = {Buffer<int64_t>(replicas), Buffer<int64_t>(replicas)};
  Buffer<double> statistics[2] = {Buffer<double>(entries), Buffer<double>(entries)};
  for (std::size_t k = 0; k < visible[0].size(); ++k) visible[0][k] = visible[1][k] = numbers(0, 1) < 0.5 ? T(0) : T(1);
  uint32_t problems = 0;
  for (int backend = 0; backend < 2; ++backend) {
    for (int64_t r = 0; r < replicas; ++r) level[backend][r] = levels - 1 - r % levels;
    for (int64_t ladder = 0; ladder < ladders; ++ladder) {
      for (int64_t l = 0; l < levels; ++l) {
        for (int row : {kTemperLogForward, kTemperLogReverse}) {
          statistics[backend][(ladder * kTemperStatistics + row) * levels + l] = -HUGE_VAL;
        }
      }
    }
    RbmTemper params = {};
    params.dtype = sizeof(T) == 8 ? DType::kFloat64 : DType::kFloat32;
    params.visible = visible[backend].data();
    params.level = level[backend].data();
    params.travel = travel[backend].data();
    params.weight = weight.data();
    params.visible_bias = biases.data();
    params.hidden_bias = biases.data() + n_visible;
    params.reference_visible_bias = biases.data() + n_visible + n_hidden;
    params.reference_hidden_bias = biases.data() + 2 * n_visible + n_hidden;
    params.betas = betas.data();
    params.shifts = shifts.data();
    params.statistics = statistics[backend].data();
    params.key = key.data();
    params.ladders = ladders;
    params.levels = levels;
    params.n_visible = n_visible;
    params.n_hidden = n_hidden;
    params.sweeps = sweeps;
    params.batch = batch;
    params.problems = &problems;
    Buffer<unsigned char> workspace(params.workspace_size());
    params.workspace = workspace.data();
    if (backend == 0) {
      scalar::rbm_temper(params, kSerial);
      EXPECT_EQUAL(problems, 0u);
    } else {
      EXPECT_EQUAL(rbm_temper_cuda(params, nullptr), 0);
    }
  }
  for (std::size_t k = 0; k < visible[0].size(); ++k) EXPECT_EQUAL(visible[1][k], visible[0][k]);
  for (std::size_t k = 0; k < level[0].size(); ++k) EXPECT_EQUAL(level[1][k], level[0][k]);
  for (std::size_t k = 0; k < travel[0].size(); ++k) EXPECT_EQUAL(travel[1][k], travel[0][k]);
  for (std::size_t k = 0; k < statistics[0].size(); ++k) {
    if (std::isinf(statistics[0][k]) && statistics[0][k] == statistics[1][k]) continue;
    if (!close(statistics[1][k], statistics[0][k], 1e-3)) EXPECT_EQUAL(statistics[1][k], statistics[0][k]);
  }
}

TEST(rbm_temper) {
  compare<float>(2, 5, 20, 37, 4, 2);
  compare<double>(1, 3, 9, 5, 2, 1);
}

// Two levels that no replica has: the statistics tell.
TEST(rbm_temper_of_levels_that_are_no_permutation) {
  constexpr int64_t kLevels = 4, kUnits = 3;
  Buffer<double> numbers(kUnits * kUnits + 4 * kUnits), betas(kLevels), statistics(kTemperStatistics * kLevels);
  Buffer<double> visible(kLevels * kUnits);
  Buffer<int64_t> level(kLevels), travel(kLevels), key(2);
  RbmTemper params = {};
  params.dtype = DType::kFloat64;
  params.visible = visible.data();
  params.level = level.data();
  params.travel = travel.data();
  params.weight = numbers.data();
  params.visible_bias = params.hidden_bias = numbers.data() + kUnits * kUnits;
  params.reference_visible_bias = params.reference_hidden_bias = numbers.data() + kUnits * kUnits;
  params.betas = params.shifts = betas.data();
  params.statistics = statistics.data();
  params.key = key.data();
  params.ladders = params.sweeps = params.batch = 1;
  params.levels = kLevels;
  params.n_visible = params.n_hidden = kUnits;
  Buffer<unsigned char> workspace(params.workspace_size());
  params.workspace = workspace.data();
  level[2] = 1;
  EXPECT_EQUAL(rbm_temper_cuda(params, nullptr), 0);
  for (std::size_t k = 0; k < statistics.size(); ++k) EXPECT(std::isnan(statistics[k]));
}

// Weights that do not fit into shared memory, on a device with little of it.
TEST(rbm_temper_streamed) {
  const interpreter::Device whole = interpreter::device();
  interpreter::Device small = whole;
  small.shared_bytes_per_block = 48 * 1024;
  interpreter::set_device(small);
  compare<float>(1, 5, 100, 130, 2, 2);
  interpreter::set_device(whole);
}

}  // namespace
}  // namespace dvae_ext::tests
