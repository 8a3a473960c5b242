// Attention on a CPU, forward and backward, as two custom calls of XLA. Shapes are said in jaxlm/nn/cpu_attention.py.

#include "attention.h"

#include "product.h"
#include "vectors.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

using Floats = ffi::Buffer<ffi::F32, 4>;
using Sums = ffi::Buffer<ffi::F32, 3>;
using Bounds = ffi::Buffer<ffi::S32, 2>;

constexpr Index kSharesPerThread = 4;  // units of unlike cost: threads that are done take what is left

AttentionShape shape_of(const Floats& q, const Floats& k, float scale) {
  const auto queries = q.dimensions(), keys = k.dimensions();
  return {queries[0], queries[1], keys[1], queries[2], keys[2], queries[3], scale};
}

// The kernel reads as many numbers as the shape says: what does not agree with it would be read out of bounds.
bool agrees(const AttentionShape& shape, const Floats& k, const Floats& v, const Bounds& first, const Bounds& end) {
  const auto keys = k.dimensions();
  return shape.key_heads > 0 && shape.heads % shape.key_heads == 0 && keys[0] == shape.rows &&
         keys[3] == shape.width && v.dimensions() == keys && first.dimensions()[0] == shape.rows &&
         first.dimensions()[1] == shape.queries && end.dimensions() == first.dimensions();
}

ffi::Error disagree() {
  return ffi::Error(ffi::ErrorCode::kInvalidArgument,
                    "attention: q [b, t, n, h], k and v [b, s, k, h] with n a multiple of k, bounds [b, t]");
}

// work(unit, scratch) for all units; each thread reuses its scratch.
template <typename Work>
ffi::Error for_units(ffi::ThreadPool& pool, const AttentionShape& shape, Index floats, const Work& work) {
  const Index units = shape.units(), threads = std::max<Index>(pool.num_threads(), 1);
  const Index share = divide_up(units, std::min(units, threads * kSharesPerThread)), shares = divide_up(units, share);
  const Index each = round_up(floats, 16);
  const Scratch scratch(shares * each);
  if (scratch.data == nullptr) return ffi::Error(ffi::ErrorCode::kResourceExhausted, "no memory for attention");
  for_all(pool, shares, [&](Index i) {
    for (Index unit = i * share; unit < std::min(units, (i + 1) * share); ++unit) work(unit, scratch.data + i * each);
  });
  return ffi::Error::Success();
}

template <int kWide>
ffi::Error forward_of(ffi::ThreadPool& pool, const AttentionShape& shape, const AttentionForward& in) {
  return for_units(pool, shape, forward_floats<kWide>(shape),
                   [&](Index unit, float* scratch) { attend_forward<kWide>(shape, in, unit, scratch); });
}

template <int kWide>
ffi::Error backward_of(ffi::ThreadPool& pool, const AttentionShape& shape, const AttentionBackward& in) {
  return for_units(pool, shape, backward_floats<kWide>(shape),
                   [&](Index unit, float* scratch) { attend_backward<kWide>(shape, in, unit, scratch); });
}

// Vectors of a head's width that a tile takes together.
Index wide_of(Index width) { return std::min<Index>(divide_up(width, kLanes), 4); }

ffi::Error forward(ffi::ThreadPool pool, Floats q, Floats k, Floats v, Bounds first, Bounds end,
                   ffi::Result<Floats> out, ffi::Result<Sums> log_sum, float scale) {
  const AttentionShape shape = shape_of(q, k, scale);
  if (!agrees(shape, k, v, first, end)) return disagree();
  const AttentionForward in = {q.typed_data(),     k.typed_data(),   v.typed_data(),    first.typed_data(),
                               end.typed_data(), out->typed_data(), log_sum->typed_data()};
  switch (wide_of(shape.width)) {
    case 1: return forward_of<1>(pool, shape, in);
    case 2: return forward_of<2>(pool, shape, in);
    case 3: return forward_of<3>(pool, shape, in);
    default: return forward_of<4>(pool, shape, in);
  }
}

ffi::Error backward(ffi::ThreadPool pool, Floats dout, Floats q, Floats k, Floats v, Floats out, Sums log_sum,
                    Bounds first, Bounds end, ffi::Result<Floats> dq, ffi::Result<Floats> dk, ffi::Result<Floats> dv,
                    float scale) {
  const AttentionShape shape = shape_of(q, k, scale);
  if (!agrees(shape, k, v, first, end)) return disagree();
  const AttentionBackward in = {dout.typed_data(),    q.typed_data(),     k.typed_data(),   v.typed_data(),
                                out.typed_data(),     log_sum.typed_data(), first.typed_data(), end.typed_data(),
                                dq->typed_data(),     dk->typed_data(),   dv->typed_data()};
  switch (wide_of(shape.width)) {
    case 1: return backward_of<1>(pool, shape, in);
    case 2: return backward_of<2>(pool, shape, in);
    case 3: return backward_of<3>(pool, shape, in);
    default: return backward_of<4>(pool, shape, in);
  }
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(attention_forward, forward,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Floats>().Arg<Floats>().Arg<Floats>()
                                  .Arg<Bounds>().Arg<Bounds>().Ret<Floats>().Ret<Sums>().Attr<float>("scale"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(attention_backward, backward,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Floats>().Arg<Floats>().Arg<Floats>()
                                  .Arg<Floats>().Arg<Floats>().Arg<Sums>().Arg<Bounds>().Arg<Bounds>().Ret<Floats>()
                                  .Ret<Floats>().Ret<Floats>().Attr<float>("scale"));
