#include "interpreter/module.h"

#include <elf.h>
#include <link.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string_view>

namespace dvae_ext::interpreter {

namespace {

struct Search {
  std::uintptr_t address;
  Module result;
};

int visit(dl_phdr_info* info, std::size_t, void* argument) {
  Search& search = *static_cast<Search*>(argument);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr) & segment = info->dlpi_phdr[i];
    const std::uintptr_t begin = info->dlpi_addr + segment.p_vaddr;
    if (segment.p_type == PT_LOAD && search.address >= begin && search.address - begin < segment.p_memsz) {
      search.result.base = info->dlpi_addr;
      search.result.path = info->dlpi_name[0] != '\0' ? info->dlpi_name : "/proc/self/exe";
      return 1;
    }
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

}  // namespace

Module module_of(std::uintptr_t address) {
  Search search{address, {}};
  dl_iterate_phdr(&visit, &search);
  // addr2line would look at itself.
  if (search.result.path == "/proc/self/exe") {
    char path[4096];
    const ssize_t length = readlink("/proc/self/exe", path, sizeof(path));
    if (length > 0) search.result.path.assign(path, static_cast<std::size_t>(length));
  }
  return search.result;
}

std::vector<Symbol> variables_of(const Module& module, const std::string& name_end) {
  std::ifstream stream(module.path, std::ios::binary);
  const std::vector<char> file{std::istreambuf_iterator<char>(stream), {}};
  const auto* header = at<ElfW(Ehdr)>(file, 0, 1);
  const auto* sections = at<ElfW(Shdr)>(file, header->e_shoff, header->e_shnum);
  std::vector<Symbol> variables;
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
      const std::string_view name = names + symbols[i].st_name;
      if (!name.ends_with(name_end)) continue;
      variables.push_back({std::string(name), module.base + symbols[i].st_value, symbols[i].st_size});
    }
  }
  if (!has_symbols) {
    throw std::runtime_error("interpreter: " + module.path +
                             " is stripped; build it without -s, its symbol table lists the kernels' shared variables");
  }
  return variables;
}

}  // namespace dvae_ext::interpreter
