// Small runs of the CUDA kernels on the interpreter, beside the scalar CPU kernels. Under a sanitizer every buffer is
// an allocation of its own, so that one element too many is seen.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "interpreter/check.h"
#include "kernels/parallel.h"

namespace dvae_ext::tests {

inline const kernels::Parallel kSerial{nullptr, nullptr, 1};

// Exactly as many bytes as the elements need, aligned as torch aligns its storage.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::size_t size)
      : size_(size), data_(static_cast<T*>(::operator new(size * sizeof(T), kAlignment))) {
    for (std::size_t i = 0; i < size; ++i) data_.get()[i] = T(0);
  }
  T* data() { return data_.get(); }
  T& operator[](std::size_t i) { return data_.get()[i]; }
  std::size_t size() const { return size_; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(T* data) const { ::operator delete(data, kAlignment); }
  };
  std::size_t size_;
  std::unique_ptr<T, Free> data_;
};

// Numbers in (low, high) from a fixed sequence.
class Numbers {
 public:
  double operator()(double low, double high) {
    state_ = state_ * 6364136223846793005ull + 1442695040888963407ull;
    return low + (high - low) * (static_cast<double>(state_ >> 11) + 0.5) * 0x1p-53;
  }

 private:
  std::uint64_t state_ = 20240229;
};

template <class T>
void fill(Buffer<T>& buffer, Numbers& numbers, double low, double high) {
  for (std::size_t i = 0; i < buffer.size(); ++i) buffer[i] = static_cast<T>(numbers(low, high));
}

inline bool close(double a, double b, double tolerance) {
  return std::fabs(a - b) <= tolerance * (1 + std::fabs(b)) || (std::isnan(a) && std::isnan(b));
}

}  // namespace dvae_ext::tests
