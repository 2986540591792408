// A place in a kernel's source: a line that the compiler told, or an address to look up.
#pragma once

#include <cstdint>
#include <string>

#include "interpreter/runtime.h"

#pragma GCC visibility push(hidden)

namespace dvae_ext::interpreter {

struct Place {
  const char* file = nullptr;
  unsigned line = 0;
  std::uintptr_t address = 0;  // of code

  Place() = default;
  Place(const Site& site) : file(site.file_name()), line(site.line()) {}
  Place(const char* file_, unsigned line_) : file(file_), line(line_) {}
  explicit Place(std::uintptr_t address_) : address(address_) {}
  bool known() const { return file != nullptr || address != 0; }
};

// "file:line". Runs addr2line for an address, so it is for faults alone.
std::string text(const Place& place);

bool same_place(const Site& a, const Site& b);

}  // namespace dvae_ext::interpreter

#pragma GCC visibility pop
