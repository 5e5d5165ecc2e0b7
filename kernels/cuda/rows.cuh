/* What happens to the clusters of a sample once their KL is known: assignment, sums, gradient of the logits. Shared by both forms.
 *
 * A warp is a sample. Partial sums of a block of samples are doubles in the workspace; one block adds them in a fixed order.
 */
#ifndef CATVAE_ROWS_CUH
#define CATVAE_ROWS_CUH
#include "device.cuh"

#define ROWS (THREADS / 32) /* samples of a block */

template <class R, class I>
static __global__ void assign(int64_t N, int64_t K, const I *logits, const R *weight, const R *cluster_kl, R *assignment, R *statistics,
                              double *partial)
{
    __shared__ double sums[2][ROWS];
    const int row = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int64_t n = (int64_t)blockIdx.x * ROWS + row, here = n < N ? K : 0; /* warps beyond N stay in step and do nothing */
    const I *l = logits + n * K;
    R top = -INFINITY;
    for (int64_t k = lane; k < here; k += 32) top = widened(l[k]) > top ? widened(l[k]) : top;
    top = warp_max(top);
    R mass = 0;
    for (int64_t k = lane; k < here; k += 32) mass += exp_(widened(l[k]) - top);
    mass = warp_sum(mass);
    const R log_mass = log_(mass), inverse = 1 / mass;
    R mean_kl = 0, neg_entropy = 0;
    for (int64_t k = lane; k < here; k += 32) {
        const R shifted = widened(l[k]) - top, a = exp_(shifted) * inverse;
        assignment[n * K + k] = a;
        if (a == 0) continue; /* 0 log 0 and 0 * inf are 0 here */
        mean_kl += a * cluster_kl[n * K + k];
        neg_entropy += a * (shifted - log_mass);
    }
    mean_kl = warp_sum(mean_kl);
    neg_entropy = warp_sum(neg_entropy);
    if (lane == 0) {
        const double w = here ? (weight ? (double)weight[n] : 1) : 0;
        sums[0][row] = w != 0 ? w * (double)mean_kl : 0; /* a masked sample's divergence may be infinite */
        sums[1][row] = w != 0 ? w * (double)neg_entropy : 0;
        if (here) {
            statistics[n] = top;
            statistics[N + n] = log_mass + neg_entropy;
            statistics[2 * N + n] = mean_kl;
        }
    }
    __syncthreads();
    if (threadIdx.x < 2) {
        double total = 0;
        for (int i = 0; i < ROWS; ++i) total += sums[threadIdx.x][i];
        partial[2 * (int64_t)blockIdx.x + threadIdx.x] = total;
    }
}

template <class R>
static __global__ void add_up(int64_t count, const double *partial, R *kl, R *neg_entropy)
{
    __shared__ double sums[2][THREADS];
    for (int which = 0; which < 2; ++which) {
        double total = 0;
        for (int64_t i = threadIdx.x; i < count; i += THREADS) total += partial[2 * i + which];
        sums[which][threadIdx.x] = total;
    }
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            for (int which = 0; which < 2; ++which) sums[which][threadIdx.x] += sums[which][threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        *kl = (R)sums[0][0];
        *neg_entropy = (R)sums[1][0];
    }
}

/* g1 w_n, and g2 w_n; a NULL gradient is 0, a NULL weight is 1. Read on the device: the host never waits for them. */
template <class R>
DEVICE R scaled(const R *g, const R *weight, int64_t n)
{
    return g ? *g * (weight ? weight[n] : (R)1) : (R)0;
}

/* dlogits = w a (g1 (KL - sum a KL) + g2 (log a - sum a log a)), a thread for each (n, k). */
template <class R, class I>
static __global__ void logit_gradient(int64_t N, int64_t K, const I *logits, const R *weight, const R *assignment, const R *cluster_kl,
                                      const R *statistics, const R *g_kl, const R *g_neg_entropy, I *dlogits)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= N * K) return;
    const int64_t n = i / K;
    const R a = assignment[i];
    const R log_part = (widened(logits[i]) - statistics[n]) - statistics[N + n], kl_part = cluster_kl[i] - statistics[2 * N + n];
    const R share = a * scaled(g_kl, weight, n), from_entropy = a * scaled(g_neg_entropy, weight, n) * log_part;
    put(dlogits + i, a == 0 ? (R)0 : (share == 0 ? (R)0 : share * kl_part) + from_entropy);
}

template <class R, class I>
static int32_t assign_rows(int64_t N, int64_t K, const void *logits, const R *weight, R *kl, R *neg_entropy, R *assignment,
                           const R *cluster_kl, R *statistics, double *partial, void *stream)
{
    const int64_t blocks = (N + ROWS - 1) / ROWS;
    const int32_t status = launch(assign<R, I>, blocks, stream, N, K, (const I *)logits, weight, cluster_kl, assignment, statistics, partial);
    return status ? status : launch(add_up<R>, 1, stream, blocks, (const double *)partial, kl, neg_entropy);
}

#endif
