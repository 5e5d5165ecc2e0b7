/* Every entry point over many sizes with buffers of exactly the promised size, to be run under AddressSanitizer and UBSan.
 *
 * Values are not judged here (the Python tests do that), only memory: each array is a malloc of its own, so that a read or a write one
 * element beyond it ends the program. Prints the number of problems that ran.
 */
#include "catvae_kernels.h"
#include "catvae_layers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t state = 1;
static uint32_t next(uint32_t below) { return (state = state * 1664525u + 1013904223u) / 65536u % below; }

/* `count` numbers of `size` bytes; halves are small positive bit patterns of either format. */
static void *make(int64_t count, int32_t size)
{
    char *p = malloc(count ? (size_t)(count * size) : 1);
    for (int64_t i = 0; i < count; ++i) {
        const double x = next(2000) / 1000.0 - 1;
        if (size == 8) ((double *)p)[i] = x;
        else if (size == 4) ((float *)p)[i] = (float)x;
        else ((uint16_t *)p)[i] = (uint16_t)(0x3000 + next(0x800));
    }
    return p;
}

/* The promise includes 64 bytes for aligning the start: aligned here, it must do without them. */
static void *scratch(int64_t bytes)
{
    void *p = NULL;
    if (posix_memalign(&p, 64, (size_t)bytes - 64)) exit(1);
    return memset(p, 0xff, (size_t)bytes - 64); /* what nobody wrote must not matter */
}

static void *made[32];
static int count;
static void *keep(void *p) { return made[count++] = p; }

#define RUN(REAL, SUFFIX)                                                                                                              \
    static void run_##SUFFIX(int64_t N, int64_t K, int64_t D, int32_t type, int dense, int weighted, int threads, int isa)             \
    {                                                                                                                                  \
        const int32_t size = sizeof(REAL), narrow = type ? 2 : size;                                                                   \
        const int64_t wide = dense ? N * K * D : N * D;                                                                                \
        void *m = keep(make(wide, narrow)), *v = keep(make(wide, narrow)), *logits = keep(make(N * K, narrow));                        \
        REAL *E = keep(make(K * D, size)), *F = keep(make(K * D, size)), *prior = keep(make(K * D, size));                             \
        REAL *weight = weighted ? keep(make(N, size)) : NULL, *sums = keep(make(2, size)), *g = keep(make(1, size));                   \
        REAL *a = keep(make(N * K, size)), *kl = keep(make(N * K, size)), *statistics = keep(make(3 * N, size));                       \
        void *dm = keep(make(wide, narrow)), *dv = keep(make(wide, narrow)), *dlogits = keep(make(N * K, narrow));                     \
        REAL *dE = keep(make(K * D, size)), *dF = keep(make(K * D, size));                                                             \
        const int64_t before = catvae_mixture_kl_workspace(N, K, D, size, type, dense ? 2 : 0, threads);                               \
        const int64_t after = catvae_mixture_kl_workspace(N, K, D, size, type, dense ? 2 : 1, threads);                                \
        if (!type && wide && next(2)) ((REAL *)m)[0] = 1000; /* the direct way of the square */                                        \
        char *ws = keep(scratch(before)), *ws2 = keep(scratch(after));                                                                 \
        int32_t status;                                                                                                                \
        if (dense) {                                                                                                                   \
            status = catvae_dense_kl_forward_##SUFFIX(N, K, D, m, v, prior, logits, weight, type, sums, sums + 1, a, kl, statistics,   \
                                                      ws, threads, isa, NULL);                                                         \
            status |= catvae_dense_kl_backward_##SUFFIX(N, K, D, m, v, prior, logits, weight, type, a, kl, statistics, g, NULL, dm,    \
                                                        dv, dlogits, ws2, threads, isa, NULL);                                         \
        } else {                                                                                                                       \
            status = catvae_mixture_kl_forward_##SUFFIX(N, K, D, m, v, E, F, prior, logits, weight, type, sums, sums + 1, a, kl,       \
                                                        statistics, ws, threads, isa, NULL);                                           \
            status |= catvae_mixture_kl_backward_##SUFFIX(N, K, D, m, v, E, F, prior, logits, weight, type, a, kl, statistics, g, g,   \
                                                          dm, dv, dE, dF, dlogits, ws2, threads, isa, NULL);                           \
        }                                                                                                                              \
        if (status) {                                                                                                                  \
            printf("status %d at N=%ld K=%ld D=%ld\n", status, (long)N, (long)K, (long)D);                                             \
            exit(1);                                                                                                                   \
        }                                                                                                                              \
        while (count) free(made[--count]);                                                                                             \
    }
RUN(float, f32)
RUN(double, f64)

static void run_norm(int64_t N, int64_t C, int32_t type, int threads, int isa)
{
    const int32_t narrow = type ? 2 : 4;
    void *x = keep(make(N * C, narrow)), *y = keep(make(N * C, narrow)), *dy = keep(make(N * C, narrow)), *dx = keep(make(N * C, narrow));
    float *gamma = keep(make(C, 4)), *beta = keep(make(C, 4)), *statistics = keep(make(2 * C, 4));
    float *dgamma = keep(make(C, 4)), *dbeta = keep(make(C, 4));
    const int64_t bytes = catvae_norm_relu_workspace(N, C);
    char *ws = keep(scratch(bytes)), *ws2 = keep(scratch(bytes));
    int32_t status = catvae_norm_relu_forward(N, C, x, type, gamma, beta, 1e-5, y, statistics, ws, threads, isa);
    status |= catvae_norm_relu_backward(N, C, x, dy, type, gamma, beta, 1e-5, statistics, dx, dgamma, dbeta, ws2, threads, isa);
    if (status) {
        printf("status %d at N=%ld C=%ld\n", status, (long)N, (long)C);
        exit(1);
    }
    while (count) free(made[--count]);
}

