#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace dvae_ext::kernels::DVAE_EXT_ISA {

// Uninitialised memory on a cache line boundary.
template <class T>
class AlignedBuffer {
 public:
  explicit AlignedBuffer(int64_t size)
      : data_(static_cast<T*>(::operator new(sizeof(T) * static_cast<size_t>(size), std::align_val_t{64}))) {}
  T* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T* pointer) const { ::operator delete(pointer, std::align_val_t{64}); }
  };
  std::unique_ptr<T, Free> data_;
};

}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
