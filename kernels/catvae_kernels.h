/* The C interface of the fused mixture loss: the text between the two marks is read by cffi and by the C compilers alike.
 *
 * Notation (the same in C, Python, docs and tests):
 *   N samples, K clusters, D latent dimensions; every array is contiguous and row-major.
 *   m, v    (N, D)  mean and log-variance every cluster shares      E, F  (K, D)  offsets of each cluster
 *   prior   (K, D)  prior means mu_c                                logits (N, K) of the assignment a = q(c|x) = softmax(logits)
 *   weight  (N,)    known sample weights w, or NULL for ones; a sample of weight 0 is masked, whatever its v
 *
 *   KL_nk = KL( N(m_n + E_k, diag exp(v_n + F_k)) || N(prior_k, I) ),   C = E - prior,   G = exp(F):
 *   2 KL_nk = sum_d (m_nd + C_kd)^2 + sum_d exp(v_nd) G_kd - sum_d (1 + v_nd + F_kd)
 *   exp(v), G and the upstream gradient times exp(v) must be finite: |v| and |F| up to 80 in float.
 *
 * The dense form takes mu, lv (N, K, D) in place of m + E and v + F. Left out: gradients with respect to prior and weight, which are
 * constants of the model, and second derivatives.
 *
 * Two libraries speak this interface. `cpu/` takes n_threads and isa and ignores stream. `cuda/` takes device pointers and a cudaStream_t,
 * ignores n_threads and isa, and only enqueues: no allocation, no synchronisation, so that a CUDA graph can capture every call.
 * Rules: the caller owns all memory, workspace included; nothing is printed, no state is kept, nothing aborts; the result is a status.
 */
#ifndef CATVAE_KERNELS_H
#define CATVAE_KERNELS_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#ifdef __GNUC__
#pragma GCC visibility push(default) /* everything else in the libraries is hidden */
#endif

/* cdef: begin */

/* CRC-32 of the declarations between the marks, as the build saw them: a loader refuses a library built from others. */
int32_t catvae_abi_version(void);

/* One English sentence for a status: 0 is success, negative values are this library's own, positive ones CUDA's. Never NULL. */
const char *catvae_status_string(int32_t status);

/* CPU: best instruction set of this machine, 0 portable, 1 AVX2 + FMA (x86-64-v3), 2 AVX-512 (x86-64-v4).
 * CUDA: compute capability of the current device (90 is sm_90), or minus a cudaError_t where there is none. */
int32_t catvae_best_isa(void);

/* Bytes of scratch a call needs, a status if negative. phase: 0 forward, 1 backward, 2 either one of the dense form.
 * element_size: 4 or 8, of the numbers computed with; type: as below. */
int64_t catvae_mixture_kl_workspace(int64_t N, int64_t K, int64_t D, int32_t element_size, int32_t type, int32_t phase, int32_t n_threads);

/* Forward.
 *   type        of m, v, logits (mu, lv, logits): 0 as the other arrays, 1 IEEE half, 2 bfloat16; halves are widened on load
 *   kl, neg_entropy  (1,) each: sum_n w sum_k a KL,  sum_n w sum_k a log a, added up in double
 *   assignment (N, K) a,   cluster_kl (N, K) KL,   statistics (3, N): what backward needs to know of each sample
 * n_threads >= 1; isa -1 takes the best; results are bit-identical for every n_threads, and on one GPU from run to run. */
int32_t catvae_mixture_kl_forward_f32(
    int64_t N, int64_t K, int64_t D,
    const void *m, const void *v, const float *E, const float *F, const float *prior, const void *logits, const float *weight,
    int32_t type, float *kl, float *neg_entropy, float *assignment, float *cluster_kl, float *statistics,
    void *workspace, int32_t n_threads, int32_t isa, void *stream);

