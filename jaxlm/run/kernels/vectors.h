// Vectors of floats as wide as the machine's registers, and exp, sigmoid and tanh over them, right to 2e-7 or better.

#ifndef JAXLM_RUN_KERNELS_VECTORS_H_
#define JAXLM_RUN_KERNELS_VECTORS_H_

#include <cstdint>
#include <cstring>

namespace {

using Index = int64_t;

#if defined(__AVX512F__)
constexpr Index kLanes = 16, kAccumulators = 24;
#elif defined(__AVX__)
constexpr Index kLanes = 8, kAccumulators = 12;
#elif defined(__aarch64__)
constexpr Index kLanes = 4, kAccumulators = 24;
#else
constexpr Index kLanes = 4, kAccumulators = 8;
#endif
// kLanes: floats of a vector register. kAccumulators: registers that a tile of the product sums in; the others hold a
// row of U.

typedef float Vector __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t Bits __attribute__((vector_size(kLanes * sizeof(float))));

constexpr Index divide_up(Index a, Index b) { return (a + b - 1) / b; }
constexpr Index round_up(Index a, Index b) { return divide_up(a, b) * b; }

inline Vector splat(float value) {
  Vector v;
  for (Index i = 0; i < kLanes; ++i) v[i] = value;
  return v;
}

inline Vector load(const float* from) {
  Vector v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}

inline void store(float* to, Vector v) { std::memcpy(to, &v, sizeof(v)); }

// The first `count` lanes; the others are 0. Arrays of XLA end where their width ends.
inline Vector load(const float* from, Index count) {
  if (count >= kLanes) return load(from);
  Vector v = {};
  std::memcpy(&v, from, count * sizeof(float));
  return v;
}

inline void store(float* to, Vector v, Index count) {
  if (count >= kLanes) return store(to, v);
  std::memcpy(to, &v, count * sizeof(float));
}

// exp(x) = 2^n (1 + q), n the nearest whole number to x / ln 2: writes 2^n and q. |x| < 87; NaN gives NaN.
inline void exponential_parts(Vector x, Vector* power, Vector* q) {
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number, which its last bits then hold
  Vector shifted = x * 1.44269504f + magic;
  Vector n = shifted - magic;
  Vector r = x - n * 0.693359375f;   // ln 2 in two parts, the first with few bits: its multiples are exact
  r = r - n * -2.12194440e-4f;
  Vector p = splat(1.0f / 5040);     // Taylor's series to r^7: |r| <= 0.35, so it is right to 5e-9
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  *q = p * r;
  Bits bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits << 23) + (127 << 23);
  std::memcpy(power, &bits, sizeof(bits));
}

// What is no number stays none: a comparison with NaN is false.
inline Vector clamp(Vector x, float bound) {
  x = x > bound ? splat(bound) : x;
  return x < -bound ? splat(-bound) : x;
}

inline Vector sigmoid(Vector x) {
  Vector power, q;
  exponential_parts(clamp(-x, 87.0f), &power, &q);
  return 1.0f / (1.0f + (power + power * q));
}

inline Vector tanh(Vector x) {
  Vector power, q;
  exponential_parts(clamp(x + x, 40.0f), &power, &q);
  Vector less_one = power * q + (power - 1.0f);  // exp(2x) - 1, of full accuracy near 0
  return less_one / (less_one + 2.0f);
}

}  // namespace

#endif  // JAXLM_RUN_KERNELS_VECTORS_H_
