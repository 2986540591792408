#include "interpreter/traps.h"

#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdint>
#include <stdexcept>

#include "interpreter/module.h"
#include "interpreter/scheduler.h"

namespace dvae_ext::interpreter {

namespace {

// The sanitizers want these signals themselves, and tell more about them.
#if defined(__SANITIZE_ADDRESS__) || defined(DVAE_EXT_INTERPRETER_TSAN)
constexpr bool kTakesSignals = false;
#else
constexpr bool kTakesSignals = true;
#endif

constexpr int kTicksPerTimeout = 4;
constexpr std::size_t kHandlerStackBytes = 64 * 1024;

pid_t launching_thread = 0;
std::uint64_t progress_at_last_tick = 0;
int ticks_without_progress = 0;
struct sigaction segv_before, bus_before, fpe_before;

int timer_signal() { return SIGRTMIN + 5; }

std::uintptr_t interrupted_address(const void* context) {
#if defined(__x86_64__)
  return static_cast<std::uintptr_t>(static_cast<const ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
#elif defined(__aarch64__)
  return static_cast<std::uintptr_t>(static_cast<const ucontext_t*>(context)->uc_mcontext.pc);
#else
  return 0;
#endif
}

// Whether a signal met the thread itself, and not the scheduler between two turns, whose context is then not a saved
// one that could be switched to.
bool on_own_stack(const Thread& thread, const void* context) {
#if defined(__x86_64__)
  const auto pointer = static_cast<std::uintptr_t>(static_cast<const ucontext_t*>(context)->uc_mcontext.gregs[REG_RSP]);
#elif defined(__aarch64__)
  const auto pointer = static_cast<std::uintptr_t>(static_cast<const ucontext_t*>(context)->uc_mcontext.sp);
#else
  const auto pointer = reinterpret_cast<std::uintptr_t>(thread.context.stack_bottom);  // cannot be told
#endif
  return pointer - reinterpret_cast<std::uintptr_t>(thread.context.stack_bottom) <= thread.context.stack_size;
}

bool in_a_kernel() {
  return active != nullptr && active->running() != nullptr && !active->checker().busy &&
         syscall(SYS_gettid) == launching_thread;
}

// Leaves the handler for good: the thread at fault is not resumed.
void on_bad_access(int number, siginfo_t* info, void* context) {
  if (!in_a_kernel()) {
    // Not ours: the instruction runs again under the handler that was there before.
    sigaction(number, number == SIGSEGV ? &segv_before : number == SIGBUS ? &bus_before : &fpe_before, nullptr);
    return;
  }
  Thread& thread = *active->running();
  const Place where(interrupted_address(context));
  if (number == SIGFPE) active->stop(thread, where, {}, "integer division by zero");
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  const auto bottom = reinterpret_cast<std::uintptr_t>(thread.context.stack_bottom);
  if (bottom - address <= 4096) active->stop(thread, where, {}, "the thread's stack is full");
  active->stop(thread, where, {}, "illegal memory access: address %p", info->si_addr);
}

void on_tick(int, siginfo_t*, void* context) {
  if (active == nullptr || active->progress() != progress_at_last_tick) {
    progress_at_last_tick = active != nullptr ? active->progress() : 0;
    ticks_without_progress = 0;
    return;
  }
  if (++ticks_without_progress < kTicksPerTimeout || !in_a_kernel()) return;
  if (!on_own_stack(*active->running(), context)) return;  // the next tick may
  const Place here = active->last_seen.known() ? active->last_seen : Place(interrupted_address(context));
  active->stop(*active->running(), here, {},
               "endless spinning: %g seconds of processor time went by and no thread of the launch reached a barrier, "
               "a warp primitive or its end (an ordinary launch cannot wait for another block)",
               timeout());
}

void install(int number, void (*handler)(int, siginfo_t*, void*), struct sigaction& previous) {
  struct sigaction action = {};
  action.sa_sigaction = handler;
  // The handler does not return, so nothing would restore the mask.
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigaction(number, &action, &previous);
}

}  // namespace

Traps::Traps() {
  if (!kTakesSignals) return;
  static unsigned char handler_stack[kHandlerStackBytes];
  stack_t stack = {};
  stack.ss_sp = handler_stack;
  stack.ss_size = sizeof(handler_stack);
  sigaltstack(&stack, &previous_stack_);
  launching_thread = static_cast<pid_t>(syscall(SYS_gettid));
  install(SIGSEGV, &on_bad_access, previous_segv_);
  install(SIGBUS, &on_bad_access, previous_bus_);
  install(SIGFPE, &on_bad_access, previous_fpe_);
  install(timer_signal(), &on_tick, previous_timer_);
  segv_before = previous_segv_;
  bus_before = previous_bus_;
  fpe_before = previous_fpe_;

  progress_at_last_tick = 0;
  ticks_without_progress = 0;
  sigevent event = {};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = timer_signal();
  event._sigev_un._tid = launching_thread;
  if (timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer_) != 0) return;
  has_timer_ = true;
  const double tick = timeout() / kTicksPerTimeout;
  itimerspec interval = {};
  interval.it_interval.tv_sec = static_cast<time_t>(tick);
  interval.it_interval.tv_nsec = static_cast<long>((tick - static_cast<double>(interval.it_interval.tv_sec)) * 1e9);
  interval.it_value = interval.it_interval;
  timer_settime(timer_, 0, &interval, nullptr);
}

Traps::~Traps() {
  if (!kTakesSignals) return;
  if (has_timer_) timer_delete(timer_);
  // A tick may still be pending; the handler before ours may be the default, which ends the process.
  const timespec now = {};
  sigset_t ticks;
  sigemptyset(&ticks);
  sigaddset(&ticks, timer_signal());
  sigset_t mask;
  pthread_sigmask(SIG_BLOCK, &ticks, &mask);
  while (sigtimedwait(&ticks, nullptr, &now) > 0) {
  }
  sigaction(timer_signal(), &previous_timer_, nullptr);
  pthread_sigmask(SIG_SETMASK, &mask, nullptr);
  sigaction(SIGFPE, &previous_fpe_, nullptr);
  sigaction(SIGBUS, &previous_bus_, nullptr);
  sigaction(SIGSEGV, &previous_segv_, nullptr);
  if (previous_stack_.ss_flags != SS_ONSTACK) sigaltstack(&previous_stack_, nullptr);
}

}  // namespace dvae_ext::interpreter
