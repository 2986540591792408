// Known answers of Philox4x32-10 (the vectors published with the Random123 library) and the exact
// range of the uniforms.
#include <cstdint>
#include <cstdio>

#include "math/philox.h"

namespace {

using dvae_ext::math::Words4;

int failures = 0;

void expect(bool condition, const char* what) {
  if (!condition) {
    std::fprintf(stderr, "FAILED: %s\n", what);
    ++failures;
  }
}

bool equal(const Words4& a, const Words4& b) { return a.x == b.x && a.y == b.y && a.z == b.z && a.w == b.w; }

}  // namespace

int main() {
  using namespace dvae_ext::math;
  expect(equal(philox4x32(0, 0, 0, 0, 0, 0), {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}),
         "zero counter, zero key");
  constexpr uint32_t ones = 0xffffffff;
  expect(equal(philox4x32(ones, ones, ones, ones, ones, ones), {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}),
         "counter and key of ones");
  expect(equal(philox4x32(0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0),
               {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}),
         "digits of pi");
  expect(uniform_half_open(0) == 0.0f, "half-open uniform starts at 0");
  expect(uniform_half_open(ones) == 1.0f - 0x1p-24f, "half-open uniform ends below 1");
  expect(uniform_open(0) == 0x1p-24f, "open uniform starts above 0");
  expect(uniform_open(ones) == 1.0f - 0x1p-24f, "open uniform ends below 1");
  expect(spare_word(0x800, 0x801) == 0, "a spare word has nothing of the 21 bits above, nor of the lowest bit");
  expect(spare_word(0x601, 0x402) == (0x601u << 21 | 0x201u << 11), "a spare word has 11 bits, then 10");
  if (failures == 0) std::puts("philox: ok");
  return failures != 0;
}
