// The time loop of the recurrent layers on a CPU, forward and backward, as two custom calls of XLA a cell.
//
// h_t = cell(x_t, h_{t-1} U + b, state_{t-1}); what each cell computes is said in jaxlm/nn/recurrent.py, shapes and
// residuals in jaxlm/nn/recurrent_kernel.py. U is packed once a call into panels of the vectors that belong to the same
// units, so that a step's gates are used while they are in the cache; every other step reads the panels backwards, for
// those that the step before read last are still in the cache. The rows of the batch are dealt to the threads:
// each takes its rows through all steps, and no thread waits for another in between. A row's sums run in the same order
// whatever rows stand beside it, so the result depends neither on the number of threads nor on the batch.

#include <algorithm>
#include <cstring>
#include <utility>

#include "cells.h"
#include "outer.h"
#include "product.h"
#include "vectors.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

constexpr Index kLeastRows = 4;     // fewer rows a thread do not fill the multipliers

struct Shape {
  Index steps, rows, width;
  Index padded() const { return round_up(width, kLanes); }
  Index blocks() const { return divide_up(width, kLanes); }
};

Index rows_per_share(Index rows, Index threads) {
  return std::max(kLeastRows, divide_up(rows, std::max<Index>(threads, 1)));
}

struct Forward {
  const float *x, *x_bias, *u, *u_bias, *h0, *c0;
  const bool* keep;
  float *h, *gates, *extra;
};

// packed[block][k][gate][lane] = u[k][gate * width + block * kLanes + lane]
template <class Cell>
void pack_forward(const Shape& shape, const float* u, Index block, float* packed) {
  constexpr int kGates = Cell::kGates;
  const Index unit = block * kLanes;
  packed += block * shape.width * kGates * kLanes;
  for (Index k = 0; k < shape.width; ++k)
    for (int g = 0; g < kGates; ++g)
      store(packed + (k * kGates + g) * kLanes, load(u + (k * kGates + g) * shape.width + unit, shape.width - unit));
}

template <class Cell>
Index forward_scratch(const Shape& shape, Index rows) {
  return 2 * Blocked::size(rows, shape.padded()) + rows * (shape.padded() + Cell::kGates * kLanes);
}

// All steps of the rows from `first` on.
template <class Cell>
void forward_rows(const Shape& shape, const Forward& in, const float* packed, Index first, Index rows, float* scratch) {
  constexpr int kGates = Cell::kGates;
  const Index width = shape.width, padded = shape.padded(), size = Blocked::size(rows, padded);
  Blocked before(scratch, rows), after(scratch + size, rows);
  float* const c = scratch + 2 * size;
  float* const product = c + rows * padded;
  for (Index r = 0; r < rows; ++r)
    for (Index unit = 0; unit < width; unit += kLanes) {
      store(before.at(r, unit), load(in.h0 + (first + r) * width + unit, width - unit));
      if (Cell::kCell) store(c + r * padded + unit, load(in.c0 + (first + r) * width + unit, width - unit));
    }
  for (Index t = 0; t < shape.steps; ++t) {
    const Index step = t * shape.rows + first;
    for (Index r = 0; r < rows; ++r) {
      if (in.keep[step + r]) continue;
      for (Index unit = 0; unit < width; unit += kLanes) store(before.at(r, unit), Vector{});
      if (Cell::kCell) std::memset(c + r * padded, 0, padded * sizeof(float));
    }
    for (Index turn = 0; turn < shape.blocks(); ++turn) {
      const Index block = t % 2 ? shape.blocks() - 1 - turn : turn;
      const Index unit = block * kLanes, left = width - unit;
      multiply<kGates>(before, rows, packed + block * width * kGates * kLanes, width, product);
      Vector x_bias[kGates], u_bias[kGates];
      for (int g = 0; g < kGates; ++g) {
        x_bias[g] = load(in.x_bias + g * width + unit, left);
        u_bias[g] = load(in.u_bias + g * width + unit, left);
      }
      for (Index r = 0; r < rows; ++r) {
        const Index row = step + r;
        Vector x[kGates], hu[kGates], saved[kGates], extra;
        for (int g = 0; g < kGates; ++g) {
          const float* const from = in.x + (row * kGates + g) * width + unit;
          // The next step's: one line a row and gate, too far apart for the processor to fetch them ahead by itself.
          __builtin_prefetch(from + shape.rows * kGates * width, 1, 2);
          x[g] = load(from, left) + x_bias[g];
          hu[g] = load(product + (r * kGates + g) * kLanes) + u_bias[g];
        }
        Vector h = load(before.at(r, unit)), cell = load(c + r * padded + unit);
        Cell::advance(x, hu, &h, &cell, saved, &extra);
        if (Cell::kCell) store(c + r * padded + unit, cell);
        store(after.at(r, unit), h);
        store(in.h + row * width + unit, h, left);
        for (int g = 0; g < kGates; ++g) store(in.gates + (row * kGates + g) * width + unit, saved[g], left);
        if (Cell::kExtra) store(in.extra + row * width + unit, extra, left);
      }
    }
    std::swap(before, after);
  }
}

