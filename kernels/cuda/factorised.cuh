/* The factorised loss on the GPU, in square tiles of SIDE rows by SIDE columns; each of 256 threads holds a micro-tile of it.
 *
 *   forward    2 KL_nk = sum_d ((m + C)^2 + expm1(v) expm1(F)) + sum_d gap(v) + sum_d gap(F)       gap(x) = expm1(x) - x
 *   backward   s = g1 w a:   dm = g1 w m + s C,   dv = (exp(v) (s G) - g1 w) / 2,   dE = s'm + C sum s,   dF = (G (s'exp(v)) - sum s) / 2
 *
 * dE and dF are summed in two stages: a slice of samples at a time into the workspace, then slices in their order. No atomics: one GPU gives
 * the same bits from run to run. exp(v), C and G are made again in every tile, so that nothing but partial sums is stored.
 * Forward squares differences directly, and loses digits where the last two sums are large beside 2 KL; those entries are computed from v + F.
 */
#ifndef CATVAE_FACTORISED_CUH
#define CATVAE_FACTORISED_CUH
#include "rows.cuh"

#define ACROSS 16 /* threads along each side of a tile: THREADS = ACROSS^2 */
#define DEPTH 16  /* terms of the sums that a tile takes in at once */
#define FRESH 8   /* times that, after which a sum over samples begins anew: one long chain of additions would lose digits */
#define SLICE 1024 /* samples of a partial sum, at least */
#define MAX_SLICES 64
#define RECHECK 4 /* sums of gaps may exceed 2 KL this many times: two bits at most are lost */

static inline int64_t slice_size(int64_t N)
{
    const int64_t even = (N + MAX_SLICES - 1) / MAX_SLICES;
    return even > SLICE ? even : SLICE;
}

/* 2 KL of one sample and one cluster with every difference taken on its own. */
template <class R, class I>
DEVICE R direct_divergence(int64_t D, const I *m, const I *v, const R *E, const R *F, const R *prior)
{
    R total = 0;
    for (int64_t d0 = 0; d0 < D; d0 += DEPTH) {
        R part = 0;
        for (int64_t d = d0; d < D && d < d0 + DEPTH; ++d) {
            const R shift = widened(m[d]) + E[d] - prior[d];
            part += shift * shift + expm1_gap<R>(widened(v[d]) + F[d]);
        }
        total += part;
    }
    return total;
}

