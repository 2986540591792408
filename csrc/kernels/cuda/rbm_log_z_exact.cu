#include "kernels/cuda/rbm_log_z_exact_states.h"
#include "kernels/gpu.h"
#include "kernels/rbm_log_z_exact.h"
#include "math/scaled.h"

namespace dvae_ext::kernels {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads, 1) rbm_log_z_exact_sum_kernel(Model<T> model) {
  const Workspace ws(model.p);
  __shared__ Staging stage;
  __shared__ Scaled lanes[kThreads];
  const Share share(model.p, blockIdx.x / kParts, blockIdx.x % kParts);
  Scaled total{0.0, math::kNoExponent};
  for (int64_t high = share.high; high < share.high_end; ++high) {
    for (int64_t row = share.row; row < share.row_end; row += kRows) {
      double mantissa[kPerThread], exponent[kPerThread];
      evaluate_tile(model, ws, stage, high, row, mantissa, exponent);
      const int row0 = threadIdx.x / kLow * kPerThread;
#pragma unroll
      for (int r = 0; r < kPerThread; ++r) {
        const bool mine = row + row0 + r < share.row_end;
        total = math::plus(total, {mine ? mantissa[r] : 0.0, mine ? exponent[r] : math::kNoExponent});
      }
    }
    if (total.mantissa > 0) {
      const Scaled s = math::split(total.mantissa);
      total = {s.mantissa, total.exponent + s.exponent};
    }
  }
  lanes[threadIdx.x] = total;
  for (int width = kThreads / 2; width > 0; width /= 2) {
    __syncthreads();
    if (threadIdx.x < width) {
      lanes[threadIdx.x] = math::plus(lanes[threadIdx.x], lanes[threadIdx.x + width]);
    }
  }
  if (threadIdx.x == 0) ws.parts[blockIdx.x] = lanes[0];
}

// One block: adds the shares in a fixed order.
__global__ void rbm_log_z_exact_total_kernel(RbmLogZExact p) {
  const Workspace ws(p);
  __shared__ Scaled lanes[kThreads];
  Scaled total{0.0, math::kNoExponent};
  for (int64_t k = threadIdx.x; k < p.slots() * kParts; k += kThreads) {
    total = math::plus(total, ws.parts[k]);
  }
  lanes[threadIdx.x] = total;
  for (int width = kThreads / 2; width > 0; width /= 2) {
    __syncthreads();
    if (threadIdx.x < width) {
      lanes[threadIdx.x] = math::plus(lanes[threadIdx.x], lanes[threadIdx.x + width]);
    }
  }
  if (threadIdx.x != 0) return;
  const double log_z = ::log(lanes[0].mantissa) + lanes[0].exponent * 0.6931471805599453;
  *p.log_z = ws.flags[p.summed] != 0 ? log_z : __builtin_nan("");
}

template <class T>
int forward(const RbmLogZExact& p, void* stream) {
  const Model<T> model{p};
  int error = prepare(model, stream);
  if (error != 0) return error;
  error = DVAE_EXT_LAUNCH((rbm_log_z_exact_sum_kernel<T>), static_cast<unsigned>(p.slots() * kParts), kThreads, 0,
                          stream, model);
  if (error != 0) return error;
  return DVAE_EXT_LAUNCH((rbm_log_z_exact_total_kernel), 1, kThreads, 0, stream, p);
}

}  // namespace

int rbm_log_z_exact_cuda(const RbmLogZExact& p, void* stream) {
  return p.dtype == DType::kFloat64 ? forward<double>(p, stream) : forward<float>(p, stream);
}

}  // namespace dvae_ext::kernels