struct Backward {
  const float *dh, *dh_last, *dc_last, *u, *gates, *extra, *h, *h0, *c0;
  const bool* keep;
  float *dx, *dhu, *dh0, *dc0, *dx_bias, *du_bias;
};

// packed[panel][gate * padded + unit][column] = u[panel * kColumns + column][gate * width + unit]
template <class Cell>
void pack_backward(const Shape& shape, const float* u, Index panel, float* packed) {
  constexpr Index kColumns = kPanelVectors * kLanes;
  const Index padded = shape.padded(), columns = Cell::kGates * padded;
  packed += panel * columns * kColumns;
  for (Index first = 0; first < columns; first += kLanes)  // a square at a time: both sides stay in the cache
    for (Index column = 0; column < kColumns; ++column) {
      const Index from = panel * kColumns + column, gate = first / padded, unit = first % padded;
      Vector v = {};
      if (from < shape.width) v = load(u + (from * Cell::kGates + gate) * shape.width + unit, shape.width - unit);
      for (Index i = 0; i < kLanes; ++i) packed[(first + i) * kColumns + column] = v[i];
    }
}

// Sums over the steps, of a row at a time: the gradients are read while they are at hand.
void add(float* sum, Vector value, Index left, bool is_first) {
  store(sum, is_first ? value : load(sum, left) + value, left);
}

template <class Cell>
Index backward_scratch(const Shape& shape, Index rows) {
  return Blocked::size(rows, Cell::kGates * shape.padded()) + rows * (2 * shape.padded() + kPanelVectors * kLanes);
}

