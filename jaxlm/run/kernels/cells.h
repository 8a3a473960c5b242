// The cells, element by element. The equations and their gradients are those of jaxlm/nn/recurrent.py.

#ifndef JAXLM_RUN_KERNELS_CELLS_H_
#define JAXLM_RUN_KERNELS_CELLS_H_

#include "vectors.h"

namespace {

// What a cell knows of one row and kLanes units: `x` and `hu` are the gates' two parts, `h` and `c` the state before.
struct Rnn {
  static constexpr int kGates = 1;
  static constexpr bool kCell = false, kExtra = false, kResets = false;
  static void advance(const Vector* x, const Vector* hu, Vector* h, Vector*, Vector* saved, Vector*) {
    saved[0] = *h = tanh(x[0] + hu[0]);
  }
  static void retreat(const Vector* saved, Vector, Vector, Vector, Vector* dh, Vector*, Vector* dx, Vector*) {
    dx[0] = *dh * (1.0f - saved[0] * saved[0]);
    *dh = Vector{};
  }
};

struct Lstm {
  static constexpr int kGates = 4;
  static constexpr bool kCell = true, kExtra = true, kResets = false;
  static void advance(const Vector* x, const Vector* hu, Vector* h, Vector* c, Vector* saved, Vector* extra) {
    const Vector i = sigmoid(x[0] + hu[0]), f = sigmoid(x[1] + hu[1]), o = sigmoid(x[3] + hu[3]);
    const Vector g = tanh(x[2] + hu[2]);
    *extra = *c = f * *c + i * g;
    *h = o * tanh(*c);
    saved[0] = i, saved[1] = f, saved[2] = g, saved[3] = o;
  }
  static void retreat(const Vector* saved, Vector extra, Vector, Vector c_before, Vector* dh, Vector* dc, Vector* dx,
                      Vector*) {
    const Vector i = saved[0], f = saved[1], g = saved[2], o = saved[3], tanh_c = tanh(extra);
    const Vector sum = *dc + *dh * o * (1.0f - tanh_c * tanh_c);
    dx[0] = sum * g * i * (1.0f - i);
    dx[1] = sum * c_before * f * (1.0f - f);
    dx[2] = sum * i * (1.0f - g * g);
    dx[3] = *dh * tanh_c * o * (1.0f - o);
    *dc = sum * f;
    *dh = Vector{};
  }
};

struct Gru {
  static constexpr int kGates = 3;
  static constexpr bool kCell = false, kExtra = true, kResets = true;
  static void advance(const Vector* x, const Vector* hu, Vector* h, Vector*, Vector* saved, Vector* extra) {
    const Vector r = sigmoid(x[0] + hu[0]), z = sigmoid(x[1] + hu[1]), n = tanh(x[2] + r * hu[2]);
    *h = (1.0f - z) * n + z * *h;
    *extra = hu[2];
    saved[0] = r, saved[1] = z, saved[2] = n;
  }
  static void retreat(const Vector* saved, Vector extra, Vector h_before, Vector, Vector* dh, Vector*, Vector* dx,
                      Vector* dhu_n) {
    const Vector r = saved[0], z = saved[1], n = saved[2];
    dx[2] = *dh * (1.0f - z) * (1.0f - n * n);
    dx[0] = dx[2] * extra * r * (1.0f - r);
    dx[1] = *dh * (h_before - n) * z * (1.0f - z);
    *dhu_n = dx[2] * r;
    *dh = *dh * z;
  }
};

}  // namespace

#endif  // JAXLM_RUN_KERNELS_CELLS_H_
