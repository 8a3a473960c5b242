// Attention of whole rows on a CPU: softmax(q k^T) v, where each query sees one stretch of keys, [first, end).
//
// A unit of work is one key head of one row with all query heads that share it. Its keys and values are laid once as the
// products read them; then a block of queries at a time: scores, softmax, sums, all of which stay in the cache. Panels of
// keys that no query of a block sees are left out, which is half of them under a causal mask. What the queries of a unit
// give does not depend on the other units, nor on the thread that takes it.

#ifndef JAXLM_RUN_KERNELS_ATTENTION_H_
#define JAXLM_RUN_KERNELS_ATTENTION_H_

#include <algorithm>
#include <cmath>
#include <limits>

#include "product.h"
#include "vectors.h"

namespace {

constexpr Index kBlock = 24;                               // queries of a block
constexpr Index kKeyVectors = 2, kKeys = kKeyVectors * kLanes;  // keys of a panel

struct AttentionShape {
  Index rows, queries, keys, heads, key_heads, width;
  float scale;
  Index group() const { return heads / key_heads; }
  Index units() const { return rows * key_heads; }
  Index panels() const { return divide_up(keys, kKeys); }
  Index blocks() const { return divide_up(queries, kBlock); }
};

struct AttentionForward {
  const float *q, *k, *v;
  const int32_t *first, *end;
  float *out, *log_sum;
};

struct AttentionBackward {
  const float *dout, *q, *k, *v, *out, *log_sum;
  const int32_t *first, *end;
  float *dq, *dk, *dv;
};

// The width of a head as vectors: kWide of them at a time.
template <int kWide>
struct Wide {
  static constexpr Index kFloats = kWide * kLanes;
  static Index parts(Index width) { return divide_up(width, kFloats); }
  static Index padded(Index width) { return parts(width) * kFloats; }
};

// A square of lanes across: log2(kLanes) rounds in which the halves of all lines are shuffled into one another.
inline void transpose(Vector* lines) {
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector) && defined(__AVX512F__)
#define JAXLM_SHUFFLES
#endif
#endif
#ifdef JAXLM_SHUFFLES
  Vector other[kLanes];
#pragma GCC unroll 2
  for (int round = 0; round < 4; round += 2) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      other[2 * i] = __builtin_shufflevector(lines[i], lines[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7,
                                             23);
      other[2 * i + 1] = __builtin_shufflevector(lines[i], lines[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29,
                                                 14, 30, 15, 31);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      lines[2 * i] = __builtin_shufflevector(other[i], other[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7,
                                             23);
      lines[2 * i + 1] = __builtin_shufflevector(other[i], other[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29,
                                                 14, 30, 15, 31);
    }
  }
#else
  for (Index i = 0; i < kLanes; ++i)
    for (Index j = 0; j < i; ++j) std::swap(lines[i][j], lines[j][i]);
#endif
}

// packed[panel][component][key of the panel], of keys whose lines are `stride` apart.
void pack_across(const float* from, Index stride, Index keys, Index width, float* packed) {
  for (Index key = 0; key < keys; key += kLanes)
    for (Index component = 0; component < width; component += kLanes) {
      Vector lines[kLanes];
      for (Index i = 0; i < kLanes; ++i)
        lines[i] = key + i < keys ? load(from + (key + i) * stride + component, width - component) : Vector{};
      transpose(lines);
      float* const to = packed + (key / kKeys * width + component) * kKeys + key % kKeys;
      for (Index i = 0; i < std::min(kLanes, width - component); ++i) store(to + i * kKeys, lines[i]);
    }
  for (Index key = round_up(keys, kLanes); key % kKeys; key += kLanes)  // what the keys leave of the last panel
    for (Index i = 0; i < width; ++i) store(packed + (key / kKeys * width + i) * kKeys + key % kKeys, Vector{});
}

// packed[part of the width][line][kWide vectors]; lines from `count` to `padded` are 0.
template <int kWide>
void pack_lines(const float* from, Index stride, Index count, Index padded, Index width, float scale, float* packed) {
  for (Index part = 0; part < Wide<kWide>::parts(width); ++part)
    for (Index line = 0; line < padded; ++line)
      for (Index v = 0; v < kWide; ++v, packed += kLanes) {
        const Index component = part * Wide<kWide>::kFloats + v * kLanes;
        store(packed, line < count && component < width
                          ? load(from + line * stride + component, width - component) * scale
                          : Vector{});
      }
}

// Where a unit's row and heads lie, and how large what is packed of it is.
template <int kWide>
struct Unit {
  Index row, key_head, width, padded, parts, wide, stride, key_stride, keys_from;
  Unit(const AttentionShape& shape, Index number)
      : row(number / shape.key_heads), key_head(number % shape.key_heads), width(shape.width),
        padded(shape.panels() * kKeys), parts(Wide<kWide>::parts(width)), wide(Wide<kWide>::padded(width)),
        stride(shape.heads * width), key_stride(shape.key_heads * width),
        keys_from((row * shape.keys * shape.key_heads + key_head) * width) {}
  // Of a line in what `parts` parts of so many lines were packed to.
  static Index place(Index component, Index line, Index lines) {
    return (component / Wide<kWide>::kFloats * lines + line) * Wide<kWide>::kFloats + component % Wide<kWide>::kFloats;
  }
};

// Keys that some query of a block sees, as panels.
struct Seen {
  Index first = 0, end = 0;
  Seen(const int32_t* firsts, const int32_t* ends, Index count) {
    for (Index i = 0; i < count; ++i) {
      if (firsts[i] >= ends[i]) continue;
      const Index one = firsts[i] / kKeys;
      first = end == 0 ? one : std::min(first, one);
      end = std::max(end, divide_up(ends[i], kKeys));
    }
  }
};

// out[panel][query][key of the panel] = lines . keys: queries packed by pack_lines, keys by pack_across.
template <int kWide>
void score(const float* lines, const float* keys, Index width, Seen seen, float* out) {
  constexpr int kRows = kAccumulators / kKeyVectors, kFloats = kWide * kLanes;
  static_assert(kBlock % kRows == 0);
  for (Index panel = seen.first; panel < seen.end; ++panel)
    for (Index query = 0; query < kBlock; query += kRows)
      for (Index part = 0; part < width; part += kFloats)
        tile<kRows, kKeyVectors, false>(lines + part * kBlock + query * kFloats, kFloats,
                                        keys + (panel * width + part) * kKeys, std::min<Index>(kFloats, width - part),
                                        out + (panel * kBlock + query) * kKeys, part == 0);
}

// sums[part][query][kWide vectors] = sum over the seen keys of weights[panel][query][key] lines[part][key].
template <int kWide>
void gather(const float* weights, const float* lines, Index parts, Index padded_keys, Seen seen, float* sums) {
  constexpr int kRows = kAccumulators / kWide, kFloats = kWide * kLanes;
  static_assert(kBlock % kRows == 0);
  for (Index part = 0; part < parts; ++part)
    for (Index query = 0; query < kBlock; query += kRows)
      for (Index panel = seen.first; panel < seen.end; ++panel)
        tile<kRows, kWide, false>(weights + (panel * kBlock + query) * kKeys, kKeys,
                                  lines + (part * padded_keys + panel * kKeys) * kFloats, kKeys,
                                  sums + (part * kBlock + query) * kFloats, panel == seen.first);
}

// sums[part][key][kWide vectors] += sum over the block's queries of weights[panel][query][key] lines[part][query].
template <int kWide>
void scatter(const float* weights, const float* lines, Index parts, Index padded_keys, Seen seen, float* sums) {
  constexpr int kMost = std::min<Index>(kAccumulators, 16) / kWide, kFloats = kWide * kLanes;
  constexpr int kRows = std::min<Index>(kKeys, kMost >= 16 ? 16 : kMost >= 8 ? 8 : kMost >= 4 ? 4 : 2);
  static_assert(kKeys % kRows == 0);
  for (Index part = 0; part < parts; ++part)
    for (Index panel = seen.first; panel < seen.end; ++panel)
      for (Index key = 0; key < kKeys; key += kRows)
        tile<kRows, kWide, true>(weights + panel * kBlock * kKeys + key, kKeys, lines + part * kBlock * kFloats, kBlock,
                                 sums + (part * padded_keys + panel * kKeys + key) * kFloats, false);
}

// Which lanes of a vector of keys lie in [first, end): all bits of those, none of the others.
inline Bits lanes_within(Index key, Index first, Index end) {
  Bits lane;
  for (Index i = 0; i < kLanes; ++i) lane[i] = static_cast<int32_t>(i);
  lane += static_cast<int32_t>(key);
  return (lane >= static_cast<int32_t>(first)) & (lane < static_cast<int32_t>(end));
}

inline Vector kept(Bits within, Vector x) {
  Bits bits;
  std::memcpy(&bits, &x, sizeof(bits));
  bits &= within;
  std::memcpy(&x, &bits, sizeof(bits));
  return x;
}

// exp of what is not above 0 by more than rounding.
inline Vector exponential(Vector x) {
  Vector power, q;
  exponential_parts(clamp(x, 87.0f), &power, &q);
  return power + power * q;
}

inline float sum_of(Vector v) {
  float sum = 0;
  for (Index i = 0; i < kLanes; ++i) sum += v[i];
  return sum;
}

// A query's scores become exp(score - greatest) in place, 0 where it does not see; log of their sum by e.
inline float weigh(float* scores, Seen seen, Index first, Index end, float* one_over_sum) {
  Vector most = splat(-std::numeric_limits<float>::max()), sum = {};
  for (Index panel = seen.first; panel < seen.end; ++panel)
    for (Index v = 0; v < kKeyVectors; ++v) {
      const Index key = panel * kKeys + v * kLanes;
      const Vector x = load(scores + panel * kBlock * kKeys + v * kLanes);
      const Bits within = lanes_within(key, first, end);
      most = within & (x > most) ? x : most;
    }
  float greatest = most[0];
  for (Index i = 1; i < kLanes; ++i) greatest = std::max(greatest, most[i]);
  for (Index panel = seen.first; panel < seen.end; ++panel)
    for (Index v = 0; v < kKeyVectors; ++v) {
      float* const at = scores + panel * kBlock * kKeys + v * kLanes;
      const Vector weight = kept(lanes_within(panel * kKeys + v * kLanes, first, end), exponential(load(at) - greatest));
      sum += weight;
      store(at, weight);
    }
  const float total = sum_of(sum);
  *one_over_sum = first < end ? 1.0f / total : 0.0f;
  return first < end ? greatest + std::log(total) : 0.0f;
}

template <int kWide>
Index forward_floats(const AttentionShape& shape) {
  const Index padded = shape.panels() * kKeys, wide = Wide<kWide>::padded(shape.width);
  return padded * (shape.width + wide + kBlock) + 2 * kBlock * wide;
}

template <int kWide>
void attend_forward(const AttentionShape& shape, const AttentionForward& in, Index unit, float* scratch) {
  const auto [row, key_head, width, padded, parts, wide, stride, key_stride, from] = Unit<kWide>(shape, unit);
  float* const keys = scratch;
  float* const values = keys + padded * width;
  float* const scores = values + padded * wide;
  float* const lines = scores + padded * kBlock;
  float* const sums = lines + kBlock * wide;
  pack_across(in.k + from, key_stride, shape.keys, width, keys);
  pack_lines<kWide>(in.v + from, key_stride, shape.keys, padded, width, 1.0f, values);
  for (Index head = key_head * shape.group(); head < (key_head + 1) * shape.group(); ++head)
    for (Index query = 0; query < shape.queries; query += kBlock) {
      const Index count = std::min(kBlock, shape.queries - query), at = row * shape.queries + query;
      const Seen seen(in.first + at, in.end + at, count);
      pack_lines<kWide>(in.q + at * stride + head * width, stride, count, kBlock, width, shape.scale, lines);
      score<kWide>(lines, keys, width, seen, scores);
      float one_over[kBlock];
      for (Index i = 0; i < count; ++i)
        in.log_sum[(row * shape.heads + head) * shape.queries + query + i] =
            weigh(scores + i * kKeys, seen, in.first[at + i], in.end[at + i], one_over + i);
      gather<kWide>(scores, values, parts, padded, seen, sums);
      for (Index i = 0; i < count; ++i)
        for (Index component = 0; component < width; component += kLanes) {
          const float* const sum = sums + Unit<kWide>::place(component, i, kBlock);
          store(in.out + (at + i) * stride + head * width + component,
                one_over[i] == 0.0f ? Vector{} : load(sum) * one_over[i], width - component);
        }
    }
}

template <int kWide>
Index backward_floats(const AttentionShape& shape) {
  const Index padded = shape.panels() * kKeys, wide = Wide<kWide>::padded(shape.width);
  return padded * (2 * shape.width + 3 * wide + 2 * kBlock) + 3 * kBlock * wide;
}

// Of a query: scores become weights, and `grads` (of the weights) those of the scores.
inline void weigh_back(float* scores, float* grads, Seen seen, Index first, Index end, float log_sum, float mean) {
  for (Index panel = seen.first; panel < seen.end; ++panel)
    for (Index v = 0; v < kKeyVectors; ++v) {
      const Index at = panel * kBlock * kKeys + v * kLanes;
      const Bits within = lanes_within(panel * kKeys + v * kLanes, first, end);
      const Vector weight = kept(within, exponential(load(scores + at) - log_sum));
      store(scores + at, weight);
      store(grads + at, weight * (load(grads + at) - mean));
    }
}

template <int kWide>
void attend_backward(const AttentionShape& shape, const AttentionBackward& in, Index unit, float* scratch) {
  const auto [row, key_head, width, padded, parts, wide, stride, key_stride, from] = Unit<kWide>(shape, unit);
  float* const keys = scratch;
  float* const values = keys + padded * width;
  float* const key_lines = values + padded * width;
  float* const dk = key_lines + padded * wide;
  float* const dv = dk + padded * wide;
  float* const weights = dv + padded * wide;
  float* const grads = weights + padded * kBlock;
  float* const lines = grads + padded * kBlock;
  float* const dout_lines = lines + kBlock * wide;
  float* const sums = dout_lines + kBlock * wide;
  pack_across(in.k + from, key_stride, shape.keys, width, keys);
  pack_across(in.v + from, key_stride, shape.keys, width, values);
  pack_lines<kWide>(in.k + from, key_stride, shape.keys, padded, width, shape.scale, key_lines);
  std::fill(dk, weights, 0.0f);
  for (Index head = key_head * shape.group(); head < (key_head + 1) * shape.group(); ++head)
    for (Index query = 0; query < shape.queries; query += kBlock) {
      const Index count = std::min(kBlock, shape.queries - query), at = row * shape.queries + query;
      const Index line = at * stride + head * width;
      const Seen seen(in.first + at, in.end + at, count);
      pack_lines<kWide>(in.q + line, stride, count, kBlock, width, shape.scale, lines);
      pack_lines<kWide>(in.dout + line, stride, count, kBlock, width, 1.0f, dout_lines);
      score<kWide>(lines, keys, width, seen, weights);
      score<kWide>(dout_lines, values, width, seen, grads);
      for (Index i = 0; i < kBlock; ++i) {
        Vector product = {};
        for (Index component = 0; i < count && component < width; component += kLanes)
          product += load(in.dout + line + i * stride + component, width - component) *
                     load(in.out + line + i * stride + component, width - component);
        const bool real = i < count;
        weigh_back(weights + i * kKeys, grads + i * kKeys, seen, real ? in.first[at + i] : 0, real ? in.end[at + i] : 0,
                   real ? in.log_sum[(row * shape.heads + head) * shape.queries + query + i] : 0.0f, sum_of(product));
      }
      scatter<kWide>(weights, dout_lines, parts, padded, seen, dv);
      scatter<kWide>(grads, lines, parts, padded, seen, dk);
      gather<kWide>(grads, key_lines, parts, padded, seen, sums);
      for (Index i = 0; i < count; ++i)
        for (Index component = 0; component < width; component += kLanes) {
          const float* const sum = sums + Unit<kWide>::place(component, i, kBlock);
          store(in.dq + line + i * stride + component, seen.first == seen.end ? Vector{} : load(sum),
                width - component);
        }
    }
  for (Index key = 0; key < shape.keys; ++key)
    for (Index component = 0; component < width; component += kLanes) {
      const Index at = Unit<kWide>::place(component, key, padded);
      store(in.dk + from + key * key_stride + component, load(dk + at), width - component);
      store(in.dv + from + key * key_stride + component, load(dv + at), width - component);
    }
}

}  // namespace

#endif  // JAXLM_RUN_KERNELS_ATTENTION_H_
