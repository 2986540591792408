// Gibbs sampling by table lookup, for AVX-512 and float32.
//
// States are bits, so the contribution of 5 inputs to a field takes one of 32 values: they fill two registers, and one
// vpermi2ps looks them up for 16 chains at once. With the addition that makes 80 multiply-adds per cycle, against 32 of
// each FMA unit. Tables are built from 5 weights where they are used and serve all chains of a thread's chunk.
#pragma once

#if defined(__AVX512F__)

// GCC 12 reports the intrinsics' own "undefined" operands as uninitialised.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <cstring>
#include <type_traits>

#include "kernels/cpu/philox_lanes.h"
#include "kernels/cpu/rbm_gibbs_common.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA::lookup {

constexpr int kLanes = 16;          // chains per register
constexpr int kInputsPerTable = 5;  // vpermi2ps reads 5 bits of an index and ignores the others
constexpr int kTablesPerWord = 4;   // one in each byte of a word: an unaligned load does the shifting
constexpr int kUnitsPerWord = kInputsPerTable * kTablesPerWord;
constexpr int kOutputs = 4;              // at a time: the units that share a Philox call
constexpr int kMaxGroupsPerBlock = 5;    // groups of 16 chains whose fields are in registers together
constexpr int64_t kGroupsPerChunk = 40;  // fields of 4 outputs stay in the L1 cache, states in the L2 cache
constexpr int64_t kTablesPerTile = 24;   // tables of 4 outputs that stay in the L1 cache

inline int64_t words_for(int64_t units) { return (units + kUnitsPerWord - 1) / kUnitsPerWord; }

// Bit of unit i (of the word's 20) within a word.
constexpr int bit_of(int i) { return i / kInputsPerTable * 8 + i % kInputsPerTable; }

// States of one side of a chunk: words[group][word][lane], units in order, 20 to a word.
struct PackedStates {
  uint32_t* words;
  int64_t words_per_group;
  uint32_t* at(int64_t group, int64_t word) const { return words + (group * words_per_group + word) * kLanes; }
};

// Tables [table][output][32] of 4 rows of weights.
inline void build_tables(const float* rows, int64_t stride, int64_t tables, float* out) {
  for (int64_t t = 0; t < tables; ++t) {
    for (int j = 0; j < kOutputs; ++j, out += 32) {
      const float* w = rows + j * stride + t * kInputsPerTable;
      __m512 low = _mm512_maskz_mov_ps(0xaaaa, _mm512_set1_ps(w[0]));
      __m512 high = _mm512_maskz_mov_ps(0xf0f0, _mm512_set1_ps(w[2]));
      low = _mm512_mask_add_ps(low, 0xcccc, low, _mm512_set1_ps(w[1]));
      high = _mm512_mask_add_ps(high, 0xff00, high, _mm512_set1_ps(w[3]));
      low = _mm512_add_ps(low, high);
      _mm512_store_ps(out, low);
      _mm512_store_ps(out + 16, _mm512_add_ps(low, _mm512_set1_ps(w[4])));
    }
  }
}

// Adds the contributions of `tables` tables to the fields [group][output][lane] of 4 outputs, for kGroups groups of
// chains; `words` points at the first of these tables in the first of these groups.
template <int kGroups>
void add_fields(const uint32_t* words, int64_t words_per_group, int64_t tables, const float* table, float* fields) {
  __m512 sum[kOutputs][kGroups];
#pragma GCC unroll 8
  for (int c = 0; c < kGroups; ++c) {
#pragma GCC unroll 8
    for (int j = 0; j < kOutputs; ++j) sum[j][c] = _mm512_load_ps(fields + (c * kOutputs + j) * kLanes);
  }
  const char* bytes = reinterpret_cast<const char*>(words);
  const int64_t step = words_per_group * kLanes * static_cast<int64_t>(sizeof(uint32_t));
  for (int64_t t = 0; t < tables; ++t, table += 32 * kOutputs) {
    const char* index = bytes + t / kTablesPerWord * 64 + t % kTablesPerWord;
    __m512 low[kOutputs], high[kOutputs];
#pragma GCC unroll 8
    for (int j = 0; j < kOutputs; ++j) {
      low[j] = _mm512_load_ps(table + 32 * j);
      high[j] = _mm512_load_ps(table + 32 * j + 16);
    }
#pragma GCC unroll 8
    for (int c = 0; c < kGroups; ++c) {
      const __m512i pattern = _mm512_loadu_si512(index + c * step);
#pragma GCC unroll 8
      for (int j = 0; j < kOutputs; ++j) {
        sum[j][c] = _mm512_add_ps(sum[j][c], _mm512_permutex2var_ps(low[j], pattern, high[j]));
      }
    }
  }
#pragma GCC unroll 8
  for (int c = 0; c < kGroups; ++c) {
#pragma GCC unroll 8
    for (int j = 0; j < kOutputs; ++j) _mm512_store_ps(fields + (c * kOutputs + j) * kLanes, sum[j][c]);
  }
}

