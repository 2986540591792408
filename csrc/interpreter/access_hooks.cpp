// Takes the calls that -fsanitize=thread puts before every load and store of a kernel. Left out where a sanitizer's own
// library is linked, which takes them or has no room for them.
#if !defined(DVAE_EXT_INTERPRETER_TSAN) && !defined(__SANITIZE_ADDRESS__)
#define DVAE_EXT_INTERPRETER_HOOKS
#endif

#include <cstddef>
#include <cstdint>

#include "interpreter/scheduler.h"

namespace dvae_ext::interpreter {

namespace {

bool instrumented_kernels = false;

}  // namespace

bool AccessChecker::instrumented() { return instrumented_kernels; }

#if defined(DVAE_EXT_INTERPRETER_HOOKS)

namespace {

// The thread whose kernel code calls; null when it is host code of the same file, perhaps on another OS thread.
Thread* caller() {
  if (active == nullptr || active->checker().paused) return nullptr;
  Thread* const thread = active->running();
  if (thread == nullptr) return nullptr;
  const auto frame = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  const auto bottom = reinterpret_cast<std::uintptr_t>(thread->context.stack_bottom);
  return frame - bottom < thread->context.stack_size ? thread : nullptr;
}

void report(const void* address, std::size_t bytes, Access kind, void* code) {
  if (Thread* const thread = caller()) {
    // The return address may belong to the next line.
    active->last_seen = Place(reinterpret_cast<std::uintptr_t>(code) - 1);
    active->checker().access(*thread, address, bytes, kind, active->last_seen);
  }
}

}  // namespace

#endif

}  // namespace dvae_ext::interpreter

#if defined(DVAE_EXT_INTERPRETER_HOOKS)

using dvae_ext::interpreter::Access;
using dvae_ext::interpreter::report;

#pragma GCC visibility push(hidden)

extern "C" {

void __tsan_init() { dvae_ext::interpreter::instrumented_kernels = true; }
void __tsan_func_entry(void*) {}
void __tsan_func_exit(void*) {}

#define DVAE_EXT_HOOK(name, bytes, kind) \
  void __tsan_##name(void* address) { report(address, bytes, kind, __builtin_return_address(0)); }
#define DVAE_EXT_HOOKS(bytes)                                \
  DVAE_EXT_HOOK(read##bytes, bytes, Access::kRead)           \
  DVAE_EXT_HOOK(write##bytes, bytes, Access::kWrite)         \
  DVAE_EXT_HOOK(unaligned_read##bytes, bytes, Access::kRead) \
  DVAE_EXT_HOOK(unaligned_write##bytes, bytes, Access::kWrite)
DVAE_EXT_HOOKS(1)
DVAE_EXT_HOOKS(2)
DVAE_EXT_HOOKS(4)
DVAE_EXT_HOOKS(8)
DVAE_EXT_HOOKS(16)

void __tsan_read_range(void* address, std::size_t bytes) {
  report(address, bytes, Access::kRead, __builtin_return_address(0));
}
void __tsan_write_range(void* address, std::size_t bytes) {
  report(address, bytes, Access::kWrite, __builtin_return_address(0));
}

#define DVAE_EXT_ATOMIC_UPDATE(bits, type, operation)                                               \
  type __tsan_atomic##bits##_##operation(volatile type* address, type value, int) {                 \
    report(const_cast<type*>(address), sizeof(type), Access::kAtomic, __builtin_return_address(0)); \
    return __atomic_##operation(address, value, __ATOMIC_RELAXED);                                  \
  }
#define DVAE_EXT_ATOMICS(bits, type)                                                                                \
  type __tsan_atomic##bits##_load(const volatile type* address, int) {                                              \
    report(const_cast<const type*>(address), sizeof(type), Access::kAtomic, __builtin_return_address(0));           \
    return __atomic_load_n(address, __ATOMIC_RELAXED);                                                              \
  }                                                                                                                 \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile type* address, type* expected, type value, int, int) { \
    report(const_cast<type*>(address), sizeof(type), Access::kAtomic, __builtin_return_address(0));                 \
    return __atomic_compare_exchange_n(address, expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);        \
  }                                                                                                                 \
  DVAE_EXT_ATOMIC_UPDATE(bits, type, fetch_add)                                                                     \
  DVAE_EXT_ATOMIC_UPDATE(bits, type, fetch_sub)                                                                     \
  DVAE_EXT_ATOMIC_UPDATE(bits, type, fetch_and)                                                                     \
  DVAE_EXT_ATOMIC_UPDATE(bits, type, fetch_or)                                                                      \
  DVAE_EXT_ATOMIC_UPDATE(bits, type, fetch_xor)
DVAE_EXT_ATOMICS(8, std::uint8_t)
DVAE_EXT_ATOMICS(16, std::uint16_t)
DVAE_EXT_ATOMICS(32, std::uint32_t)
DVAE_EXT_ATOMICS(64, std::uint64_t)

}  // extern "C"

#pragma GCC visibility pop

#endif