int32_t catvae_mixture_kl_forward_f64(
    int64_t N, int64_t K, int64_t D,
    const void *m, const void *v, const double *E, const double *F, const double *prior, const void *logits, const double *weight,
    int32_t type, double *kl, double *neg_entropy, double *assignment, double *cluster_kl, double *statistics,
    void *workspace, int32_t n_threads, int32_t isa, void *stream);

/* Backward: gradients of  g_kl * kl + g_neg_entropy * neg_entropy  (each a pointer to one number, or NULL for 0), from the inputs and
 * the outputs of forward. dm, dv (N, D), dlogits (N, K) are of the type of m, v, logits; dE, dF (K, D). */
int32_t catvae_mixture_kl_backward_f32(
    int64_t N, int64_t K, int64_t D,
    const void *m, const void *v, const float *E, const float *F, const float *prior, const void *logits, const float *weight,
    int32_t type, const float *assignment, const float *cluster_kl, const float *statistics,
    const float *g_kl, const float *g_neg_entropy,
    void *dm, void *dv, float *dE, float *dF, void *dlogits,
    void *workspace, int32_t n_threads, int32_t isa, void *stream);

int32_t catvae_mixture_kl_backward_f64(
    int64_t N, int64_t K, int64_t D,
    const void *m, const void *v, const double *E, const double *F, const double *prior, const void *logits, const double *weight,
    int32_t type, const double *assignment, const double *cluster_kl, const double *statistics,
    const double *g_kl, const double *g_neg_entropy,
    void *dm, void *dv, double *dE, double *dF, void *dlogits,
    void *workspace, int32_t n_threads, int32_t isa, void *stream);

/* The dense form: mu, lv, dmu, dlv (N, K, D); the rest as above. */
int32_t catvae_dense_kl_forward_f32(
    int64_t N, int64_t K, int64_t D, const void *mu, const void *lv, const float *prior, const void *logits, const float *weight,
    int32_t type, float *kl, float *neg_entropy, float *assignment, float *cluster_kl, float *statistics,
    void *workspace, int32_t n_threads, int32_t isa, void *stream);

int32_t catvae_dense_kl_forward_f64(
    int64_t N, int64_t K, int64_t D, const void *mu, const void *lv, const double *prior, const void *logits, const double *weight,
    int32_t type, double *kl, double *neg_entropy, double *assignment, double *cluster_kl, double *statistics,
    void *workspace, int32_t n_threads, int32_t isa, void *stream);

int32_t catvae_dense_kl_backward_f32(
    int64_t N, int64_t K, int64_t D, const void *mu, const void *lv, const float *prior, const void *logits, const float *weight,
    int32_t type, const float *assignment, const float *cluster_kl, const float *statistics,
    const float *g_kl, const float *g_neg_entropy, void *dmu, void *dlv, void *dlogits,
    void *workspace, int32_t n_threads, int32_t isa, void *stream);

int32_t catvae_dense_kl_backward_f64(
    int64_t N, int64_t K, int64_t D, const void *mu, const void *lv, const double *prior, const void *logits, const double *weight,
    int32_t type, const double *assignment, const double *cluster_kl, const double *statistics,
    const double *g_kl, const double *g_neg_entropy, void *dmu, void *dlv, void *dlogits,
    void *workspace, int32_t n_threads, int32_t isa, void *stream);

/* y = function(x) as the float kernels compute it, for tests of its error bound. function: 0 exp, 1 expm1, 2 expm1(x) - x, 3 log. */
int32_t catvae_elementary_f32(int32_t function, int64_t n, const float *x, float *y, int32_t isa, void *stream);

/* cdef: end */

#ifdef __GNUC__
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif

/* Types of m, v and logits. */
#define CATVAE_SAME 0
#define CATVAE_F16 1
#define CATVAE_BF16 2

/* Status codes. */
#define CATVAE_OK 0
#define CATVAE_BAD_SIZE (-1)
#define CATVAE_NULL_POINTER (-2)
#define CATVAE_BAD_THREADS (-3)
#define CATVAE_BAD_ISA (-4)
#define CATVAE_BAD_TYPE (-5)

#endif