template <class R, class I, int M> /* M * M: micro-tile of a thread */
static __global__ void cluster_divergence(int64_t N, int64_t K, int64_t D, const I *m, const I *v, const R *E, const R *F, const R *prior,
                                          R *cluster_kl)
{
    const int SIDE = ACROSS * M;
    __shared__ R ms[DEPTH][ACROSS * M + 1], Es[DEPTH][ACROSS * M + 1], ps[DEPTH][ACROSS * M + 1];
    __shared__ R growth_v[DEPTH][ACROSS * M + 1], growth_F[DEPTH][ACROSS * M + 1]; /* expm1 */
    __shared__ R gap_v[DEPTH][ACROSS * M + 1], gap_F[DEPTH][ACROSS * M + 1];
    const int64_t tiles = (K + SIDE - 1) / SIDE, n0 = blockIdx.x / tiles * SIDE, k0 = blockIdx.x % tiles * SIDE;
    const int ty = threadIdx.x / ACROSS, tx = threadIdx.x % ACROSS;
    R twice[M][M] = {}, rows[M] = {}, columns[M] = {};
    for (int64_t d0 = 0; d0 < D; d0 += DEPTH) {
        R acc[M][M] = {}, row[M] = {}, column[M] = {}; /* of these dimensions: one long chain of additions would lose digits */
        for (int i = threadIdx.x; i < SIDE * DEPTH; i += THREADS) {
            const int d = i % DEPTH, r = i / DEPTH;
            const bool inside = d0 + d < D;
            const int64_t at_n = (n0 + r) * D + d0 + d, at_k = (k0 + r) * D + d0 + d;
            const bool sample = inside && n0 + r < N, cluster = inside && k0 + r < K;
            ms[d][r] = sample ? widened(m[at_n]) : (R)0;
            growth_v[d][r] = sample ? expm1_(widened(v[at_n])) : (R)0;
            gap_v[d][r] = sample ? expm1_gap<R>(widened(v[at_n])) : (R)0;
            Es[d][r] = cluster ? E[at_k] : (R)0;
            ps[d][r] = cluster ? prior[at_k] : (R)0;
            growth_F[d][r] = cluster ? expm1_(F[at_k]) : (R)0;
            gap_F[d][r] = cluster ? expm1_gap<R>(F[at_k]) : (R)0;
        }
        __syncthreads();
        for (int d = 0; d < DEPTH; ++d) {
#pragma unroll
            for (int i = 0; i < M; ++i) {
                row[i] += gap_v[d][ty + i * ACROSS];
                column[i] += gap_F[d][tx + i * ACROSS];
#pragma unroll
                for (int j = 0; j < M; ++j) {
                    /* m + E first: where modes are far from the origin, this sum is the one that cancels exactly. */
                    const R shift = ms[d][ty + i * ACROSS] + Es[d][tx + j * ACROSS] - ps[d][tx + j * ACROSS];
                    acc[i][j] += shift * shift + growth_v[d][ty + i * ACROSS] * growth_F[d][tx + j * ACROSS];
                }
            }
        }
#pragma unroll
        for (int i = 0; i < M; ++i) {
            rows[i] += row[i];
            columns[i] += column[i];
#pragma unroll
            for (int j = 0; j < M; ++j) twice[i][j] += acc[i][j] + (row[i] + column[j]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
        for (int j = 0; j < M; ++j) {
            const int64_t n = n0 + ty + i * ACROSS, k = k0 + tx + j * ACROSS;
            if (n >= N || k >= K) continue;
            const bool lost = !(rows[i] + columns[j] <= RECHECK * twice[i][j]); /* or no number */
            const R found = lost ? direct_divergence<R>(D, m + n * D, v + n * D, E + k * D, F + k * D, prior + k * D) : twice[i][j];
            cluster_kl[n * K + k] = found * (R)0.5;
        }
}

template <class R, class I, int M>
static __global__ void sample_gradient(int64_t N, int64_t K, int64_t D, const I *m, const I *v, const R *E, const R *F, const R *prior,
                                       const R *weight, const R *assignment, const R *g_kl, I *dm, I *dv)
{
    const int SIDE = ACROSS * M;
    __shared__ R ss[DEPTH][ACROSS * M + 1], Cs[DEPTH][ACROSS * M + 1], Gs[DEPTH][ACROSS * M + 1];
    const int64_t tiles = (D + SIDE - 1) / SIDE, n0 = blockIdx.x / tiles * SIDE, d0 = blockIdx.x % tiles * SIDE;
    const int ty = threadIdx.x / ACROSS, tx = threadIdx.x % ACROSS;
    R shift[M][M] = {}, scale[M][M] = {};
    for (int64_t k0 = 0; k0 < K; k0 += DEPTH) {
        for (int i = threadIdx.x; i < SIDE * DEPTH; i += THREADS) {
            const int k = i % DEPTH, r = i / DEPTH; /* rows of s: clusters side by side */
            const int64_t n = n0 + r;
            ss[k][r] = n < N && k0 + k < K ? assignment[n * K + k0 + k] * scaled(g_kl, weight, n) : (R)0;
            const int d = i % SIDE, c = i / SIDE; /* rows of C, G: dimensions side by side */
            const bool inside = k0 + c < K && d0 + d < D;
            const int64_t at = (k0 + c) * D + d0 + d;
            Cs[c][d] = inside ? E[at] - prior[at] : (R)0;
            Gs[c][d] = inside ? exp_(F[at]) : (R)0;
        }
        __syncthreads();
        for (int k = 0; k < DEPTH; ++k) {
#pragma unroll
            for (int i = 0; i < M; ++i)
#pragma unroll
                for (int j = 0; j < M; ++j) {
                    shift[i][j] += ss[k][ty + i * ACROSS] * Cs[k][tx + j * ACROSS];
                    scale[i][j] += ss[k][ty + i * ACROSS] * Gs[k][tx + j * ACROSS];
                }
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
        for (int j = 0; j < M; ++j) {
            const int64_t n = n0 + ty + i * ACROSS, d = d0 + tx + j * ACROSS;
            if (n >= N || d >= D) continue;
            const R g = scaled(g_kl, weight, n);
            const bool none = g == 0; /* then no infinite exp(v) meets a zero */
            put(dm + n * D + d, none ? (R)0 : g * widened(m[n * D + d]) + shift[i][j]);
            put(dv + n * D + d, none ? (R)0 : (exp_(widened(v[n * D + d])) * scale[i][j] - g) * (R)0.5);
        }
}

/* One slice's part of s'm and s'exp(v), (slices, 2, K, D), and of sum_n s, (slices, K). */
template <class R, class I, int M>
static __global__ void cluster_gradient(int64_t N, int64_t K, int64_t D, int64_t size, const I *m, const I *v, const R *weight, const R *assignment,
                                        const R *g_kl, R *partial, R *partial_share)
{
    const int SIDE = ACROSS * M;
    __shared__ R ss[DEPTH][ACROSS * M + 1], ms[DEPTH][ACROSS * M + 1], es[DEPTH][ACROSS * M + 1];
    const int64_t across = (D + SIDE - 1) / SIDE, tiles = (K + SIDE - 1) / SIDE * across, slice = blockIdx.x / tiles;
    const int64_t k0 = blockIdx.x % tiles / across * SIDE, d0 = blockIdx.x % across * SIDE;
    const int64_t end = (slice + 1) * size < N ? (slice + 1) * size : N;
    const int ty = threadIdx.x / ACROSS, tx = threadIdx.x % ACROSS;
    R first[M][M] = {}, second[M][M] = {}, share[M] = {}, all_first[M][M] = {}, all_second[M][M] = {}, all_share[M] = {};
    int taken = 0;
    for (int64_t n0 = slice * size; n0 < end; n0 += DEPTH) {
        for (int i = threadIdx.x; i < SIDE * DEPTH; i += THREADS) {
            const int x = i % SIDE, r = i / SIDE;
            const int64_t n = n0 + r;
            ss[r][x] = n < end && k0 + x < K ? assignment[n * K + k0 + x] * scaled(g_kl, weight, n) : (R)0;
            const bool counts = n < end && d0 + x < D && scaled(g_kl, weight, n) != 0; /* what does not may be infinite */
            ms[r][x] = counts ? widened(m[n * D + d0 + x]) : (R)0;
            es[r][x] = counts ? exp_(widened(v[n * D + d0 + x])) : (R)0;
        }
        __syncthreads();
        for (int n = 0; n < DEPTH; ++n) {
#pragma unroll
            for (int i = 0; i < M; ++i) {
                share[i] += ss[n][ty + i * ACROSS];
#pragma unroll
                for (int j = 0; j < M; ++j) {
                    first[i][j] += ss[n][ty + i * ACROSS] * ms[n][tx + j * ACROSS];
                    second[i][j] += ss[n][ty + i * ACROSS] * es[n][tx + j * ACROSS];
                }
            }
        }
        __syncthreads();
        if (++taken % FRESH && n0 + DEPTH < end) continue;
#pragma unroll
        for (int i = 0; i < M; ++i) {
            all_share[i] += share[i];
            share[i] = 0;
#pragma unroll
            for (int j = 0; j < M; ++j) {
                all_first[i][j] += first[i][j];
                all_second[i][j] += second[i][j];
                first[i][j] = second[i][j] = 0;
            }
        }
    }
#pragma unroll
    for (int i = 0; i < M; ++i) {
        const int64_t k = k0 + ty + i * ACROSS;
        if (k < K && d0 == 0 && tx == 0) partial_share[slice * K + k] = all_share[i];
#pragma unroll
        for (int j = 0; j < M; ++j) {
            const int64_t d = d0 + tx + j * ACROSS;
            if (k >= K || d >= D) continue;
            partial[(2 * slice * K + k) * D + d] = all_first[i][j];
            partial[((2 * slice + 1) * K + k) * D + d] = all_second[i][j];
        }
    }
}

template <class R>
static __global__ void combine(int64_t K, int64_t D, int64_t slices, const R *E, const R *F, const R *prior, const R *partial,
                               const R *partial_share, const R *g_kl, R *dE, R *dF)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= K * D) return;
    if (*g_kl == 0) {
        dE[i] = dF[i] = (R)0;
        return;
    }
    R first = 0, second = 0, share = 0;
    for (int64_t s = 0; s < slices; ++s) {
        first += partial[2 * s * K * D + i];
        second += partial[(2 * s + 1) * K * D + i];
        share += partial_share[s * K + i / D];
    }
    dE[i] = first + (E[i] - prior[i]) * share;
    dF[i] = (exp_(F[i]) * second - share) * (R)0.5;
}

/* Small tiles where large ones would leave most of the GPU idle. */
static inline int64_t tile_count(int64_t rows, int64_t columns, int64_t side)
{
    return ((rows + side - 1) / side) * ((columns + side - 1) / side);
}
#ifndef FILLS_GPU
#define FILLS_GPU 128                        /* multiprocessors of a large GPU, about; tests ask for 1 to see the large tiles */
#endif
#define WIDE(R) (sizeof(R) == 8 ? 2 : 4)     /* micro-tile of the large ones: seven arrays of doubles must fit 48 KB of shared memory */

template <class R, class I>
static int32_t forward_of(int64_t N, int64_t K, int64_t D, const void *m, const void *v, const R *E, const R *F, const R *prior,
                          const void *logits, const R *weight, R *kl, R *neg_entropy, R *assignment, R *cluster_kl, R *statistics,
                          double *partial, void *stream)
{
    const int64_t large = tile_count(N, K, WIDE(R) * ACROSS), small = tile_count(N, K, ACROSS);
    const int32_t status =
        large >= FILLS_GPU
            ? launch(cluster_divergence<R, I, WIDE(R)>, large, stream, N, K, D, (const I *)m, (const I *)v, E, F, prior, cluster_kl)
            : launch(cluster_divergence<R, I, 1>, small, stream, N, K, D, (const I *)m, (const I *)v, E, F, prior, cluster_kl);
    if (status) return status;
    return assign_rows<R, I>(N, K, logits, weight, kl, neg_entropy, assignment, cluster_kl, statistics, partial, stream);
}

/* Where the KL has no gradient only logits have one. */
template <class R, class I>
static __global__ void no_gradients(int64_t samples, int64_t clusters, I *dm, I *dv, R *dE, R *dF)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < samples) {
        put(dm + i, (R)0);
        put(dv + i, (R)0);
    }
    if (i < clusters) dE[i] = dF[i] = (R)0;
}

template <class R, class I>
static int32_t backward_of(int64_t N, int64_t K, int64_t D, const void *m_, const void *v_, const R *E, const R *F, const R *prior,
                           const void *logits, const R *weight, const R *assignment, const R *cluster_kl, const R *statistics,
                           const R *g_kl, const R *g_neg_entropy, void *dm, void *dv, R *dE, R *dF, void *dlogits, R *partial, void *stream)
{
    const I *m = (const I *)m_, *v = (const I *)v_;
    const int64_t size = slice_size(N), slices = (N + size - 1) / size;
    R *shares = partial + 2 * slices * K * D;
    int32_t status = launch(logit_gradient<R, I>, (N * K + THREADS - 1) / THREADS, stream, N, K, (const I *)logits, weight, assignment,
                            cluster_kl, statistics, g_kl, g_neg_entropy, (I *)dlogits);
    if (status) return status;
    if (!g_kl || !N) { /* no samples: exp(F) may be infinite, and its product with a sum of nothing must be 0 all the same */
        const int64_t samples = N * D, clusters = K * D, most = samples > clusters ? samples : clusters;
        return launch(no_gradients<R, I>, (most + THREADS - 1) / THREADS, stream, samples, clusters, (I *)dm, (I *)dv, dE, dF);
    }
    const int64_t large = tile_count(N, D, WIDE(R) * ACROSS), small = tile_count(N, D, ACROSS);
    status = large >= FILLS_GPU ? launch(sample_gradient<R, I, WIDE(R)>, large, stream, N, K, D, m, v, E, F, prior, weight, assignment, g_kl,
                                         (I *)dm, (I *)dv)
                                : launch(sample_gradient<R, I, 1>, small, stream, N, K, D, m, v, E, F, prior, weight, assignment, g_kl,
                                         (I *)dm, (I *)dv);
    if (status) return status;
    const int64_t wide = slices * tile_count(K, D, WIDE(R) * ACROSS), narrow = slices * tile_count(K, D, ACROSS);
    status = wide >= FILLS_GPU
                 ? launch(cluster_gradient<R, I, WIDE(R)>, wide, stream, N, K, D, size, m, v, weight, assignment, g_kl, partial, shares)
                 : launch(cluster_gradient<R, I, 1>, narrow, stream, N, K, D, size, m, v, weight, assignment, g_kl, partial, shares);
    if (status) return status;
    return launch(combine<R>, (K * D + THREADS - 1) / THREADS, stream, K, D, slices, E, F, prior, (const R *)partial, (const R *)shares, g_kl,
                  dE, dF);
}

#endif
