// The memory behind __shared__ and DVAE_EXT_DYNAMIC_SHARED.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#pragma GCC visibility push(hidden)

namespace dvae_ext::interpreter {

// What shared memory holds before anybody has written it: a NaN as float, double and bfloat16, far out of range as an
// index.
inline constexpr std::uint32_t kPoison = 0xfff4dead;
void poison(void* memory, std::size_t bytes);

struct SharedVariable {
  std::string symbol;  // mangled
  unsigned char* address;
  std::size_t bytes;
};

// Every __shared__ variable of the module that holds the interpreter, by address.
const std::vector<SharedVariable>& static_shared_variables();
// The one that holds the address, or null.
const SharedVariable* static_shared_variable_at(const void* address);
// The variable's demangled name, "kernel<float>(...)::tile".
std::string readable_name(const SharedVariable& variable);

// A block's dynamic shared memory. Without a sanitizer it lies between two stretches that no kernel may touch.
class DynamicShared {
 public:
  explicit DynamicShared(std::size_t bytes);
  unsigned char* data() const { return memory_.get() + guard_; }
  std::size_t bytes() const { return bytes_; }
  bool contains(const void* address) const { return offset(address) < bytes_; }
  bool near(const void* address) const { return offset(address) + guard_ < bytes_ + 2 * guard_; }
  // Bytes from the start; huge for an address before it.
  std::size_t offset(const void* address) const {
    return reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(data());
  }

 private:
  std::size_t bytes_;
  std::size_t guard_;
  std::unique_ptr<unsigned char[]> memory_;
};

// The contents of all static shared variables, while another block uses their place.
class SharedImage {
 public:
  void save();
  void restore() const;

 private:
  std::vector<unsigned char> bytes_;
};

// Copies that no sanitizer watches.
void copy_unwatched(void* to, const void* from, std::size_t bytes);

}  // namespace dvae_ext::interpreter

#pragma GCC visibility pop
