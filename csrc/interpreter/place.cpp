#include "interpreter/place.h"

#include <cstdio>
#include <filesystem>
#include <string_view>

#include "interpreter/module.h"

namespace dvae_ext::interpreter {

namespace {

std::string quoted(const std::string& word) {
  std::string result = "'";
  for (const char c : word) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

// The innermost line outside the interpreter's own headers: what they inline belongs to their caller.
std::string look_up(std::uintptr_t address) {
  const Module module = module_of(address);
  char offset[64];
  std::snprintf(offset, sizeof(offset), "0x%zx", static_cast<std::size_t>(address - module.base));
  std::string best = module.path + "+" + offset;
  const std::string command = "addr2line -i -e " + quoted(module.path) + " " + offset + " 2>/dev/null";
  std::FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return best;
  char line[1024];
  bool found = false;
  while (std::fgets(line, sizeof(line), pipe) != nullptr) {
    std::string_view text(line);
    text = text.substr(0, text.find('\n'));
    text = text.substr(0, text.find(" (discriminator"));
    if (found || text.find('?') != std::string_view::npos) continue;
    best = std::filesystem::path(text).lexically_normal();
    found = best.find("csrc/interpreter/") == std::string::npos;
  }
  pclose(pipe);
  return best;
}

}  // namespace

std::string text(const Place& place) {
  if (place.file != nullptr) return std::string(place.file) + ":" + std::to_string(place.line);
  return place.address != 0 ? look_up(place.address) : "an unknown place";
}

bool same_place(const Site& a, const Site& b) {
  return a.line() == b.line() && a.column() == b.column() && std::string_view(a.file_name()) == b.file_name();
}

}  // namespace dvae_ext::interpreter
