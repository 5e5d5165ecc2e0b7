/* The C interface of the fused mixture loss: the text between the two marks is read by cffi and by the C compiler alike.
 *
 * Notation (the same in C, Python, docs and tests):
 *   N samples, K clusters, D latent dimensions; every array is contiguous and row-major.
 *   m, v    (N, D)  mean and log-variance every cluster shares      E, F  (K, D)  offsets of each cluster
 *   prior   (K, D)  prior means mu_c                                logits (N, K) of the assignment a = q(c|x) = softmax(logits)
 *   weight  (N,)    known sample weights w, or NULL for ones
 *
 *   KL_nk = KL( N(m_n + E_k, diag exp(v_n + F_k)) || N(prior_k, I) ),   C = E - prior,   G = exp(F):
 *   2 KL_nk = sum_d (m_nd + C_kd)^2 + sum_d exp(v_nd) G_kd - sum_d (1 + v_nd + F_kd)
 *
 * What it leaves out: the CUDA entry points, and gradients with respect to prior and weight, which are constants of the model.
 */
#ifndef CATVAE_KERNELS_H
#define CATVAE_KERNELS_H
#include <stdint.h>

/* cdef: begin */

/* Version of this interface; a loader refuses a library whose answer differs from the one it was written for. */
int32_t catvae_abi_version(void);

/* One English sentence for a status: 0 is success, negative values are this library's own. Never NULL. */
const char *catvae_status_string(int32_t status);

/* Best instruction set of this machine: 0 portable, 1 AVX2 + FMA (x86-64-v3), 2 AVX-512 (x86-64-v4). */
int32_t catvae_best_isa(void);

/* Bytes of scratch the forward call needs; the caller owns the buffer. Negative on bad sizes. */
int64_t catvae_mixture_kl_workspace(int64_t N, int64_t K, int64_t D, int32_t element_size, int32_t gradients, int32_t n_threads);

/* Forward, and with dm != NULL also everything backward needs.
 *   sums        (2,)  double: sum_n w sum_k a KL,  sum_n w sum_k a log a
 *   assignment  (N, K) a,   cluster_kl (N, K) KL
 *   dm, dv      (N, D), dE, dF (K, D): gradients of sums[0]
 *   dlogits_kl, dlogits_entropy (N, K): gradients of sums[0] and of sums[1]
 * n_threads >= 1; isa -1 takes the best; results are bit-identical for every n_threads. */
int32_t catvae_mixture_kl_f32(
    int64_t N, int64_t K, int64_t D,
    const float *m, const float *v, const float *E, const float *F, const float *prior, const float *logits, const float *weight,
    double *sums, float *assignment, float *cluster_kl,
    float *dm, float *dv, float *dE, float *dF, float *dlogits_kl, float *dlogits_entropy,
    void *workspace, int32_t n_threads, int32_t isa);

int32_t catvae_mixture_kl_f64(
    int64_t N, int64_t K, int64_t D,
    const double *m, const double *v, const double *E, const double *F, const double *prior, const double *logits, const double *weight,
    double *sums, double *assignment, double *cluster_kl,
    double *dm, double *dv, double *dE, double *dF, double *dlogits_kl, double *dlogits_entropy,
    void *workspace, int32_t n_threads, int32_t isa);

/* y = exp(x) as the float kernel computes it, for tests of its error bound. */
int32_t catvae_exp_f32(int64_t n, const float *x, float *y, int32_t isa);

/* cdef: end */

/* Status codes. */
#define CATVAE_OK 0
#define CATVAE_BAD_SIZE (-1)
#define CATVAE_NULL_POINTER (-2)
#define CATVAE_BAD_THREADS (-3)
#define CATVAE_BAD_ISA (-4)

#endif
