/* How one call is cut into chunks of samples and where each piece of scratch lies in the caller's workspace.
 *
 * The cut depends on (N, K, D) alone, never on the number of threads, and partial sums are combined in chunk order: that is what
 * makes every result bit-identical for any thread count.
 */
#ifndef CATVAE_PLAN_H
#define CATVAE_PLAN_H
#include <stdint.h>

#define VECTOR_BYTES 64                 /* alignment and padding of every array: the widest register, and a cache line */
#define MAX_BLOCK 8                     /* samples that share one load of C and G, at most; chunks are whole multiples */
#define MIN_CHUNK 64                    /* samples per chunk, at least */
#define MAX_CHUNKS 32                   /* bounds the partial dE, dF: at most 32 * 2 * K * D elements */
#define SERIAL_BELOW (INT64_C(1) << 17) /* N*K*D under which waking a second thread costs more than it saves */

typedef struct {
    int64_t N, K, D;
    int64_t Kp, Dp;           /* K and D rounded up to whole vectors */
    int64_t chunk, n_chunks;  /* samples per chunk */
    int32_t threads;
    /* Byte offsets into the workspace, each a multiple of VECTOR_BYTES. */
    int64_t packed;           /* C and G as (Dp, Kp), then as (Kp, Dp), then sum_d F as (Kp): shared, read-only while chunks run */
    int64_t per_thread;       /* one scratch block per thread */
    int64_t per_thread_bytes;
    int64_t partial_sums;     /* (n_chunks, 2) doubles */
    int64_t partial_grads;    /* (n_chunks, 2 * Kp * Dp + Kp) elements, when gradients are wanted */
    int64_t partial_grads_bytes;
    int64_t bytes;
} Plan;

static inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

static inline Plan plan_make(int64_t N, int64_t K, int64_t D, int32_t element_size, int32_t gradients, int32_t n_threads)
{
    Plan p = {.N = N, .K = K, .D = D};
    const int64_t lanes = VECTOR_BYTES / element_size;
    p.Kp = round_up(K, lanes);
    p.Dp = round_up(D, lanes);
    p.chunk = round_up((N + MAX_CHUNKS - 1) / MAX_CHUNKS, MAX_BLOCK);
    if (p.chunk < MIN_CHUNK) p.chunk = MIN_CHUNK;
    p.n_chunks = (N + p.chunk - 1) / p.chunk;
    /* In floating point: N*K*D itself may not fit an integer. */
    const double work = (double)N * (double)K * (double)D;
    p.threads = work < (double)SERIAL_BELOW ? 1 : n_threads;
    if (p.threads > p.n_chunks) p.threads = p.n_chunks > 0 ? (int32_t)p.n_chunks : 1;

    int64_t at = 0;
    p.packed = at;
    at += round_up((4 * p.Kp * p.Dp + p.Kp) * element_size, VECTOR_BYTES);
    p.per_thread_bytes = round_up((p.chunk * (2 * p.Dp + 2 * p.Kp) + p.Kp) * element_size, VECTOR_BYTES);
    p.per_thread = at;
    at += p.per_thread_bytes * p.threads;
    p.partial_sums = at;
    at += round_up(p.n_chunks * 2 * (int64_t)sizeof(double), VECTOR_BYTES);
    p.partial_grads_bytes = round_up((2 * p.Kp * p.Dp + p.Kp) * element_size, VECTOR_BYTES);
    p.partial_grads = at;
    if (gradients) at += p.partial_grads_bytes * p.n_chunks;
    p.bytes = at + VECTOR_BYTES; /* room to align the caller's pointer */
    return p;
}

#endif
