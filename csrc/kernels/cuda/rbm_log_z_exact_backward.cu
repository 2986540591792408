#include "kernels/cuda/rbm_log_z_exact_states.h"
#include "kernels/gpu.h"
#include "kernels/rbm_log_z_exact.h"
#include "math/scaled.h"

namespace dvae_ext::kernels {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads, 1) rbm_log_z_exact_moments_kernel(Model<T> model) {
  const RbmLogZExact& p = model.p;
  const Workspace ws(p);
  __shared__ Staging stage;
  __shared__ double probability[kRows][kLow];
  constexpr int kRun = 8;  // low states of a thread's register tile
  const Share share(p, blockIdx.x / kParts, blockIdx.x % kParts);
  const int64_t columns = p.summed + 1;  // the last stands for a unit that is always on
  double* moments = ws.moments + blockIdx.x * (p.enumerated + 1) * columns;
  for (int64_t k = threadIdx.x; k < (p.enumerated + 1) * columns; k += kThreads) moments[k] = 0;
  const Scaled inverse = math::scaled_exp(-*p.log_z);
  const int64_t low_bits = p.low_bits(), first_high = model.first_high();

  for (int64_t high = share.high; high < share.high_end; ++high) {
    for (int64_t row = share.row; row < share.row_end; row += kRows) {
      double mantissa[kPerThread], exponent[kPerThread];
      evaluate_tile(model, ws, stage, high, row, mantissa, exponent);
      __syncthreads();  // moments are zeroed, and the previous tile's probabilities were read
#pragma unroll
      for (int r = 0; r < kPerThread; ++r) {
        const int local = threadIdx.x / kLow * kPerThread + r;
        const double power = math::smaller(exponent[r] + inverse.exponent, 60.0);
        probability[local][threadIdx.x % kLow] =
            row + local < share.row_end ? mantissa[r] * inverse.mantissa * math::power_of_two(power) : 0.0;
      }
      __syncthreads();
      const int rows = static_cast<int>(math::smaller(share.row_end - row, kRows));
      for (int64_t j = threadIdx.x; j < columns; j += kThreads) {
        const bool on = j == p.summed;
        const bool wide = !on && (static_cast<int>(ws.flags[j]) & kWide);
        const double from_high = on ? 0.0 : model.high(high, j, wide);
        double total = 0;
        for (int first = 0; first < kLow; first += kRun) {
          double b[kRun], by_low[kRun];
#pragma unroll
          for (int l = 0; l < kRun; ++l) {
            b[l] = on ? 0.0 : ws.low[(first + l) * p.summed + j];
            by_low[l] = 0;
          }
#pragma unroll 1
          for (int r = 0; r < rows; ++r) {
            const double from_middle = on ? 0.0 : ws.middle[(row + r) * p.summed + j];
            const double a = wide ? from_high + from_middle : from_high * from_middle;
            double sum = 0;
#pragma unroll
            for (int l = 0; l < kRun; ++l) {
              double q = probability[r][first + l];
              if (wide) {
                const math::SoftplusFactor f = math::softplus_factor(a + b[l]);
                q *= f.one / f.factor;
              } else if (!on) {
                const double one = a * b[l];
                q *= one / (1.0 + one);
              }
              by_low[l] += q;
              sum += q;
            }
            for (int64_t i = 0; i < p.middle_bits(); ++i) {
              if ((row + r) >> i & 1) moments[(low_bits + i) * columns + j] += sum;
            }
            total += sum;
          }
          for (int64_t i = 0; i < low_bits; ++i) {
            double sum = 0;
#pragma unroll
            for (int l = 0; l < kRun; ++l) sum += ((first + l) >> i & 1) ? by_low[l] : 0.0;
            moments[i * columns + j] += sum;
          }
        }
        for (int64_t i = 0; i < p.high_bits(); ++i) {
          if (high >> i & 1) moments[(first_high + i) * columns + j] += total;
        }
        moments[p.enumerated * columns + j] += total;
      }
    }
  }
}

template <class T>
__global__ void rbm_log_z_exact_gradient_kernel(Model<T> model, RbmLogZExactBackward out) {
  const RbmLogZExact& p = model.p;
  const Workspace ws(p);
  const int64_t columns = p.summed + 1;
  const int64_t size = (p.enumerated + 1) * columns;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= size - 1) return;
  double moment = 0, weight = 0;
  for (int64_t k = 0; k < p.slots() * kParts; ++k) {
    moment += ws.moments[k * size + index];
    weight += ws.moments[k * size + size - 1];
  }
  // Dividing by the weights' own sum removes the rounding of log Z.
  const bool finite = ws.flags[p.summed] != 0;
  const T value = static_cast<T>(finite ? *out.grad * (moment / weight) : __builtin_nan(""));
  const int64_t i = index / columns, j = index % columns;
  if (i == p.enumerated) {
    static_cast<T*>(out.grad_summed_bias)[j] = value;
  } else if (j == p.summed) {
    static_cast<T*>(out.grad_enumerated_bias)[i] = value;
  } else {
    static_cast<T*>(out.grad_weight)[i * p.enumerated_stride + j * p.summed_stride] = value;
  }
}

template <class T>
int backward(const RbmLogZExactBackward& params, void* stream) {
  const RbmLogZExact& p = params.model;
  const Model<T> model{p};
  int error = prepare(model, stream);
  if (error != 0) return error;
  error = DVAE_EXT_LAUNCH((rbm_log_z_exact_moments_kernel<T>), static_cast<unsigned>(p.slots() * kParts), kThreads, 0,
                          stream, model);
  if (error != 0) return error;
  const int64_t outputs = (p.enumerated + 1) * (p.summed + 1);
  return DVAE_EXT_LAUNCH((rbm_log_z_exact_gradient_kernel<T>),
                         static_cast<unsigned>((outputs + kThreads - 1) / kThreads), kThreads, 0, stream, model,
                         params);
}

}  // namespace

int rbm_log_z_exact_backward_cuda(const RbmLogZExactBackward& p, void* stream) {
  return p.model.dtype == DType::kFloat64 ? backward<double>(p, stream) : backward<float>(p, stream);
}

}  // namespace dvae_ext::kernels
