// Every elementwise op runs one kernel template: these compare an op's passes on the interpreter and on the CPU.
#pragma once

#include "common.h"
#include "kernels/elementwise.h"

namespace dvae_ext::tests {

using OnCpu = void (*)(const kernels::Elementwise&, const kernels::Parallel&);
using OnCuda = int (*)(const kernels::Elementwise&, void*);

template <class Pass, class T>
void compare(OnCpu on_cpu, OnCuda on_cuda, int64_t size, bool uniform) {
  constexpr int kAll = Pass::kInputs + Pass::kParameters;
  Numbers numbers;
  std::vector<Buffer<T>> inputs, got, expected;
  kernels::Elementwise params = {};
  for (int i = 0; i < kAll; ++i) {
    const bool one = uniform && i >= Pass::kInputs;
    inputs.emplace_back(static_cast<std::size_t>(one ? 1 : size));
    fill(inputs.back(), numbers, 0.1, 0.9);
    params.input[i] = inputs.back().data();
    params.uniform[i] = one;
  }
  params.size = size;
  params.dtype = sizeof(T) == 8 ? kernels::DType::kFloat64 : kernels::DType::kFloat32;
  for (int i = 0; i < Pass::kOutputs; ++i) {
    got.emplace_back(static_cast<std::size_t>(size));
    expected.emplace_back(static_cast<std::size_t>(size));
    params.output[i] = expected.back().data();
  }
  on_cpu(params, kSerial);
  for (int i = 0; i < Pass::kOutputs; ++i) params.output[i] = got[i].data();
  EXPECT_EQUAL(on_cuda(params, nullptr), 0);
  for (int i = 0; i < Pass::kOutputs; ++i) {
    for (int64_t k = 0; k < size; ++k) {
      if (!close(got[i][k], expected[i][k], sizeof(T) == 8 ? 1e-9 : 1e-4)) EXPECT_EQUAL(got[i][k], expected[i][k]);
    }
  }
}

template <class Pass>
void compare(OnCpu on_cpu, OnCuda on_cuda) {
  for (int64_t size : {1, 300, 1024}) {
    for (bool uniform : {true, false}) {
      compare<Pass, float>(on_cpu, on_cuda, size, uniform);
      compare<Pass, double>(on_cpu, on_cuda, size, uniform);
    }
  }
}

#define COMPARE(op, Pass) compare<Pass>(&kernels::scalar::op, &kernels::op##_cuda)

}  // namespace dvae_ext::tests
