// The memory behind __shared__ and DVAE_EXT_DYNAMIC_SHARED.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#pragma GCC visibility push(hidden)

namespace dvae_ext::interpreter {

// What shared memory holds before anybody has written it: a NaN as float, double and bfloat16, far
// out of range as an index.
inline constexpr std::uint32_t kPoison = 0xfff4dead;
void poison(void* memory, std::size_t bytes);

struct SharedVariable {
  std::string symbol;  // mangled
  unsigned char* address;
  std::size_t bytes;
};

// Every __shared__ variable of the module that holds the interpreter, by its symbol table.
// Throws std::runtime_error when the module has none to read.
const std::vector<SharedVariable>& static_shared_variables();

// The demangled name of the variable, "kernel<float>(...)::tile".
std::string readable_name(const SharedVariable& variable);

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
