/* Public CUDA entry points: the functions of catvae_kernels.h over device pointers. Argument checks, then a handful of launches.
 *
 * Nothing is allocated and nobody waits: a call may be captured in a CUDA graph. Positive statuses are cudaError_t, which a machine
 * without a GPU or with too old a driver gets back from the first launch.
 */
#define THREADS 256
#include "common.h"
#include "dense.cuh"
#include "factorised.cuh"

extern "C" {

int32_t catvae_abi_version(void) { return (int32_t)CATVAE_ABI; }

const char *catvae_status_string(int32_t status) { return status > 0 ? cudaGetErrorString((cudaError_t)status) : own_status(status); }

int32_t catvae_best_isa(void)
{
    int device = 0, major = 0, minor = 0;
    cudaError_t status = cudaGetDevice(&device);
    if (status == cudaSuccess) status = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (status == cudaSuccess) status = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    return status == cudaSuccess ? 10 * major + minor : -(int32_t)status;
}

int64_t catvae_mixture_kl_workspace(int64_t N, int64_t K, int64_t D, int32_t size, int32_t type, int32_t phase, int32_t n_threads)
{
    const int32_t status = check(N, K, D, size, type, n_threads);
    if (status != CATVAE_OK) return status;
    if (phase < 0 || phase > 2) return CATVAE_BAD_TYPE;
    const int64_t sums = (N + ROWS - 1) / ROWS * 2 * (int64_t)sizeof(double), slices = (N + slice_size(N) - 1) / slice_size(N);
    return (phase == 1 ? slices * (2 * K * D + K) * size : sums) + (int64_t)sizeof(double); /* never empty, and room to align */
}

/* `constants` never may be NULL, `per_sample` only without samples. */
#define BEGIN(REAL, constants, per_sample)                                         \
    (void)isa;                                                                     \
    const int32_t status = check(N, K, D, (int32_t)sizeof(REAL), type, n_threads); \
    if (status != CATVAE_OK) return status;                                        \
    if (!(constants) || (N > 0 && !(per_sample))) return CATVAE_NULL_POINTER
#define SCRATCH(REAL) ((REAL *)(((uintptr_t)workspace + sizeof(double) - 1) & ~(uintptr_t)(sizeof(double) - 1)))

#define BY_TYPE(function, ...)                                  \
    (type == CATVAE_F16    ? function<float, F16>(__VA_ARGS__)  \
     : type == CATVAE_BF16 ? function<float, BF16>(__VA_ARGS__) \
                           : function<float, float>(__VA_ARGS__))
#define DOUBLE(function, ...) function<double, double>(__VA_ARGS__)

#define DEFINE_ENTRIES(REAL, SUFFIX, CALL)                                                                                              \
    int32_t catvae_mixture_kl_forward_##SUFFIX(                                                                                         \
        int64_t N, int64_t K, int64_t D, const void *m, const void *v, const REAL *E, const REAL *F, const REAL *prior,                 \
        const void *logits, const REAL *weight, int32_t type, REAL *kl, REAL *neg_entropy, REAL *assignment, REAL *cluster_kl,          \
        REAL *statistics, void *workspace, int32_t n_threads, int32_t isa, void *stream)                                                \
    {                                                                                                                                   \
        BEGIN(REAL, E && F && prior && kl && neg_entropy && workspace, m && v && logits && assignment && cluster_kl && statistics);     \
        return CALL(forward_of, N, K, D, m, v, E, F, prior, logits, weight, kl, neg_entropy, assignment, cluster_kl, statistics,        \
                    SCRATCH(double), stream);                                                                                           \
    }                                                                                                                                   \
    int32_t catvae_mixture_kl_backward_##SUFFIX(                                                                                        \
        int64_t N, int64_t K, int64_t D, const void *m, const void *v, const REAL *E, const REAL *F, const REAL *prior,                 \
        const void *logits, const REAL *weight, int32_t type, const REAL *assignment, const REAL *cluster_kl, const REAL *statistics,   \
        const REAL *g_kl, const REAL *g_neg_entropy, void *dm, void *dv, REAL *dE, REAL *dF, void *dlogits, void *workspace,            \
        int32_t n_threads, int32_t isa, void *stream)                                                                                   \
    {                                                                                                                                   \
        BEGIN(REAL, E && F && prior && dE && dF && workspace,                                                                           \
              m && v && logits && assignment && cluster_kl && statistics && dm && dv && dlogits);                                       \
        return CALL(backward_of, N, K, D, m, v, E, F, prior, logits, weight, assignment, cluster_kl, statistics, g_kl, g_neg_entropy,   \
                    dm, dv, dE, dF, dlogits, SCRATCH(REAL), stream);                                                                    \
    }                                                                                                                                   \
    int32_t catvae_dense_kl_forward_##SUFFIX(                                                                                           \
        int64_t N, int64_t K, int64_t D, const void *mu, const void *lv, const REAL *prior, const void *logits, const REAL *weight,     \
        int32_t type, REAL *kl, REAL *neg_entropy, REAL *assignment, REAL *cluster_kl, REAL *statistics, void *workspace,               \
        int32_t n_threads, int32_t isa, void *stream)                                                                                   \
    {                                                                                                                                   \
        BEGIN(REAL, prior && kl && neg_entropy && workspace, mu && lv && logits && assignment && cluster_kl && statistics);             \
        return CALL(dense_forward_of, N, K, D, mu, lv, prior, logits, weight, kl, neg_entropy, assignment, cluster_kl, statistics,      \
                    SCRATCH(double), stream);                                                                                           \
    }                                                                                                                                   \
    int32_t catvae_dense_kl_backward_##SUFFIX(                                                                                          \
        int64_t N, int64_t K, int64_t D, const void *mu, const void *lv, const REAL *prior, const void *logits, const REAL *weight,     \
        int32_t type, const REAL *assignment, const REAL *cluster_kl, const REAL *statistics, const REAL *g_kl,                         \
        const REAL *g_neg_entropy, void *dmu, void *dlv, void *dlogits, void *workspace, int32_t n_threads, int32_t isa, void *stream)  \
    {                                                                                                                                   \
        BEGIN(REAL, prior && workspace, mu && lv && logits && assignment && cluster_kl && statistics && dmu && dlv && dlogits);         \
        return CALL(dense_backward_of, N, K, D, mu, lv, prior, logits, weight, assignment, cluster_kl, statistics, g_kl, g_neg_entropy, \
                    dmu, dlv, dlogits, stream);                                                                                         \
    }

DEFINE_ENTRIES(float, f32, BY_TYPE)
DEFINE_ENTRIES(double, f64, DOUBLE)

static __global__ void elementary(int32_t function, int64_t n, const float *x, float *y)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    y[i] = function == 0 ? exp_(x[i]) : function == 1 ? expm1_(x[i]) : function == 2 ? expm1_gap<float>(x[i]) : log_(x[i]);
}

int32_t catvae_elementary_f32(int32_t function, int64_t n, const float *x, float *y, int32_t isa, void *stream)
{
    (void)isa;
    if (n < 0) return CATVAE_BAD_SIZE;
    if (function < 0 || function > 3) return CATVAE_BAD_TYPE;
    if (n > 0 && (!x || !y)) return CATVAE_NULL_POINTER;
    return launch(elementary, (n + THREADS - 1) / THREADS, stream, function, n, x, y);
}

} /* extern "C" */
