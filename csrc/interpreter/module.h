// The shared objects of this process, as the loader and their symbol tables know them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#pragma GCC visibility push(hidden)

namespace dvae_ext::interpreter {

struct Module {
  std::uintptr_t base = 0;  // what the loader added to the addresses in the file
  std::string path;         // empty when no module holds the address
};
Module module_of(std::uintptr_t address);

struct Symbol {
  std::string name;  // mangled
  std::uintptr_t address;
  std::size_t bytes;
};
// The variables of the module whose mangled names end so. Throws std::runtime_error when it is stripped.
std::vector<Symbol> variables_of(const Module& module, const std::string& name_end);

}  // namespace dvae_ext::interpreter

#pragma GCC visibility pop
