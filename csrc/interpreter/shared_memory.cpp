#include "interpreter/shared_memory.h"

#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "interpreter/module.h"
#include "interpreter/runtime.h"

namespace dvae_ext::interpreter {

namespace {

constexpr const char* kTag = "B15dvae_ext_shared";  // how abi_tag("dvae_ext_shared") is mangled

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kGuardBytes = 0;  // it has red zones of its own, which start where the memory ends
#else
constexpr std::size_t kGuardBytes = 64 * 1024;
#endif

std::vector<SharedVariable> find_variables() {
  std::vector<SharedVariable> variables;
  for (const Symbol& symbol : variables_of(module_of(reinterpret_cast<std::uintptr_t>(&current)), kTag)) {
    variables.push_back({symbol.name, reinterpret_cast<unsigned char*>(symbol.address), symbol.bytes});
  }
  std::sort(variables.begin(), variables.end(),
            [](const SharedVariable& a, const SharedVariable& b) { return a.address < b.address; });
  return variables;
}

}  // namespace

void poison(void* memory, std::size_t bytes) {
  auto* to = static_cast<unsigned char*>(memory);
  for (std::size_t i = 0; i < bytes; i += sizeof(kPoison)) {
    std::memcpy(to + i, &kPoison, std::min(sizeof(kPoison), bytes - i));
  }
}

const std::vector<SharedVariable>& static_shared_variables() {
  static const std::vector<SharedVariable> variables = find_variables();
  return variables;
}

const SharedVariable* static_shared_variable_at(const void* address) {
  const auto& variables = static_shared_variables();
  const auto* wanted = static_cast<const unsigned char*>(address);
  // Most accesses are to global memory, far away.
  if (variables.empty() || wanted < variables.front().address ||
      wanted >= variables.back().address + variables.back().bytes) {
    return nullptr;
  }
  auto after = std::upper_bound(variables.begin(), variables.end(), wanted,
                                [](const unsigned char* value, const SharedVariable& v) { return value < v.address; });
  --after;
  return wanted < after->address + after->bytes ? &*after : nullptr;
}

std::string readable_name(const SharedVariable& variable) {
  int status = 0;
  char* text = abi::__cxa_demangle(variable.symbol.c_str(), nullptr, nullptr, &status);
  std::string name = status == 0 ? text : variable.symbol;
  std::free(text);
  const std::size_t tag = name.rfind("[abi:dvae_ext_shared]");
  if (tag != std::string::npos) name.erase(tag);
  return name;
}

// new[] aligns to 16.
DynamicShared::DynamicShared(std::size_t bytes)
    : bytes_(bytes), guard_(kGuardBytes), memory_(new unsigned char[bytes + 2 * kGuardBytes]) {}

void copy_unwatched(void* to, const void* from, std::size_t bytes) {
#if defined(__x86_64__)
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
#else
  auto* out = static_cast<volatile unsigned char*>(to);
  auto* in = static_cast<const volatile unsigned char*>(from);
  for (std::size_t i = 0; i < bytes; ++i) out[i] = in[i];
#endif
}

void SharedImage::save() {
  const auto& variables = static_shared_variables();
  std::size_t total = 0;
  for (const SharedVariable& variable : variables) total += variable.bytes;
  bytes_.resize(total);
  std::size_t offset = 0;
  for (const SharedVariable& variable : variables) {
    copy_unwatched(bytes_.data() + offset, variable.address, variable.bytes);
    offset += variable.bytes;
  }
}

void SharedImage::restore() const {
  std::size_t offset = 0;
  for (const SharedVariable& variable : static_shared_variables()) {
    copy_unwatched(variable.address, bytes_.data() + offset, variable.bytes);
    offset += variable.bytes;
  }
}

}  // namespace dvae_ext::interpreter