inline void add_fields_of(int64_t groups, const uint32_t* words, int64_t words_per_group, int64_t tables,
                          const float* table, float* fields) {
  switch (groups) {
    case 1:
      return add_fields<1>(words, words_per_group, tables, table, fields);
    case 2:
      return add_fields<2>(words, words_per_group, tables, table, fields);
    case 3:
      return add_fields<3>(words, words_per_group, tables, table, fields);
    case 4:
      return add_fields<4>(words, words_per_group, tables, table, fields);
    default:
      return add_fields<5>(words, words_per_group, tables, table, fields);
  }
}

// Lanes whose draw succeeds: math::bernoulli(field, math::uniform_open(word)) with a shorter exp. Relative error of
// the odds below 1e-6 up to |field| = 17, as much as a rounding of the field makes.
inline __mmask16 bernoulli(__m512 field, __m512i word) {
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 uniform = philox::scaled_uniform<23>(word);
  // exp(-field) = 2^n 2^r; beyond +-80 the outcome is certain, and 2^n stays a normal number.
  const __m512 x = _mm512_range_ps(field, _mm512_set1_ps(80.0f), 0x2);  // smaller magnitude, sign of the field
  const __m512 scale = _mm512_set1_ps(-1.44269504f);
  const __m512 shift = _mm512_set1_ps(0x1.8p23f);
  const __m512 shifted = _mm512_fmadd_ps(x, scale, shift);
  const __m512 r = _mm512_fmsub_ps(x, scale, _mm512_sub_ps(shifted, shift));
  __m512 e = _mm512_set1_ps(1.3274633e-3f);  // 2^r on [-1/2, 1/2]: minimax, relative error 1.6e-7
  e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(9.671962e-3f));
  e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(5.5506784e-2f));
  e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(2.4022235e-1f));
  e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(6.9314706e-1f));
  e = _mm512_fmadd_ps(e, r, one);
  e = _mm512_castsi512_ps(
      _mm512_add_epi32(_mm512_castps_si512(e), _mm512_slli_epi32(_mm512_castps_si512(shifted), 23)));
  return _mm512_cmp_ps_mask(_mm512_fmadd_ps(uniform, e, uniform), _mm512_set1_ps(0x1p32f), _CMP_LT_OQ);
}

// Samples 4 units of kGroups groups of chains and writes, or adds, their bits to the words at `target`.
template <int kGroups>
inline void sample_units(const philox::RowRounds* chains, const philox::RoundKeys& key, const philox::CallRounds& unit,
                         const float* fields, const int (&bits)[kOutputs], bool first_of_word, uint32_t* target,
                         int64_t target_step) {
  __m512i words[kGroups][kOutputs];
  philox::words_of(chains, key, unit, words);
#pragma GCC unroll 2
  for (int c = 0; c < kGroups; ++c) {
    uint32_t* states = target + c * target_step;
    __m512i result = first_of_word ? _mm512_setzero_si512() : _mm512_load_si512(states);
#pragma GCC unroll 4
    for (int j = 0; j < kOutputs; ++j) {
      const __mmask16 success = bernoulli(_mm512_load_ps(fields + (c * kOutputs + j) * kLanes), words[c][j]);
      result = _mm512_mask_or_epi32(result, success, result, _mm512_set1_epi32(bits[j]));
    }
    _mm512_store_si512(states, result);
  }
}

struct Scratch {
  AlignedBuffer<float> tables{kTablesPerTile * kOutputs * 32};
  AlignedBuffer<float> fields{kGroupsPerChunk * kOutputs * kLanes};
  AlignedBuffer<philox::RowRounds> rounds{kGroupsPerChunk};
};

// Fields [group][output][lane] of outputs first ... first + 3.
inline void compute_fields(const HalfSweep<float>& half, const PackedStates& inputs, int64_t groups, int64_t first,
                           const Scratch& scratch, float* fields) {
  const int64_t tables = half.stride / kInputsPerTable;
  const int64_t blocks = (groups + kMaxGroupsPerBlock - 1) / kMaxGroupsPerBlock;
  for (int j = 0; j < kOutputs; ++j) {
    const __m512 bias = _mm512_set1_ps(half.bias.get()[first + j]);
    for (int64_t group = 0; group < groups; ++group) _mm512_store_ps(fields + (group * kOutputs + j) * kLanes, bias);
  }
  for (int64_t tile = 0; tile < tables; tile += kTablesPerTile) {
    const int64_t count = std::min(kTablesPerTile, tables - tile);
    build_tables(half.weight.get() + first * half.stride + tile * kInputsPerTable, half.stride, count,
                 scratch.tables.get());
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t begin = block * groups / blocks;
      add_fields_of((block + 1) * groups / blocks - begin, inputs.at(begin, tile / kTablesPerWord),
                    inputs.words_per_group, count, scratch.tables.get(), fields + begin * kOutputs * kLanes);
    }
  }
}