template <class Cell>
void backward_rows(const Shape& shape, const Backward& in, const float* packed, Index first, Index rows,
                   float* scratch) {
  constexpr int kGates = Cell::kGates;
  constexpr Index kColumns = kPanelVectors * kLanes;
  const Index width = shape.width, padded = shape.padded(), columns = kGates * padded;
  const Index panels = divide_up(width, kColumns);
  Blocked dhu(scratch, rows);
  float* const dh = scratch + Blocked::size(rows, columns);
  float* const dc = dh + rows * padded;
  float* const product = dc + rows * padded;
  for (Index r = 0; r < rows; ++r)
    for (Index unit = 0; unit < width; unit += kLanes) {
      store(dh + r * padded + unit, load(in.dh_last + (first + r) * width + unit, width - unit));
      if (Cell::kCell) store(dc + r * padded + unit, load(in.dc_last + (first + r) * width + unit, width - unit));
    }
  for (Index t = shape.steps - 1; t >= 0; --t) {
    const Index step = t * shape.rows + first;
    for (Index r = 0; r < rows; ++r) {
      const Index row = step + r;
      const bool keep = in.keep[row];
      const float* const h_before = t ? in.h + (row - shape.rows) * width : in.h0 + row * width;
      const float* const c_before = t ? in.extra + (row - shape.rows) * width : in.c0 + row * width;
      for (Index unit = 0; unit < width; unit += kLanes) {
        const Index left = width - unit;
        Vector saved[kGates], dx[kGates], dhu_n, extra = {}, hb = {}, cb = {};
        for (int g = 0; g < kGates; ++g) saved[g] = load(in.gates + (row * kGates + g) * width + unit, left);
        if (Cell::kExtra) extra = load(in.extra + row * width + unit, left);
        if (Cell::kResets && keep) hb = load(h_before + unit, left);
        if (Cell::kCell && keep) cb = load(c_before + unit, left);
        Vector dh_sum = load(dh + r * padded + unit) + load(in.dh + row * width + unit, left);
        Vector dc_sum = Cell::kCell ? load(dc + r * padded + unit) : Vector{};
        Cell::retreat(saved, extra, hb, cb, &dh_sum, &dc_sum, dx, &dhu_n);
        store(dh + r * padded + unit, keep ? dh_sum : Vector{});
        if (Cell::kCell) store(dc + r * padded + unit, keep ? dc_sum : Vector{});
        for (int g = 0; g < kGates; ++g) {
          const Vector through = Cell::kResets && g == kGates - 1 ? dhu_n : dx[g];
          store(in.dx + (row * kGates + g) * width + unit, dx[g], left);
          store(dhu.at(r, g * padded + unit), through);
          add(in.dx_bias + ((first + r) * kGates + g) * width + unit, dx[g], left, t == shape.steps - 1);
          if (!Cell::kResets) continue;
          store(in.dhu + (row * kGates + g) * width + unit, through, left);
          add(in.du_bias + ((first + r) * kGates + g) * width + unit, through, left, t == shape.steps - 1);
        }
      }
    }
    for (Index turn = 0; turn < panels; ++turn) {
      const Index panel = t % 2 ? panels - 1 - turn : turn;
      multiply<kPanelVectors>(dhu, rows, packed + panel * columns * kColumns, columns, product);
      const Index vectors = std::min(kPanelVectors, shape.blocks() - panel * kPanelVectors);
      for (Index r = 0; r < rows; ++r) {
        if (!in.keep[step + r]) continue;
        for (Index v = 0; v < vectors; ++v) {
          float* const sum = dh + r * padded + panel * kColumns + v * kLanes;
          store(sum, load(sum) + load(product + r * kColumns + v * kLanes));
        }
      }
    }
  }
  for (Index r = 0; r < rows; ++r)
    for (Index unit = 0; unit < width; unit += kLanes) {
      store(in.dh0 + (first + r) * width + unit, load(dh + r * padded + unit), width - unit);
      if (Cell::kCell) store(in.dc0 + (first + r) * width + unit, load(dc + r * padded + unit), width - unit);
    }
}

ffi::Error no_memory() { return ffi::Error(ffi::ErrorCode::kResourceExhausted, "no memory for a recurrent layer"); }

using Floats = ffi::Buffer<ffi::F32>;
using Cube = ffi::Buffer<ffi::F32, 3>;
using Bools = ffi::Buffer<ffi::PRED>;
using Result = ffi::Result<Floats>;

template <class Cell>
ffi::Error forward(ffi::ThreadPool pool, Floats x, Floats x_bias, Floats u, Floats u_bias, Floats h0, Floats c0,
                   Bools keep, Result h, Result gates, Result extra) {
  const Shape shape = {keep.dimensions()[0], keep.dimensions()[1], u.dimensions()[0]};
  const Index share = rows_per_share(shape.rows, pool.num_threads()), shares = divide_up(shape.rows, share);
  const Index each = round_up(forward_scratch<Cell>(shape, share), 16);
  const Scratch packed(shape.width * Cell::kGates * shape.padded()), scratch(shares * each);
  if (packed.data == nullptr || scratch.data == nullptr) return no_memory();
  const Forward in = {x.typed_data(),    x_bias.typed_data(), u.typed_data(),  u_bias.typed_data(), h0.typed_data(),
                      c0.typed_data(),   keep.typed_data(),   h->typed_data(), gates->typed_data(), extra->typed_data()};
  for_all(pool, shape.blocks(), [&](Index i) { pack_forward<Cell>(shape, in.u, i, packed.data); });
  for_all(pool, shares, [&](Index i) {
    forward_rows<Cell>(shape, in, packed.data, i * share, std::min(share, shape.rows - i * share),
                       scratch.data + i * each);
  });
  return ffi::Error::Success();
}

