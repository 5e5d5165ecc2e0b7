/* The dense loss on the GPU: a warp sums the D terms of one (n, k); backward is elementwise. Bound by memory, so no tiles. */
#ifndef CATVAE_DENSE_CUH
#define CATVAE_DENSE_CUH
#include "rows.cuh"

template <class R, class I>
static __global__ void dense_divergence(int64_t N, int64_t K, int64_t D, const I *mu, const I *lv, const R *prior, R *cluster_kl)
{
    const int64_t pair = (int64_t)blockIdx.x * ROWS + threadIdx.x / 32, here = pair < N * K ? D : 0;
    R total = 0;
    for (int64_t d = threadIdx.x % 32; d < here; d += 32) {
        const R shift = widened(mu[pair * D + d]) - prior[pair % K * D + d];
        total += shift * shift + expm1_gap<R>(widened(lv[pair * D + d]));
    }
    total = warp_sum(total);
    if (here && threadIdx.x % 32 == 0) cluster_kl[pair] = total * (R)0.5;
}

template <class R, class I>
static __global__ void dense_gradient(int64_t N, int64_t K, int64_t D, const I *mu, const I *lv, const R *prior, const R *weight,
                                      const R *assignment, const R *g_kl, I *dmu, I *dlv)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= N * K * D) return;
    const int64_t pair = i / D;
    const R share = assignment[pair] * scaled(g_kl, weight, pair / K);
    /* what has no share has no gradient, though its growth be infinite */
    put(dmu + i, share == 0 ? (R)0 : share * (widened(mu[i]) - prior[pair % K * D + i % D]));
    put(dlv + i, share == 0 ? (R)0 : share * (R)0.5 * expm1_(widened(lv[i])));
}

template <class R, class I>
static int32_t dense_forward_of(int64_t N, int64_t K, int64_t D, const void *mu, const void *lv, const R *prior, const void *logits,
                                const R *weight, R *kl, R *neg_entropy, R *assignment, R *cluster_kl, R *statistics, double *partial,
                                void *stream)
{
    const int32_t status =
        launch(dense_divergence<R, I>, (N * K + ROWS - 1) / ROWS, stream, N, K, D, (const I *)mu, (const I *)lv, prior, cluster_kl);
    if (status) return status;
    return assign_rows<R, I>(N, K, logits, weight, kl, neg_entropy, assignment, cluster_kl, statistics, partial, stream);
}

template <class R, class I>
static int32_t dense_backward_of(int64_t N, int64_t K, int64_t D, const void *mu, const void *lv, const R *prior, const void *logits,
                                 const R *weight, const R *assignment, const R *cluster_kl, const R *statistics, const R *g_kl,
                                 const R *g_neg_entropy, void *dmu, void *dlv, void *dlogits, void *stream)
{
    const int32_t status = launch(logit_gradient<R, I>, (N * K + THREADS - 1) / THREADS, stream, N, K, (const I *)logits, weight,
                                  assignment, cluster_kl, statistics, g_kl, g_neg_entropy, (I *)dlogits);
    if (status) return status;
    return launch(dense_gradient<R, I>, (N * K * D + THREADS - 1) / THREADS, stream, N, K, D, (const I *)mu, (const I *)lv, prior, weight,
                  assignment, g_kl, (I *)dmu, (I *)dlv);
}

#endif
