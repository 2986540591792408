// Takes the calls of -fsanitize=undefined in place of its own library, so that undefined behaviour in a kernel is a
// fault like any other. The first member of every record that the compiler passes is the place in the source.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "interpreter/scheduler.h"

namespace dvae_ext::interpreter {

namespace {

struct Location {
  const char* file;
  std::uint32_t line;
  std::uint32_t column;
};

struct TypeDescriptor {
  std::uint16_t kind;
  std::uint16_t info;
  char name[1];
};

struct TypeMismatch {
  Location location;
  const TypeDescriptor* type;
  unsigned char log_alignment;
  unsigned char kind;
};

[[noreturn]] void report(const Location& location, const char* what) {
  if (active != nullptr && active->running() != nullptr) {
    active->stop(*active->running(), Place(location.file, location.line), {}, "%s", what);
  }
  std::fprintf(stderr, "%s:%u: %s\n", location.file, location.line, what);
  std::abort();
}

}  // namespace

}  // namespace dvae_ext::interpreter

using dvae_ext::interpreter::Location;

#pragma GCC visibility push(hidden)

extern "C" {

void __ubsan_handle_type_mismatch_v1(void* data, void* accessed) {
  const auto pointer = reinterpret_cast<std::uintptr_t>(accessed);
  const auto& record = *static_cast<const dvae_ext::interpreter::TypeMismatch*>(data);
  const unsigned long alignment = 1ul << record.log_alignment;
  char text[256];
  if (pointer == 0) {
    std::snprintf(text, sizeof(text), "access through a null pointer to %s", record.type->name);
  } else if (pointer % alignment != 0) {
    std::snprintf(text, sizeof(text), "misaligned access: %#lx is not a multiple of %lu bytes, as %s needs",
                  static_cast<unsigned long>(pointer), alignment, record.type->name);
  } else {
    std::snprintf(text, sizeof(text), "access to memory that cannot hold %s", record.type->name);
  }
  dvae_ext::interpreter::report(record.location, text);
}

void __ubsan_handle_out_of_bounds(void* data, void* index) {
  char text[128];
  std::snprintf(text, sizeof(text), "index %ld is out of the array's bounds", reinterpret_cast<long>(index));
  dvae_ext::interpreter::report(*static_cast<const Location*>(data), text);
}

#define DVAE_EXT_UNDEFINED(name, what, ...)                                   \
  void __ubsan_handle_##name(void* data __VA_OPT__(, ) __VA_ARGS__) {         \
    dvae_ext::interpreter::report(*static_cast<const Location*>(data), what); \
  }
DVAE_EXT_UNDEFINED(add_overflow, "signed overflow in an addition", void*, void*)
DVAE_EXT_UNDEFINED(sub_overflow, "signed overflow in a subtraction", void*, void*)
DVAE_EXT_UNDEFINED(mul_overflow, "signed overflow in a multiplication", void*, void*)
DVAE_EXT_UNDEFINED(negate_overflow, "signed overflow in a negation", void*)
DVAE_EXT_UNDEFINED(divrem_overflow, "division by zero or overflow in a division", void*, void*)
DVAE_EXT_UNDEFINED(shift_out_of_bounds, "shift by a negative number or by the type's width or more", void*, void*)
DVAE_EXT_UNDEFINED(pointer_overflow, "pointer arithmetic wraps around", void*, void*)
DVAE_EXT_UNDEFINED(float_cast_overflow, "a floating point number does not fit the integer type", void*)
DVAE_EXT_UNDEFINED(load_invalid_value, "a bool or enumeration holds no value of its type", void*)
DVAE_EXT_UNDEFINED(vla_bound_not_positive, "an array's bound is not positive", void*)
DVAE_EXT_UNDEFINED(nonnull_arg, "null where an argument must not be")
DVAE_EXT_UNDEFINED(builtin_unreachable, "code that was declared unreachable is reached")
DVAE_EXT_UNDEFINED(missing_return, "a function ends without the value that it must return")

}  // extern "C"

#pragma GCC visibility pop