// Draws outputs first ... first + 3 from their fields; those from n_outputs on stay 0.
inline void sample_fields(int64_t n_outputs, uint32_t stream, const float* fields, const PackedStates& outputs,
                          int64_t groups, int64_t first, const philox::RoundKeys& key, const Scratch& scratch) {
  const philox::CallRounds unit(key, static_cast<uint32_t>(first / kOutputs) | stream);
  const int position = static_cast<int>(first % kUnitsPerWord);
  int bits[kOutputs];
  for (int j = 0; j < kOutputs; ++j) bits[j] = first + j < n_outputs ? 1 << bit_of(position + j) : 0;
  const auto sample = [&](auto count, int64_t group) {
    sample_units<count>(scratch.rounds.get() + group, key, unit, fields + group * kOutputs * kLanes, bits,
                        position == 0, outputs.at(group, first / kUnitsPerWord), outputs.words_per_group * kLanes);
  };
  int64_t group = 0;
  for (; group + 2 <= groups; group += 2) sample(std::integral_constant<int, 2>{}, group);
  if (group < groups) sample(std::integral_constant<int, 1>{}, group);
}

inline void half_sweep(const HalfSweep<float>& half, const PackedStates& inputs, const PackedStates& outputs,
                       int64_t groups, const philox::RoundKeys& key, const Scratch& scratch) {
  float* fields = scratch.fields.get();
  for (int64_t first = 0; first < half.n_outputs; first += kOutputs) {
    compute_fields(half, inputs, groups, first, scratch, fields);
    sample_fields(half.n_outputs, half.stream, fields, outputs, groups, first, key, scratch);
  }
}

template <class State>
void pack_states(const State* states, int64_t chains, int64_t units, int64_t groups, const PackedStates& packed) {
  std::memset(packed.words, 0, static_cast<size_t>(groups * packed.words_per_group * kLanes) * sizeof(uint32_t));
  for (int64_t chain = 0; chain < chains; ++chain) {
    const State* row = states + chain * units;
    for (int64_t word = 0; word < words_for(units); ++word) {
      const int count = static_cast<int>(std::min<int64_t>(kUnitsPerWord, units - word * kUnitsPerWord));
      uint32_t bits = 0;
      for (int i = 0; i < count; ++i) {
        bits |= static_cast<uint32_t>(math::load(row[word * kUnitsPerWord + i]) != 0) << bit_of(i);
      }
      packed.at(chain / kLanes, word)[chain % kLanes] = bits;
    }
  }
}

template <class State>
void unpack_states(const PackedStates& packed, int64_t chains, int64_t units, State* states) {
  for (int64_t chain = 0; chain < chains; ++chain) {
    State* row = states + chain * units;
    for (int64_t word = 0; word < words_for(units); ++word) {
      const int count = static_cast<int>(std::min<int64_t>(kUnitsPerWord, units - word * kUnitsPerWord));
      const uint32_t bits = packed.at(chain / kLanes, word)[chain % kLanes];
      for (int i = 0; i < count; ++i) {
        row[word * kUnitsPerWord + i] = math::store<State>(static_cast<math::compute_t<State>>(bits >> bit_of(i) & 1u));
      }
    }
  }
}

template <class State>
void sample_chunk(const RbmGibbs& p, const HalfSweep<float>& to_hidden, const HalfSweep<float>& to_visible,
                  int64_t first_group, int64_t groups) {
  const int64_t first_chain = first_group * kLanes;
  const int64_t chains = std::min(groups * kLanes, p.chains - first_chain);
  const int64_t visible_words = words_for(p.n_visible), hidden_words = words_for(p.n_hidden);
  // A whole vector of slack: the unaligned index loads read up to 3 bytes past the last word.
  AlignedBuffer<uint32_t> words((visible_words + hidden_words) * groups * kLanes + 2 * kLanes);
  const PackedStates visible{words.get(), visible_words};
  const PackedStates hidden{visible.at(groups, 0) + kLanes, hidden_words};
  const Scratch scratch;

  State* visible_states = static_cast<State*>(p.visible) + first_chain * p.n_visible;
  State* hidden_states = static_cast<State*>(p.hidden) + first_chain * p.n_hidden;
  pack_states(visible_states, chains, p.n_visible, groups, visible);
  for (int64_t sweep = 0; sweep < p.sweeps; ++sweep) {
    const philox::RoundKeys key(static_cast<uint64_t>(p.key[0]),
                                static_cast<uint64_t>(p.key[1]) + static_cast<uint64_t>(sweep));
    for (int64_t group = 0; group < groups; ++group) {
      scratch.rounds.get()[group] = philox::row_rounds(key, static_cast<uint32_t>(first_chain + group * kLanes));
    }
    half_sweep(to_hidden, visible, hidden, groups, key, scratch);
    half_sweep(to_visible, hidden, visible, groups, key, scratch);
  }
  unpack_states(visible, chains, p.n_visible, visible_states);
  unpack_states(hidden, chains, p.n_hidden, hidden_states);
}

}  // namespace dvae_ext::kernels::DVAE_EXT_ISA::lookup

#pragma GCC diagnostic pop

#endif  // __AVX512F__