template <class Cell>
ffi::Error backward(ffi::ThreadPool pool, Cube dh, Floats dh_last, Floats dc_last, Floats u,
                    Floats gates, Floats extra, Floats h, Floats h0, Floats c0, Bools keep, Result dx,
                    Result dhu, Result dh0, Result dc0, Result dx_bias, Result du_bias) {
  const Shape shape = {dh.dimensions()[0], dh.dimensions()[1], dh.dimensions()[2]};
  const Index share = rows_per_share(shape.rows, pool.num_threads()), shares = divide_up(shape.rows, share);
  const Index each = round_up(backward_scratch<Cell>(shape, share), 16);
  const Index panels = divide_up(shape.blocks(), kPanelVectors);
  const Scratch packed(panels * kPanelVectors * kLanes * Cell::kGates * shape.padded()), scratch(shares * each);
  if (packed.data == nullptr || scratch.data == nullptr) return no_memory();
  const Backward in = {dh.typed_data(),    dh_last.typed_data(), dc_last.typed_data(), u.typed_data(),
                       gates.typed_data(), extra.typed_data(),   h.typed_data(),       h0.typed_data(),
                       c0.typed_data(),    keep.typed_data(),    dx->typed_data(),     dhu->typed_data(),
                       dh0->typed_data(),  dc0->typed_data(),    dx_bias->typed_data(),  du_bias->typed_data()};
  for_all(pool, panels, [&](Index i) { pack_backward<Cell>(shape, in.u, i, packed.data); });
  for_all(pool, shares, [&](Index i) {
    backward_rows<Cell>(shape, in, packed.data, i * share, std::min(share, shape.rows - i * share),
                        scratch.data + i * each);
  });
  return ffi::Error::Success();
}

ffi::Error outer_product(ffi::ThreadPool pool, Cube rows, Floats first, Bools keep, Floats grad, Result out) {
  const auto sizes = rows.dimensions();
  const Outer in = {rows.typed_data(), first.element_count() ? first.typed_data() : nullptr, grad.typed_data(),
                    keep.typed_data(), sizes[0] * sizes[1], sizes[1], sizes[2], grad.dimensions()[1]};
  const Index panels = divide_up(in.columns, kPanelVectors * kLanes);
  const Index share = std::min(kOuterPanels, divide_up(panels, std::max<Index>(pool.num_threads(), 1)));
  const Index shares = divide_up(panels, share), each = outer_scratch(in, share);
  const Scratch packed(in.count * in.width), scratch(shares * each);
  if (packed.data == nullptr || scratch.data == nullptr) return no_memory();
  for_all(pool, divide_up(in.count, kDepth), [&](Index i) {
    pack_left(in, i * kDepth, std::min(kDepth, in.count - i * kDepth), packed.data + i * kDepth * in.width);
  });
  for_all(pool, shares, [&](Index i) {
    outer_panels(in, packed.data, i * share, std::min(share, panels - i * share), scratch.data + i * each,
                 out->typed_data());
  });
  return ffi::Error::Success();
}

}  // namespace

auto forward_binding() {
  return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Floats>()
      .Arg<Floats>().Arg<Bools>().Ret<Floats>().Ret<Floats>().Ret<Floats>();
}

auto backward_binding() {
  return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Cube>().Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Floats>()
      .Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Bools>().Ret<Floats>().Ret<Floats>().Ret<Floats>()
      .Ret<Floats>().Ret<Floats>().Ret<Floats>();
}

#define RECURRENT_CELL(name, Cell)                                                                                   \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name##_forward, forward<Cell>, forward_binding());                                   \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name##_backward, backward<Cell>, backward_binding())

RECURRENT_CELL(rnn, Rnn);
RECURRENT_CELL(lstm, Lstm);
RECURRENT_CELL(gru, Gru);

XLA_FFI_DEFINE_HANDLER_SYMBOL(outer, outer_product,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Cube>().Arg<Floats>().Arg<Bools>()
                                  .Arg<Floats>().Ret<Floats>());
