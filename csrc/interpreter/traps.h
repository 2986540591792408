// Turns what stops a kernel from outside into faults: bad addresses, and time running out.
#pragma once

#include <signal.h>
#include <time.h>

#include <memory>

#pragma GCC visibility push(hidden)

namespace dvae_ext::interpreter {

// Holds the process's signal handlers for the length of one launch.
class Traps {
 public:
  Traps();
  ~Traps();
  Traps(const Traps&) = delete;
  Traps& operator=(const Traps&) = delete;

 private:
  struct sigaction previous_segv_, previous_bus_, previous_fpe_, previous_timer_;
  stack_t previous_stack_;
  timer_t timer_;
  bool has_timer_ = false;
};

}  // namespace dvae_ext::interpreter

#pragma GCC visibility pop
