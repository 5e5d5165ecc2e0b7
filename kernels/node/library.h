/* The C library's calls on torch's tensors: entry points found at run time, sizes, workspace, outputs. `mixture_kl.cpp` is its only reader.
 *
 * Left out: any check of what is given, and everything about graphs and Python.
 */
#pragma once
#include <array>
#include <memory>
#include <new>

#include <ATen/EmptyTensor.h>
#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include "catvae_kernels.h"

namespace {

using at::Tensor;

/* Names and addresses of what is called, in the order in which `bind` is told them. */
#define ENTRIES(X)                                                                                                                      \
    X(catvae_status_string) X(catvae_mixture_kl_workspace) X(catvae_mixture_kl_forward_f32) X(catvae_mixture_kl_forward_f64)             \
    X(catvae_mixture_kl_backward_f32) X(catvae_mixture_kl_backward_f64) X(catvae_dense_kl_forward_f32) X(catvae_dense_kl_forward_f64)    \
    X(catvae_dense_kl_backward_f32) X(catvae_dense_kl_backward_f64)
struct {
#define X(name) decltype(&::name) name;
    ENTRIES(X)
#undef X
} entry;

bool serial = false; /* after a fork: OpenMP's threads do not survive it */

/* Inputs of both forms, in the order of the header; the dense one has mu and lv in the place of m and v, and neither E nor F. */
enum { M, V, E, F, PRIOR, LOGITS, WEIGHT, INPUTS };
using Inputs = std::array<Tensor, INPUTS>;

struct Outputs {
    Tensor kl, neg_entropy, assignment, cluster_kl, statistics;
};

struct Call {
    int64_t N, K, D;
    int32_t type, threads;
    bool dense, twice; /* twice as long numbers: float64 */

    explicit Call(const Inputs& x)
        : N(x[M].size(0)), K(x[PRIOR].size(0)), D(x[PRIOR].size(1)), type(0), threads(serial ? 1 : at::get_num_threads()),
          dense(!x[E].defined()), twice(x[PRIOR].scalar_type() == at::kDouble) {
        if (x[M].scalar_type() == at::kHalf) type = CATVAE_F16;
        if (x[M].scalar_type() == at::kBFloat16) type = CATVAE_BF16;
    }

    void check(int64_t status) const {
        TORCH_CHECK_VALUE(status >= 0, "mixture_kl: ", entry.catvae_status_string(static_cast<int32_t>(status)), ": got N=", N, ", K=", K,
                          ", D=", D);
    }
};

/* A workspace that stays with its thread while it is small, as in ops/calls.py. */
class Workspace {
    static constexpr int64_t KEPT = 1 << 24;
    static constexpr std::align_val_t LINE{64};
    struct Free {
        void operator()(void* p) const { ::operator delete(p, LINE); }
    };
    using Memory = std::unique_ptr<void, Free>;
    Memory own;

  public:
    void* get(const Call& call, int32_t phase) {
        static thread_local Memory kept;
        static thread_local int64_t room = 0;
        int64_t bytes = entry.catvae_mixture_kl_workspace(call.N, call.K, call.D, call.twice ? 8 : 4, call.type, phase, call.threads);
        call.check(bytes);
        if (bytes > KEPT) return (own = Memory(::operator new(bytes, LINE))).get();
        if (bytes > room) kept.reset(), kept = Memory(::operator new(bytes, LINE)), room = bytes;
        return kept.get();
    }
};

template <typename Real> const Real* in(const Tensor& x) { return x.defined() ? static_cast<const Real*>(x.const_data_ptr()) : nullptr; }
template <typename Real> Real* out(Tensor& x) { return static_cast<Real*>(x.mutable_data_ptr()); }

template <typename Real, typename Factorised, typename Dense>
void forward(Factorised* factorised, Dense* dense, const Call& c, const Inputs& x, Outputs& y) {
    Workspace workspace;
    Real *kl = out<Real>(y.kl), *neg_entropy = out<Real>(y.neg_entropy), *assignment = out<Real>(y.assignment),
         *cluster_kl = out<Real>(y.cluster_kl), *statistics = out<Real>(y.statistics);
    if (c.dense)
        c.check(dense(c.N, c.K, c.D, in<void>(x[M]), in<void>(x[V]), in<Real>(x[PRIOR]), in<void>(x[LOGITS]), in<Real>(x[WEIGHT]), c.type, kl, neg_entropy,
                      assignment, cluster_kl, statistics, workspace.get(c, 2), c.threads, -1, nullptr));
    else
        c.check(factorised(c.N, c.K, c.D, in<void>(x[M]), in<void>(x[V]), in<Real>(x[E]), in<Real>(x[F]), in<Real>(x[PRIOR]), in<void>(x[LOGITS]),
                           in<Real>(x[WEIGHT]), c.type, kl, neg_entropy, assignment, cluster_kl, statistics, workspace.get(c, 0), c.threads,
                           -1, nullptr));
}

/* Gradients of m, v, E, F and logits; E and F have none in the dense form. */
using Gradients = std::array<Tensor, 5>;

template <typename Real, typename Factorised, typename Dense>
void backward(Factorised* factorised, Dense* dense, const Call& c, const Inputs& x, const Outputs& y, const Tensor& g_kl,
              const Tensor& g_neg_entropy, Gradients& d) {
    Workspace workspace;
    const Real *assignment = in<Real>(y.assignment), *cluster_kl = in<Real>(y.cluster_kl), *statistics = in<Real>(y.statistics);
    void *dm = out<void>(d[0]), *dv = out<void>(d[1]), *dlogits = out<void>(d[4]);
    if (c.dense)
        c.check(dense(c.N, c.K, c.D, in<void>(x[M]), in<void>(x[V]), in<Real>(x[PRIOR]), in<void>(x[LOGITS]), in<Real>(x[WEIGHT]), c.type, assignment,
                      cluster_kl, statistics, in<Real>(g_kl), in<Real>(g_neg_entropy), dm, dv, dlogits, workspace.get(c, 2), c.threads, -1,
                      nullptr));
    else
        c.check(factorised(c.N, c.K, c.D, in<void>(x[M]), in<void>(x[V]), in<Real>(x[E]), in<Real>(x[F]), in<Real>(x[PRIOR]), in<void>(x[LOGITS]),
                           in<Real>(x[WEIGHT]), c.type, assignment, cluster_kl, statistics, in<Real>(g_kl), in<Real>(g_neg_entropy), dm, dv,
                           out<Real>(d[2]), out<Real>(d[3]), dlogits, workspace.get(c, 1), c.threads, -1, nullptr));
}

} // namespace
