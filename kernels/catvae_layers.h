/* What else training spends its time on, on the CPU alone (torch does it on a GPU): batch norm and dropout, each with the ReLU behind it
 * as one operation, the last step of a decoder, what the weights of convolutions learn by, and the likelihood of pixels
 * (benchmarks/layers.py).
 *
 * Batch norm makes three passes forward and five backward over what fits no cache, fewer than the two layers make apart:
 *   x, y (N, C)  row-major: N >= 1 positions (of all images) by C channels, a multiple of 16, N*C at most 2^40; float, or bfloat16 with
 *                the arithmetic in float
 *   mean, variance (C,)  over the N positions, the variance divided by N;  a = gamma / sqrt(variance + eps)
 *   y = max(0, (x - mean) a + beta)
 * Dropout makes one pass each way, and keeps nothing but y:
 *   x, y (n,)    n >= 0 elements, a multiple of 16 of at most 2^40, of the same types
 *   y = max(0, scale x), scale >= 1, or 0 where the random 32 bits of an element, a function of `seed` and of its place modulo 2^32, are
 *   less than `dropped`
 * The rules of catvae_kernels.h hold: the caller owns all memory, results are bit-identical for every n_threads, a status comes back.
 */
#ifndef CATVAE_LAYERS_H
#define CATVAE_LAYERS_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#ifdef __GNUC__
#pragma GCC visibility push(default)
#endif

/* cdef: begin */

/* Bytes of scratch of either call, a status if negative. */
int64_t catvae_norm_relu_workspace(int64_t N, int64_t C);

/* statistics (2, C): mean and variance, for backward and for running averages. type: 0 float, 2 bfloat16. */
int32_t catvae_norm_relu_forward(
    int64_t N, int64_t C, const void *x, int32_t type, const float *gamma, const float *beta, double eps,
    void *y, float *statistics, void *workspace, int32_t n_threads, int32_t isa);

/* From dy (N, C), of the type of x: dx (N, C), dgamma and dbeta (C,). */
int32_t catvae_norm_relu_backward(
    int64_t N, int64_t C, const void *x, const void *dy, int32_t type, const float *gamma, const float *beta, double eps,
    const float *statistics, void *dx, float *dgamma, float *dbeta, void *workspace, int32_t n_threads, int32_t isa);

int32_t catvae_dropout_relu_forward(
    int64_t n, const void *x, int32_t type, int64_t dropped, float scale, int64_t seed, void *y, int32_t n_threads, int32_t isa);

/* From dy and y: dx = scale dy where y is not 0. */
int32_t catvae_dropout_relu_backward(
    int64_t n, const void *dy, const void *y, int32_t type, float scale, void *dx, int32_t n_threads, int32_t isa);

/* A transposed 4x4 convolution of stride 2 and padding 1 adds up, with bias (C,), the patches (N, h, w, 4, 4, C) that a product made of its
 * positions: y (N, 2h, 2w, C), of the same type, gets patch (a, b) at rows 2a-1 and on, columns 2b-1 and on. 2 (w + 1) C is at most 8192. */
int32_t catvae_overlap_patches(
    int64_t N, int64_t h, int64_t w, int64_t C, const void *patches, int32_t type, const float *bias, void *y, int32_t n_threads, int32_t isa);

/* The other way round, what a convolution's weights learn by: out (N, h, w, k, k, C) gets the patches of x (N, H, W, C), k a side and every
 * `stride`, with `padding` zeros around x, bfloat16; h = (H + 2 padding - k) / stride + 1. k is at most 16, padding less than k. */
int32_t catvae_take_patches(
    int64_t N, int64_t H, int64_t W, int64_t C, int64_t k, int64_t stride, int64_t padding, const uint16_t *x, uint16_t *out,
    int32_t n_threads, int32_t isa);

/* Pixels are Bernoulli variables, logits (total,) all those of a batch, in one piece. The first n have a value, x (n,) from 0 to 1:
 *   nll = sum_i log(1 + exp(logits_i)) - x_i logits_i
 * and of the others the mean is asked for: images (total - n,) = 1 / (1 + exp(-logits)). type: of the logits. */
int64_t catvae_bernoulli_workspace(int64_t n);

int32_t catvae_bernoulli_forward(
    int64_t n, int64_t total, const void *logits, int32_t type, const float *x, float *nll, float *images, void *workspace,
    int32_t n_threads, int32_t isa);

/* dlogits (total,), of the type of logits, from upstream gradients: of nll, one number, and of images; NULL is zero. */
int32_t catvae_bernoulli_backward(
    int64_t n, int64_t total, const void *logits, int32_t type, const float *x, const float *g_nll, const float *g_images, void *dlogits,
    int32_t n_threads, int32_t isa);

/* cdef: end */

#ifdef __GNUC__
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif
#endif
