/* Public CPU entry points: argument checks and the choice of instruction set.
 *
 * The arithmetic stands once, in mixture_kl_body.h, and is compiled here for each instruction set and each precision: the same
 * source under `#pragma GCC target` gives a table that a test can force entry by entry on one machine (target_clones cannot),
 * and needs no per-file compiler flags. Other compilers and processors get the portable entry alone.
 */
#include "catvae_kernels.h"

#include <math.h>
#include <stddef.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CATVAE_X86_TABLE 1
#else
#define CATVAE_X86_TABLE 0
#endif

#include "plan.h"

#define JOIN_(a, b, c) a##_##b##_##c
#define JOIN(a, b, c) JOIN_(a, b, c)

/* WIDTH: bytes of a vector, the registers' own (wider ones are emulated through memory: eight times slower with AVX2).
 * BLOCK: rows of a register tile; two accumulators a row must fit the 32 registers of AVX-512, the 16 of the others. */
#define ISA base
#define WIDTH 16
#define BLOCK 4
#include "variants.h"
#undef BLOCK
#undef WIDTH
#undef ISA

#if CATVAE_X86_TABLE
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
#define ISA v3
#define WIDTH 32
#define BLOCK 4
#include "variants.h"
#undef BLOCK
#undef WIDTH
#undef ISA
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4")
#define ISA v4
#define WIDTH 64
#define BLOCK 8
#include "variants.h"
#undef BLOCK
#undef WIDTH
#undef ISA
#pragma GCC pop_options
#endif

int32_t catvae_abi_version(void) { return 1; }

const char *catvae_status_string(int32_t status)
{
    switch (status) {
    case CATVAE_OK: return "success";
    case CATVAE_BAD_SIZE: return "a size is out of range: N >= 0, K >= 1 and D >= 1 are required and their product must fit in 2^58 elements";
    case CATVAE_NULL_POINTER: return "a required pointer is NULL";
    case CATVAE_BAD_THREADS: return "n_threads must be at least 1";
    case CATVAE_BAD_ISA: return "this machine does not offer the requested instruction set";
    default: return "unknown status";
    }
}

int32_t catvae_best_isa(void)
{
#if CATVAE_X86_TABLE
    __builtin_cpu_init();
    if (__builtin_cpu_supports("x86-64-v4")) return 2;
    if (__builtin_cpu_supports("x86-64-v3")) return 1;
#endif
    return 0;
}

/* The instruction set to run, or a negative status. */
static int32_t resolve_isa(int32_t isa)
{
    const int32_t best = catvae_best_isa();
    if (isa == -1) return best;
    return isa >= 0 && isa <= best ? isa : CATVAE_BAD_ISA;
}

static int32_t check_sizes(int64_t N, int64_t K, int64_t D)
{
    const int64_t limit = INT64_C(1) << 28; /* two sizes below it multiply to at most 2^56 elements, far inside int64 bytes */
    return N >= 0 && K >= 1 && D >= 1 && N <= limit && K <= limit && D <= limit ? CATVAE_OK : CATVAE_BAD_SIZE;
}

int64_t catvae_mixture_kl_workspace(int64_t N, int64_t K, int64_t D, int32_t element_size, int32_t gradients, int32_t n_threads)
{
    if (check_sizes(N, K, D) != CATVAE_OK || (element_size != 4 && element_size != 8)) return CATVAE_BAD_SIZE;
    if (n_threads < 1) return CATVAE_BAD_THREADS;
    return plan_make(N, K, D, element_size, gradients, n_threads).bytes;
}

#if CATVAE_X86_TABLE
#define RUN(isa, name, real, ...)                              \
    ((isa) == 2   ? JOIN(name, real, v4)(__VA_ARGS__)          \
     : (isa) == 1 ? JOIN(name, real, v3)(__VA_ARGS__)          \
                  : JOIN(name, real, base)(__VA_ARGS__))
#else
#define RUN(isa, name, real, ...) ((void)(isa), JOIN(name, real, base)(__VA_ARGS__))
#endif

#define DEFINE_ENTRY(REAL_T, SUFFIX)                                                                                            \
    int32_t catvae_mixture_kl_##SUFFIX(                                                                                         \
        int64_t N, int64_t K, int64_t D, const REAL_T *m, const REAL_T *v, const REAL_T *E, const REAL_T *F,                    \
        const REAL_T *prior, const REAL_T *logits, const REAL_T *weight, double *sums, REAL_T *assignment,                      \
        REAL_T *cluster_kl, REAL_T *dm, REAL_T *dv, REAL_T *dE, REAL_T *dF, REAL_T *dlogits_kl, REAL_T *dlogits_entropy,        \
        void *workspace, int32_t n_threads, int32_t isa)                                                                        \
    {                                                                                                                           \
        const int32_t status = check_sizes(N, K, D);                                                                            \
        if (status != CATVAE_OK) return status;                                                                                 \
        if (n_threads < 1) return CATVAE_BAD_THREADS;                                                                           \
        const int32_t chosen = resolve_isa(isa);                                                                                \
        if (chosen < 0) return chosen;                                                                                          \
        if (!E || !F || !prior || !sums || !workspace) return CATVAE_NULL_POINTER;                                              \
        if (N > 0 && (!m || !v || !logits || !assignment || !cluster_kl)) return CATVAE_NULL_POINTER;                           \
        if (dm && (!dv || !dE || !dF || !dlogits_kl || !dlogits_entropy)) return CATVAE_NULL_POINTER;                           \
        const Plan plan = plan_make(N, K, D, (int32_t)sizeof(REAL_T), dm != NULL, n_threads);                                   \
        RUN(chosen, mixture_kl, SUFFIX, &plan, m, v, E, F, prior, logits, weight, sums, assignment, cluster_kl, dm, dv, dE, dF, \
            dlogits_kl, dlogits_entropy, workspace);                                                                            \
        return CATVAE_OK;                                                                                                       \
    }

DEFINE_ENTRY(float, f32)
DEFINE_ENTRY(double, f64)

int32_t catvae_exp_f32(int64_t n, const float *x, float *y, int32_t isa)
{
    const int32_t chosen = resolve_isa(isa);
    if (chosen < 0) return chosen;
    if (n < 0) return CATVAE_BAD_SIZE;
    if (n > 0 && (!x || !y)) return CATVAE_NULL_POINTER;
    RUN(chosen, exp_array, f32, n, x, y);
    return CATVAE_OK;
}
