/* Public CPU entry points: argument checks and the choice of instruction set.
 *
 * The arithmetic stands once, in the headers beside this file, and is compiled here for each instruction set and each precision: the
 * same source under `#pragma GCC target` gives a table that a test can force entry by entry on one machine (target_clones cannot),
 * and needs no per-file compiler flags. Other processors get the portable entry alone; compilers are clang and gcc from 9 on, which know
 * __builtin_convertvector.
 */
#ifdef __FAST_MATH__
#error "-ffast-math makes exp wrong and NaN unnoticed: leave it out"
#endif
#include "catvae_layers.h"
#include "common.h"

#include <math.h>
#include <stddef.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#if defined(__x86_64__) && defined(__GNUC__) && (defined(__clang__) || __GNUC__ >= 9)
#define CATVAE_X86_TABLE 1
#include <immintrin.h>
#else
#define CATVAE_X86_TABLE 0
#endif

#include "half.h"
#include "norm_sums.h"
#include "plan.h"

static inline int64_t thread_index(void)
{
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

#define JOIN_(a, b, c) a##_##b##_##c
#define JOIN(a, b, c) JOIN_(a, b, c)

/* WIDTH: bytes of a vector, the registers' own (wider ones are emulated through memory: eight times slower with AVX2).
 * TILE: rows of a register tile of two vectors; its 2 * TILE sums fit the 32 registers of AVX-512, the 16 of the others. */
#define ISA base
#define WIDTH 16
#define TILE 6
#include "variants.h"
#undef TILE
#undef WIDTH
#undef ISA

/* x86-64-v3 and -v4 feature by feature: gcc knows their names in a target since 12. */
#if CATVAE_X86_TABLE
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2,f16c,fma,lzcnt,movbe"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,bmi,bmi2,f16c,fma,lzcnt,movbe")
#endif
#define ISA v3
#define WIDTH 32
#define TILE 6
#include "variants.h"
#undef TILE
#undef WIDTH
#undef ISA
#ifdef __clang__
#pragma clang attribute pop
#pragma clang attribute push( \
    __attribute__((target("avx2,bmi,bmi2,f16c,fma,lzcnt,movbe,avx512f,avx512bw,avx512cd,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,bmi,bmi2,f16c,fma,lzcnt,movbe,avx512f,avx512bw,avx512cd,avx512dq,avx512vl")
#endif
#define ISA v4
#define WIDTH 64
#define TILE 12
#include "variants.h"
#undef TILE
#undef WIDTH
#undef ISA
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

int32_t catvae_abi_version(void) { return (int32_t)CATVAE_ABI; }

const char *catvae_status_string(int32_t status) { return own_status(status); }

int32_t catvae_best_isa(void)
{
#if CATVAE_X86_TABLE
#define HAS(feature) (__builtin_cpu_supports(feature) != 0)
    __builtin_cpu_init();
    if (HAS("avx2") && HAS("bmi") && HAS("bmi2") && HAS("fma")) /* no processor has these without f16c, lzcnt and movbe */
        return HAS("avx512f") && HAS("avx512bw") && HAS("avx512cd") && HAS("avx512dq") && HAS("avx512vl") ? 2 : 1;
#undef HAS
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

int64_t catvae_mixture_kl_workspace(int64_t N, int64_t K, int64_t D, int32_t size, int32_t type, int32_t phase, int32_t n_threads)
{
    const int32_t status = check(N, K, D, size, type, n_threads);
    if (status != CATVAE_OK) return status;
    switch (phase) {
    case 0: return plan_forward(N, K, D, size, type != CATVAE_SAME, n_threads).bytes;
    case 1: return plan_backward(N, K, D, size, n_threads).bytes;
    case 2: return plan_dense(N, K, D, size, n_threads).bytes;
    default: return CATVAE_BAD_TYPE;
    }
}

#if CATVAE_X86_TABLE
#define RUN(isa, name, real, ...)                     \
    ((isa) == 2   ? JOIN(name, real, v4)(__VA_ARGS__) \
     : (isa) == 1 ? JOIN(name, real, v3)(__VA_ARGS__) \
                  : JOIN(name, real, base)(__VA_ARGS__))
#else
#define RUN(isa, name, real, ...) ((void)(isa), JOIN(name, real, base)(__VA_ARGS__))
#endif

static inline char *aligned(void *workspace) { return (char *)(((uintptr_t)workspace + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1)); }

/* Common beginning of an entry: `chosen` is the instruction set. `constants` never may be NULL, `per_sample` only without samples. */
#define BEGIN(REAL_T, constants, per_sample)                                         \
    (void)stream;                                                                    \
    const int32_t status = check(N, K, D, (int32_t)sizeof(REAL_T), type, n_threads); \
    if (status != CATVAE_OK) return status;                                          \
    const int32_t chosen = resolve_isa(isa);                                         \
    if (chosen < 0) return chosen;                                                   \
    if (!(constants) || (N > 0 && !(per_sample))) return CATVAE_NULL_POINTER;        \
    char *scratch = aligned(workspace)

#define DEFINE_ENTRIES(REAL_T, SUFFIX)                                                                                                   \
    int32_t catvae_mixture_kl_forward_##SUFFIX(                                                                                          \
        int64_t N, int64_t K, int64_t D, const void *m, const void *v, const REAL_T *E, const REAL_T *F, const REAL_T *prior,            \
        const void *logits, const REAL_T *weight, int32_t type, REAL_T *kl, REAL_T *neg_entropy, REAL_T *assignment, REAL_T *cluster_kl, \
        REAL_T *statistics, void *workspace, int32_t n_threads, int32_t isa, void *stream)                                               \
    {                                                                                                                                    \
        BEGIN(REAL_T, E && F && prior && kl && neg_entropy && workspace, m && v && logits && assignment && cluster_kl && statistics);    \
        const Plan plan = plan_forward(N, K, D, sizeof(REAL_T), type != CATVAE_SAME, n_threads);                                         \
        RUN(chosen, mixture_kl_forward, SUFFIX, &plan, m, v, E, F, prior, logits, weight, type, kl, neg_entropy, assignment, cluster_kl, \
            statistics, scratch);                                                                                                        \
        return CATVAE_OK;                                                                                                                \
    }                                                                                                                                    \
    int32_t catvae_mixture_kl_backward_##SUFFIX(                                                                                         \
        int64_t N, int64_t K, int64_t D, const void *m, const void *v, const REAL_T *E, const REAL_T *F, const REAL_T *prior,            \
        const void *logits, const REAL_T *weight, int32_t type, const REAL_T *assignment, const REAL_T *cluster_kl,                      \
        const REAL_T *statistics, const REAL_T *g_kl, const REAL_T *g_neg_entropy, void *dm, void *dv, REAL_T *dE, REAL_T *dF,           \
        void *dlogits, void *workspace, int32_t n_threads, int32_t isa, void *stream)                                                    \
    {                                                                                                                                    \
        BEGIN(REAL_T, E && F && prior && dE && dF && workspace,                                                                          \
              m && v && logits && assignment && cluster_kl && statistics && dm && dv && dlogits);                                        \
        const Plan plan = plan_backward(N, K, D, sizeof(REAL_T), n_threads);                                                             \
        RUN(chosen, mixture_kl_backward, SUFFIX, &plan, m, v, E, F, prior, logits, weight, type, assignment, cluster_kl, statistics,     \
            g_kl ? *g_kl : 0, g_neg_entropy ? *g_neg_entropy : 0, dm, dv, dE, dF, dlogits, scratch);                                     \
        return CATVAE_OK;                                                                                                                \
    }                                                                                                                                    \
    int32_t catvae_dense_kl_forward_##SUFFIX(                                                                                            \
        int64_t N, int64_t K, int64_t D, const void *mu, const void *lv, const REAL_T *prior, const void *logits, const REAL_T *weight,  \
        int32_t type, REAL_T *kl, REAL_T *neg_entropy, REAL_T *assignment, REAL_T *cluster_kl, REAL_T *statistics, void *workspace,      \
        int32_t n_threads, int32_t isa, void *stream)                                                                                    \
    {                                                                                                                                    \
        BEGIN(REAL_T, prior && kl && neg_entropy && workspace, mu && lv && logits && assignment && cluster_kl && statistics);            \
        const Plan plan = plan_dense(N, K, D, sizeof(REAL_T), n_threads);                                                                \
        RUN(chosen, dense_forward, SUFFIX, &plan, mu, lv, prior, logits, weight, type, kl, neg_entropy, assignment, cluster_kl,          \
            statistics, scratch);                                                                                                        \
        return CATVAE_OK;                                                                                                                \
    }                                                                                                                                    \
    int32_t catvae_dense_kl_backward_##SUFFIX(                                                                                           \
        int64_t N, int64_t K, int64_t D, const void *mu, const void *lv, const REAL_T *prior, const void *logits, const REAL_T *weight,  \
        int32_t type, const REAL_T *assignment, const REAL_T *cluster_kl, const REAL_T *statistics, const REAL_T *g_kl,                  \
        const REAL_T *g_neg_entropy, void *dmu, void *dlv, void *dlogits, void *workspace, int32_t n_threads, int32_t isa, void *stream) \
    {                                                                                                                                    \
        BEGIN(REAL_T, prior && workspace, mu && lv && logits && assignment && cluster_kl && statistics && dmu && dlv && dlogits);        \
        const Plan plan = plan_dense(N, K, D, sizeof(REAL_T), n_threads);                                                                \
        RUN(chosen, dense_backward, SUFFIX, &plan, mu, lv, prior, logits, weight, type, assignment, cluster_kl, statistics,              \
            g_kl ? *g_kl : 0, g_neg_entropy ? *g_neg_entropy : 0, dmu, dlv, dlogits, scratch);                                           \
        return CATVAE_OK;                                                                                                                \
    }

DEFINE_ENTRIES(float, f32)
DEFINE_ENTRIES(double, f64)

int32_t catvae_elementary_f32(int32_t function, int64_t n, const float *x, float *y, int32_t isa, void *stream)
{
    (void)stream;
    const int32_t chosen = resolve_isa(isa);
    if (chosen < 0) return chosen;
    if (n < 0) return CATVAE_BAD_SIZE;
    if (function < 0 || function > 3) return CATVAE_BAD_TYPE;
    if (n > 0 && (!x || !y)) return CATVAE_NULL_POINTER;
    RUN(chosen, elementary, f32, function, n, x, y);
    return CATVAE_OK;
}

#include "layer_entries.h"
