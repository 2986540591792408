// A test is a function that throws; this collects and runs them.
#pragma once

#include <cstdio>
#include <functional>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "interpreter/interpreter.h"

namespace dvae_ext::tests {

struct Test {
  const char* name;
  void (*body)();
};
inline std::vector<Test>& all_tests() {
  static std::vector<Test> tests;
  return tests;
}
struct Register {
  Register(const char* name, void (*body)()) { all_tests().push_back({name, body}); }
};

#define TEST(name)                                                        \
  static void name();                                                     \
  static const ::dvae_ext::tests::Register register_##name{#name, &name}; \
  static void name()

[[noreturn]] inline void fail(const char* file, int line, const std::string& message) {
  throw std::runtime_error(std::string(file) + ":" + std::to_string(line) + ": " + message);
}

template <class A, class B>
void expect_equal(const A& got, const B& expected, const char* text, const char* file, int line) {
  if (got == expected) return;
  std::ostringstream message;
  message << text << " is " << got << ", expected " << expected;
  fail(file, line, message.str());
}

#define EXPECT(condition) \
  if (!(condition)) ::dvae_ext::tests::fail(__FILE__, __LINE__, #condition)
#define EXPECT_EQUAL(got, expected) ::dvae_ext::tests::expect_equal(got, expected, #got, __FILE__, __LINE__)

using Parts = std::vector<std::string>;
// Runs body, which must raise a fault whose message holds every one of the parts.
inline void expect_fault(const Parts& parts, const std::function<void()>& body, const char* file, int line) {
  std::string message;
  try {
    body();
  } catch (const interpreter::Fault& fault) {
    message = fault.what();
  }
  if (message.empty()) fail(file, line, "no fault was raised");
  for (const std::string& part : parts) {
    if (message.find(part) == std::string::npos) fail(file, line, "'" + part + "' is not in: " + message);
  }
}
#define EXPECT_FAULT(parts, ...) ::dvae_ext::tests::expect_fault(parts, [&] { __VA_ARGS__; }, __FILE__, __LINE__)
// How a message names the file that has the test.
#define HERE (std::string(__FILE__).substr(std::string(__FILE__).rfind('/') + 1) + ":")
// Launches two blocks of the kernel, whose fault has to name kernel, block, thread and the test's file.
#define EXPECT_FAULT_IN(kernel, threads, shared_bytes, what, ...)                                            \
  EXPECT_FAULT((::dvae_ext::tests::Parts{"interpreted kernel " #kernel, "block (", "thread (", HERE, what}), \
               (void)DVAE_EXT_LAUNCH(kernel, 2, threads, shared_bytes, nullptr __VA_OPT__(, ) __VA_ARGS__))

inline const char* const kSchedules[] = {"forward", "reverse", "random:1", "random:2"};

// Why the test fails under the schedule; empty when it passes. A failed test may leave its own device behind.
inline std::string failure(const Test& test, const char* schedule) {
  interpreter::set_schedule(interpreter::parse_schedule(schedule));
  interpreter::set_device({});
  try {
    test.body();
  } catch (const std::exception& error) {
    return std::string(test.name) + " (" + schedule + "): " + error.what();
  }
  return {};
}

// Every test under every schedule. An argument selects the tests whose names hold it, further ones the schedules.
inline int run_all(int argc, char** argv) {
  const std::string wanted = argc > 1 ? argv[1] : "";
  std::vector<const char*> schedules(std::begin(kSchedules), std::end(kSchedules));
  if (argc > 2) schedules.assign(argv + 2, argv + argc);
  int failed = 0, ran = 0;
  for (const Test& test : all_tests()) {
    if (std::string(test.name).find(wanted) == std::string::npos) continue;
    for (const char* schedule : schedules) {
      const std::string why = failure(test, schedule);
      ++ran;
      if (why.empty()) continue;
      ++failed;
      std::printf("FAILED %s\n", why.c_str());
    }
  }
  std::printf("%d of %d passed\n", ran - failed, ran);
  return failed != 0 || ran == 0;
}

}  // namespace dvae_ext::tests