static void run_dropout(int64_t n, int32_t type, int threads, int isa)
{
    const int32_t narrow = type ? 2 : 4;
    void *x = keep(make(n, narrow)), *y = keep(make(n, narrow)), *dy = keep(make(n, narrow)), *dx = keep(make(n, narrow));
    int32_t status = catvae_dropout_relu_forward(n, x, type, INT64_C(1) << 30, 1.5f, -(int64_t)next(1000), y, threads, isa);
    status |= catvae_dropout_relu_backward(n, dy, y, type, 1.5f, dx, threads, isa);
    if (status) {
        printf("status %d at n=%ld\n", status, (long)n);
        exit(1);
    }
    while (count) free(made[--count]);
}

static void run_patches(int64_t N, int64_t h, int64_t w, int64_t C, int32_t type, int threads, int isa)
{
    const int32_t narrow = type ? 2 : 4;
    void *patches = keep(make(N * h * w * 16 * C, narrow)), *y = keep(make(N * 4 * h * w * C, narrow));
    const int32_t status = catvae_overlap_patches(N, h, w, C, patches, type, keep(make(C, 4)), y, threads, isa);
    if (status) {
        printf("status %d at N=%ld h=%ld w=%ld C=%ld\n", status, (long)N, (long)h, (long)w, (long)C);
        exit(1);
    }
    while (count) free(made[--count]);
}

static void run_taken(int64_t N, int64_t H, int64_t W, int64_t C, int threads, int isa)
{
    const int64_t side = H < W ? H : W, k = 1 + next(16), some = next(k), stride = 1 + next(3);
    const int64_t padding = side + 2 * some < k ? k - 1 : some;
    const int64_t h = (H + 2 * padding - k) / stride + 1, w = (W + 2 * padding - k) / stride + 1;
    uint16_t *x = keep(make(N * H * W * C, 2)), *out = keep(make(N * h * w * k * k * C, 2));
    const int32_t status = catvae_take_patches(N, H, W, C, k, stride, padding, x, out, threads, isa);
    if (status) {
        printf("status %d at N=%ld H=%ld W=%ld C=%ld k=%ld\n", status, (long)N, (long)H, (long)W, (long)C, (long)k);
        exit(1);
    }
    while (count) free(made[--count]);
}

static void run_bernoulli(int64_t n, int64_t others, int32_t type, int threads, int isa)
{
    const int32_t narrow = type ? 2 : 4;
    const int64_t total = n + others;
    void *logits = keep(make(total, narrow)), *dlogits = keep(make(total, narrow));
    float *x = keep(make(n, 4)), *nll = keep(make(1, 4)), *images = keep(make(others, 4)), *g = keep(make(others, 4));
    void *ws = keep(scratch(catvae_bernoulli_workspace(n)));
    int32_t status = catvae_bernoulli_forward(n, total, logits, type, x, nll, images, ws, threads, isa);
    status |= catvae_bernoulli_backward(n, total, logits, type, x, next(2) ? nll : NULL, next(2) ? g : NULL, dlogits, threads, isa);
    if (status) {
        printf("status %d at n=%ld others=%ld\n", status, (long)n, (long)others);
        exit(1);
    }
    while (count) free(made[--count]);
}

int main(void)
{
    static const int64_t large[][3] = {{1, 1, 1}, {0, 3, 4}, {300, 270, 250}, {1030, 33, 70}, {129, 700, 100}, {600, 61, 5}};
    int ran = 0;
    for (int isa = 0; isa <= catvae_best_isa(); ++isa)
        for (int i = 0; i < 160; ++i) {
            int64_t N = next(150), K = 1 + next(40), D = 1 + next(70);
            if (i < 6) N = large[i][0], K = large[i][1], D = large[i][2];
            const int dense = next(3) == 0 && N * K * D < 2000000, threads = 1 + next(3), weighted = next(2);
            run_f32(N, K, D, (int32_t)next(3), dense, weighted, threads, isa);
            run_f64(N, K, D, 0, dense, weighted, threads, isa);
            run_norm(1 + next(i % 10 ? 600 : 9000), 16 * (1 + next(9)), 2 * (int32_t)next(2), threads, isa);
            run_dropout(16 * next(i % 10 ? 600 : 9000), 2 * (int32_t)next(2), threads, isa);
            run_patches(next(9), 1 + next(20), 1 + next(i % 10 ? 20 : 1000), 1 + next(4), 2 * (int32_t)next(2), threads, isa);
            run_bernoulli(next(i % 10 ? 600 : 40000), next(i % 10 ? 600 : 40000), 2 * (int32_t)next(2), threads, isa);
            run_taken(next(9), 1 + next(20), 1 + next(20), 1 + next(i % 10 ? 5 : 200), threads, isa);
            ran += 7;
        }
    printf("%d problems\n", ran);
    return 0;
}
