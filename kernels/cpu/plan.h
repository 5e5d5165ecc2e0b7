/* How a call is cut into tasks and where each piece of scratch lies in the caller's workspace.
 *
 * The cut depends on the sizes alone, never on the number of threads, and partial sums are combined in a fixed order: that is what makes
 * every result bit-identical for any thread count.
 */
#ifndef CATVAE_PLAN_H
#define CATVAE_PLAN_H
#include <stdint.h>

#define ALIGNMENT 64                    /* of every piece of scratch: the widest register, and a cache line */
#define CHUNK 64                        /* samples per task but for gradients of m, v, E, F: whole groups of any instruction set */
#define LARGE_CHUNK 128                 /* the same where C and G leave the L2 cache: they are read again for every chunk */
#define LARGE (INT64_C(1) << 16)        /* K*D from which they do: 512 KB and more */
#define BACKWARD_TASKS 32               /* panels of columns times slices of samples, about: enough for the cores of a desktop */
#define BACKWARD_FEW 8                  /* tasks below which a slice may be as short as BACKWARD_ROWS instead of BLOCK */
#define BACKWARD_ROWS 64
#define BLOCK 128                       /* terms of a sum that a tile adds at once, at most: their panels stay in the L1 cache */
#define PANEL_MAX 32                    /* columns of a panel, at most: two AVX-512 vectors */
#define SERIAL (INT64_C(1) << 17)       /* N*K*D under which waking a second thread costs more than it saves */
#define DROPOUT_BLOCK 4096              /* elements that dropout hands to a thread at once */
#define SERIAL_DROPOUT (INT64_C(1) << 16) /* elements under which one thread does it all */
#define PATCHES_ROW 8192                /* numbers of a row of images that patches are added up to; MOST_NUMBERS in ops/doubling.py */
#define SERIAL_PATCHES (INT64_C(1) << 15)
#define PATCH_MOST 16                   /* pixels of a side of a patch that is taken */
#define BERNOULLI_BLOCK 2048            /* pixels that are summed, and handed to a thread, at once */
#define SERIAL_BERNOULLI (INT64_C(1) << 14)

typedef struct {
    int64_t N, K, D;
    int64_t Kp, Dp; /* K rounded up to even, D to whole panels */
    int64_t chunk, n_chunks, slice, n_slices;
    int32_t threads;
    /* Byte offsets into the workspace, each a multiple of ALIGNMENT. */
    int64_t packed;       /* forward: 2 C, where C = E - prior, and expm1(F), ordered as the products read them */
    int64_t per_cluster;  /* forward: (Kp)  sum_d C^2 + expm1(F) - F */
    int64_t partial_sums; /* forward: (n_chunks, 2) doubles */
    int64_t partial;      /* backward: (panels, n_slices, K, 2, panel)  a'(g1 w m)  and  a'(g1 w exp(v));  (n_slices, K)  sums of g1 w a */
    int64_t per_thread, per_thread_bytes;
    int64_t bytes;
} Plan;

static inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* Of a side of `size` pixels. */
static inline int64_t patches_along(int64_t size, int64_t k, int64_t stride, int64_t padding)
{
    return (size + 2 * padding - k) / stride + 1;
}

static inline int64_t bernoulli_blocks(int64_t pixels) { return (pixels + BERNOULLI_BLOCK - 1) / BERNOULLI_BLOCK; }

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

/* In floating point: N*K*D itself may not fit an integer. */
static inline int serial(const Plan *p) { return (double)p->N * (double)p->K * (double)p->D < (double)SERIAL; }

/* `tasks`: as many threads find work. */
static inline int32_t threads_for(const Plan *p, int64_t tasks, int32_t n_threads)
{
    if (tasks < 2 || serial(p)) return 1;
    return n_threads < tasks ? n_threads : (int32_t)tasks;
}

static inline Plan plan_common(int64_t N, int64_t K, int64_t D)
{
    Plan p = {.N = N, .K = K, .D = D, .Kp = round_up(K, 2), .Dp = round_up(D, PANEL_MAX)};
    p.chunk = (double)K * (double)D >= (double)LARGE ? LARGE_CHUNK : CHUNK;
    p.n_chunks = (N + p.chunk - 1) / p.chunk;
    return p;
}

/* `size`: bytes of a number; `staged`: whether half-precision inputs need room to be widened. */
static inline Plan plan_forward(int64_t N, int64_t K, int64_t D, int64_t size, int staged, int32_t n_threads)
{
    Plan p = plan_common(N, K, D);
    p.threads = threads_for(&p, p.n_chunks, n_threads);
    p.packed = place(&p, 2 * p.Kp * D * size);
    p.per_cluster = place(&p, p.Kp * size);
    p.partial_sums = place(&p, p.n_chunks * 2 * (int64_t)sizeof(double));
    p.per_thread_bytes = round_up(p.chunk * (2 * (D + p.Kp) + (staged ? 2 * D + K : 0)) * size, ALIGNMENT);
    p.per_thread = place(&p, p.per_thread_bytes * p.threads);
    p.bytes += ALIGNMENT; /* room to align the caller's pointer */
    return p;
}

static inline Plan plan_backward(int64_t N, int64_t K, int64_t D, int64_t size, int32_t n_threads)
{
    Plan p = plan_common(N, K, D);
    const int64_t panels = p.Dp / PANEL_MAX, least = (N + BLOCK - 1) / BLOCK * panels < BACKWARD_FEW ? BACKWARD_ROWS : BLOCK;
    const int64_t most = (N + least - 1) / least;
    const int64_t wanted = serial(&p) ? 1 : (BACKWARD_TASKS + panels - 1) / panels, slices = wanted < most ? wanted : most;
    p.slice = N > 0 ? (N + slices - 1) / slices : 1; /* equal, whatever that is: a thread's part should be too */
    p.n_slices = N > 0 ? (N + p.slice - 1) / p.slice : 1;
    p.threads = threads_for(&p, panels * p.n_slices, n_threads);
    p.partial = place(&p, p.n_slices * K * (2 * p.Dp + 1) * size);
    p.per_thread_bytes = round_up((2 * PANEL_MAX * (K + 2 * BLOCK) + 3 * K) * size, ALIGNMENT);
    p.per_thread = place(&p, p.per_thread_bytes * p.threads);
    p.bytes += ALIGNMENT;
    return p;
}

static inline Plan plan_dense(int64_t N, int64_t K, int64_t D, int64_t size, int32_t n_threads)
{
    Plan p = plan_common(N, K, D);
    p.threads = threads_for(&p, p.n_chunks, n_threads);
    p.partial_sums = place(&p, p.n_chunks * 2 * (int64_t)sizeof(double));
    /* Forward: lanes of KL, logits and exponentials, then a row of means and one of log-variances, or a group's logits. Backward: less. */
    const int64_t rows = 2 * D > PANEL_MAX * K ? 2 * D : PANEL_MAX * K;
    p.per_thread_bytes = round_up((3 * p.Kp * PANEL_MAX + rows + 2 * D + 2 * K) * size, ALIGNMENT);
    p.per_thread = place(&p, p.per_thread_bytes * p.threads);
    p.bytes += ALIGNMENT;
    return p;
}

#endif
