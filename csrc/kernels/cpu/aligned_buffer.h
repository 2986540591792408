#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>

namespace dvae_ext::kernels::DVAE_EXT_ISA {

// Memory on a cache line boundary: loads of whole vectors never straddle two lines. Uninitialised, unless zeroed.
template <class T>
class AlignedBuffer {
 public:
  explicit AlignedBuffer(int64_t size)
      : data_(static_cast<T*>(::operator new(sizeof(T) * static_cast<size_t>(size), std::align_val_t{64}))) {}
  static AlignedBuffer zeroed(int64_t size) {
    AlignedBuffer buffer(size);
    std::fill_n(buffer.get(), size, T(0));
    return buffer;
  }
  T* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T* pointer) const { ::operator delete(pointer, std::align_val_t{64}); }
  };
  std::unique_ptr<T, Free> data_;
};

}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
