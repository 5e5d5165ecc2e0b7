/* How a call is cut into tasks and where each piece of scratch lies in the caller's workspace.
 *
 * The cut depends on the sizes alone, never on the number of threads, and partial sums are combined in a fixed order: that is what makes every result bit-identical for any thread count.
 */
#ifndef CATVAE_PLAN_H
#define CATVAE_PLAN_H
#include <stdint.h>

#define ALIGNMENT 64                    /* of every piece of scratch: the widest register, and a cache line */
#define CHUNK 64                        /* samples per task; a multiple of the samples that any instruction set handles together */
#define LARGE_CHUNK 128                 /* the same where C and G leave the L2 cache: they are read again for every chunk */
#define LARGE (INT64_C(1) << 16)        /* K*D from which they do: 512 KB and more */
#define SLICE 512                       /* samples summed into one partial dE, dF, at least */
#define MAX_SLICES 64                   /* bounds the partials: at most 64 * 2 * K * D elements */
#define BLOCK 128                       /* terms of a sum that a tile adds at once, at most: so many rows of two panels stay in the L1 cache */
#define CLUSTER_BLOCK 60                /* clusters per task of dE, dF: whole register tiles of 6 and of 3, fewer than LARGE_CHUNK */
#define PANEL_MAX 32                    /* columns of a panel, at most: two AVX-512 vectors */
#define SERIAL_FORWARD (INT64_C(1) << 17) /* N*K*D under which waking a second thread costs more than it saves */
#define SERIAL_BACKWARD (INT64_C(1) << 19)

typedef struct {
    int64_t N, K, D;
    int64_t Kp, Dp; /* K rounded up to even, D to whole panels */
    int64_t chunk, n_chunks, slice, n_slices;
    int32_t threads;
    /* Byte offsets into the workspace, each a multiple of ALIGNMENT. */
    int64_t packed;       /* C = E - prior and G = exp(F), ordered as the products read them */
    int64_t per_cluster;  /* forward: (2, Kp)  sum_d C^2 - sum_d F  and  sum_d C^2 */
    int64_t partial_sums; /* forward: (n_chunks, 2) doubles */
    int64_t samples;      /* backward: (Dp / panel, N, 2, panel)  m and exp(v) */
    int64_t shares;       /* backward: (N, K)  g1 w a */
    int64_t share_sums;   /* backward: (n_chunks, K)  their sums over the samples of a chunk */
    int64_t partial;      /* backward, several slices: (n_slices, Dp / panel, K, 2, panel)  shares' m  and  shares' exp(v) */
    int64_t per_thread, per_thread_bytes;
    int64_t bytes;
} Plan;

static inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* Terms added at once where `n` are to be added: equal blocks, since a short last one would pay for its tiles' loads and stores alone. */
static inline int64_t block_size(int64_t n)
{
    const int64_t blocks = (n + BLOCK - 1) / BLOCK;
    return (n + blocks - 1) / blocks;
}

static inline int64_t place(Plan *p, int64_t bytes)
{
    const int64_t at = p->bytes;
    p->bytes += round_up(bytes, ALIGNMENT);
    return at;
}

static inline Plan plan_common(int64_t N, int64_t K, int64_t D, int64_t serial_below, int32_t n_threads)
{
    Plan p = {.N = N, .K = K, .D = D, .Kp = round_up(K, 2), .Dp = round_up(D, PANEL_MAX)};
    p.chunk = (double)K * (double)D >= (double)LARGE ? LARGE_CHUNK : CHUNK;
    p.n_chunks = (N + p.chunk - 1) / p.chunk;
    /* In floating point: N*K*D itself may not fit an integer. */
    p.threads = (double)N * (double)K * (double)D < (double)serial_below ? 1 : n_threads;
    if (p.threads > p.n_chunks) p.threads = p.n_chunks > 0 ? (int32_t)p.n_chunks : 1;
    return p;
}

/* `size`: bytes of a number; `staged`: whether half-precision inputs need room to be widened. */
static inline Plan plan_forward(int64_t N, int64_t K, int64_t D, int64_t size, int staged, int32_t n_threads)
{
    Plan p = plan_common(N, K, D, SERIAL_FORWARD, n_threads);
    p.packed = place(&p, 2 * p.Kp * D * size);
    p.per_cluster = place(&p, 2 * p.Kp * size);
    p.partial_sums = place(&p, p.n_chunks * 2 * (int64_t)sizeof(double));
    p.per_thread_bytes = round_up(p.chunk * (2 * (D + p.Kp) + (staged ? 2 * D + K : 0)) * size, ALIGNMENT);
    p.per_thread = place(&p, p.per_thread_bytes * p.threads);
    p.bytes += ALIGNMENT; /* room to align the caller's pointer */
    return p;
}

static inline Plan plan_backward(int64_t N, int64_t K, int64_t D, int64_t size, int staged, int32_t n_threads)
{
    Plan p = plan_common(N, K, D, SERIAL_BACKWARD, n_threads);
    p.slice = round_up((N + MAX_SLICES - 1) / MAX_SLICES, LARGE_CHUNK);
    if (p.slice < SLICE) p.slice = SLICE;
    p.n_slices = (N + p.slice - 1) / p.slice;
    p.packed = place(&p, 2 * K * p.Dp * size);
    p.samples = place(&p, 2 * N * p.Dp * size);
    p.shares = place(&p, N * K * size);
    p.share_sums = place(&p, p.n_chunks * K * size);
    p.partial = place(&p, p.n_slices > 1 ? p.n_slices * 2 * K * p.Dp * size : 0);
    const int64_t sums = 2 * PANEL_MAX * LARGE_CHUNK, rows = staged ? p.chunk * 2 * (D + K) : 0;
    p.per_thread_bytes = round_up((sums > rows ? sums : rows) * size, ALIGNMENT);
    p.per_thread = place(&p, p.per_thread_bytes * p.threads);
    p.bytes += ALIGNMENT;
    return p;
}

static inline Plan plan_dense(int64_t N, int64_t K, int64_t D, int64_t size, int32_t n_threads)
{
    Plan p = plan_common(N, K, D, SERIAL_FORWARD, n_threads);
    p.partial_sums = place(&p, p.n_chunks * 2 * (int64_t)sizeof(double));
    /* Forward: lanes of KL, logits and exponentials, then a row of means and one of log-variances, or a group's logits. Backward: less. */
    const int64_t rows = 2 * D > PANEL_MAX * K ? 2 * D : PANEL_MAX * K;
    p.per_thread_bytes = round_up((3 * p.Kp * PANEL_MAX + rows + 2 * D + 2 * K) * size, ALIGNMENT);
    p.per_thread = place(&p, p.per_thread_bytes * p.threads);
    p.bytes += ALIGNMENT;
    return p;
}

#endif
