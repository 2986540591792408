#include "kernels/coarse_grain_sample.h"

#include <limits>

#include "kernels/cpu/coarse_grain.h"
#include "kernels/cpu/gumbel_stream.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA {
namespace {

using math::compute_t;

constexpr int64_t kUnits = 4096;  // Gumbel variates made at a time: they stay in the first-level cache

// Dimensions that are handled together, with their logits and their noise.
template <class T>
struct Group {
  int64_t num_points, stride, capacity;
  std::vector<T> logits, noise, weights;

  Group(int64_t dims, int64_t num_points_)
      : num_points(num_points_),
        stride(coarse_grain::padded(num_points_)),
        capacity(std::max<int64_t>(1, std::min(dims, kUnits / num_points_))),
        logits(static_cast<size_t>(capacity * stride)),
        noise(static_cast<size_t>(capacity * num_points + 2 * GumbelStream::kStep), T(0)),
        weights(static_cast<size_t>(stride)) {}

  // Noise of dimensions [first, first + count) of a row; returns where it starts.
  const T* draw(const GumbelStream& stream, uint32_t row, int64_t first, int64_t count) {
    const int64_t unit = first * num_points, skip = unit % 4;
    const int64_t needed =
        (skip + count * num_points + GumbelStream::kStep - 1) / GumbelStream::kStep * GumbelStream::kStep;
    stream.fill(row, static_cast<uint32_t>(unit / 4), needed, noise.data());
    return noise.data() + skip;
  }

  // Leaves exp((logits + gumbel - max) / temperature) in weights; returns their sum and their sum over the grid.
  std::pair<T, T> relax(int64_t dim, const T* gumbel, const T* grid, T inverse_temperature) {
    const T* row = logits.data() + dim * stride;
    T* __restrict y = weights.data();
#pragma GCC ivdep
    for (int64_t r = 0; r < stride; ++r) y[r] = row[r] + gumbel[r];
    soften(stride, coarse_grain::max_over(stride, y), inverse_temperature, y);
    return {coarse_grain::sum_over<T>(stride, y), coarse_grain::dot_over<T>(stride, y, grid)};
  }

 private:
  static void soften(int64_t count, double largest, double inverse_temperature, double* y) {
    for (int64_t r = 0; r < count; ++r) y[r] = math::exp_of_minus((largest - y[r]) * inverse_temperature);
  }
  static void soften(int64_t count, float largest, float inverse_temperature, float* y) {
#if DVAE_EXT_HAS_SIMD
    using math::Simd;
    for (int64_t r = 0; r < count; r += Simd::kWidth) {
      Simd value;
      memcpy(&value, y + r, sizeof(value));
      value = math::exp_of_minus((Simd(largest) - value) * Simd(inverse_temperature));
      memcpy(y + r, &value, sizeof(value));
    }
#else
    for (int64_t r = 0; r < count; ++r) y[r] = math::exp_of_minus((largest - y[r]) * inverse_temperature);
#endif
  }
};

// Calls body(group, batch index, first dimension, count) with the logits of those dimensions in place.
template <class S, class Params, class Body>
void for_each_group(const Params& p, const std::vector<compute_t<S>>& grid, const Parallel& parallel,
                    const Body& body) {
  using T = compute_t<S>;
  const Group<T> shape(p.dims, p.num_points);
  const int64_t groups = (p.dims + shape.capacity - 1) / shape.capacity;
  parallel_for(parallel, 0, p.batch * groups, 1, [&](int64_t begin, int64_t end) {
    Group<T> group(p.dims, p.num_points);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t b = task / groups, first = task % groups * group.capacity;
      const int64_t count = std::min(group.capacity, p.dims - first);
      for (int64_t dim = 0; dim < count; ++dim) {
        coarse_grain::shifted_logits<T>(static_cast<const S*>(p.coefficients) + (b * p.dims + first + dim) * p.order,
                                        p.order, grid.data(), p.num_points, -std::numeric_limits<T>::infinity(),
                                        group.logits.data() + dim * group.stride);
      }
      body(group, b, first, count);
    }
  });
}

}  // namespace

void coarse_grain_sample(const CoarseGrainSample& p, const Parallel& parallel) {
  dispatch_dtype(p.dtype, [&]<class S>(S*) {
    using T = compute_t<S>;
    const std::vector<T> grid = coarse_grain::padded_grid<T>(p.num_points);
    const GumbelStream stream(p.key);
    const T inverse_temperature = static_cast<T>(1.0 / p.temperature);
    for_each_group<S>(p, grid, parallel, [&](Group<T>& group, int64_t b, int64_t first, int64_t count) {
      for (int64_t l = 0; l < p.num_samples; ++l) {
        const int64_t row = l * p.batch + b;
        const T* noise = group.draw(stream, static_cast<uint32_t>(row), first, count);
        S* z = static_cast<S*>(p.z) + row * p.dims + first;
        for (int64_t dim = 0; dim < count; ++dim) {
          const auto [mass, moment] = group.relax(dim, noise + dim * p.num_points, grid.data(), inverse_temperature);
          z[dim] = math::store<S>(moment / mass);
        }
      }
    });
  });
}

void coarse_grain_sample_backward(const CoarseGrainSampleBackward& p, const Parallel& parallel) {
  dispatch_dtype(p.dtype, [&]<class S>(S*) {
    using T = compute_t<S>;
    const std::vector<T> grid = coarse_grain::padded_grid<T>(p.num_points);
    const GumbelStream stream(p.key);
    const T inverse_temperature = static_cast<T>(1.0 / p.temperature);
    for_each_group<S>(p, grid, parallel, [&](Group<T>& group, int64_t b, int64_t first, int64_t count) {
      // dz/dlogit_r = y_r (grid_r - z) / T; summed over samples before it meets the powers of the grid.
      std::vector<T> grad_logits(static_cast<size_t>(count * group.stride), T(0));
      for (int64_t l = 0; l < p.num_samples; ++l) {
        const int64_t row = l * p.batch + b;
        const T* noise = group.draw(stream, static_cast<uint32_t>(row), first, count);
        const S* grad_z = static_cast<const S*>(p.grad_z) + row * p.dims + first;
        for (int64_t dim = 0; dim < count; ++dim) {
          const auto [mass, moment] = group.relax(dim, noise + dim * p.num_points, grid.data(), inverse_temperature);
          const T z = moment / mass;
          const T scale = static_cast<T>(math::load(grad_z[dim])) * inverse_temperature / mass;
          const T* y = group.weights.data();
          const T* points = grid.data();
          T* __restrict sums = grad_logits.data() + dim * group.stride;
#pragma GCC ivdep
          for (int64_t r = 0; r < group.stride; ++r) sums[r] = math::fma(scale * y[r], points[r] - z, sums[r]);
        }
      }
      for (int64_t dim = 0; dim < count; ++dim) {
        S* grad = static_cast<S*>(p.grad_coefficients) + (b * p.dims + first + dim) * p.order;
        coarse_grain::moments(grad_logits.data() + dim * group.stride, grid.data(), p.num_points, p.order,
                              [=](int64_t m, T value) { grad[m] = math::store<S>(value); });
      }
    });
  });
}

}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
