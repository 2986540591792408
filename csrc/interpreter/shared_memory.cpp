#include "interpreter/shared_memory.h"

#include <cxxabi.h>
#include <elf.h>
#include <link.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "interpreter/runtime.h"

namespace dvae_ext::interpreter {

namespace {

constexpr const char* kTag = "B15dvae_ext_shared";  // how abi_tag("dvae_ext_shared") is mangled

struct Module {
  std::uintptr_t probe = 0;
  std::uintptr_t base = 0;
  std::string path;
  bool found = false;
};

int find_module(dl_phdr_info* info, std::size_t, void* argument) {
  Module& module = *static_cast<Module*>(argument);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr) & segment = info->dlpi_phdr[i];
    const std::uintptr_t begin = info->dlpi_addr + segment.p_vaddr;
    if (segment.p_type != PT_LOAD || module.probe < begin ||
        module.probe >= begin + segment.p_memsz) {
      continue;
    }
    module.base = info->dlpi_addr;
    module.path = info->dlpi_name[0] != '\0' ? info->dlpi_name : "/proc/self/exe";
    module.found = true;
    return 1;
  }
  return 0;
}

template <class T>
const T* at(const std::vector<char>& file, std::size_t offset, std::size_t count) {
  if (offset > file.size() || count > (file.size() - offset) / sizeof(T)) {
    throw std::runtime_error("interpreter: the symbol table of its own module is damaged");
  }
  return reinterpret_cast<const T*>(file.data() + offset);
}

std::vector<SharedVariable> read_symbols() {
  Module module;
  module.probe = reinterpret_cast<std::uintptr_t>(&current);
  dl_iterate_phdr(&find_module, &module);
  if (!module.found) throw std::runtime_error("interpreter: cannot find its own module");
  std::ifstream stream(module.path, std::ios::binary);
  const std::vector<char> file{std::istreambuf_iterator<char>(stream), {}};
  const auto* header = at<ElfW(Ehdr)>(file, 0, 1);
  const auto* sections = at<ElfW(Shdr)>(file, header->e_shoff, header->e_shnum);
  std::vector<SharedVariable> variables;
  bool has_symbols = false;
  for (std::size_t s = 0; s < header->e_shnum; ++s) {
    if (sections[s].sh_type != SHT_SYMTAB) continue;
    has_symbols = true;
    const std::size_t count = sections[s].sh_size / sizeof(ElfW(Sym));
    const auto* symbols = at<ElfW(Sym)>(file, sections[s].sh_offset, count);
    const auto& strings = sections[sections[s].sh_link];
    const char* names = at<char>(file, strings.sh_offset, strings.sh_size);
    for (std::size_t i = 0; i < count; ++i) {
      if (ELF64_ST_TYPE(symbols[i].st_info) != STT_OBJECT || symbols[i].st_size == 0) continue;
      const char* name = names + symbols[i].st_name;
      const std::size_t length = std::strlen(name);
      const std::size_t tag = std::strlen(kTag);
      if (length < tag || std::strcmp(name + length - tag, kTag) != 0) continue;
      variables.push_back({name,
                           reinterpret_cast<unsigned char*>(module.base + symbols[i].st_value),
                           symbols[i].st_size});
    }
  }
  if (!has_symbols) {
    throw std::runtime_error("interpreter: " + module.path +
                             " is stripped; build it without -s, its symbol table lists the "
                             "kernels' shared variables");
  }
  return variables;
}

}  // namespace

void poison(void* memory, std::size_t bytes) {
  auto* to = static_cast<unsigned char*>(memory);
  for (std::size_t i = 0; i < bytes; i += sizeof(kPoison)) {
    std::memcpy(to + i, &kPoison, bytes - i < sizeof(kPoison) ? bytes - i : sizeof(kPoison));
  }
}

const std::vector<SharedVariable>& static_shared_variables() {
  static const std::vector<SharedVariable> variables = read_symbols();
  return variables;
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
