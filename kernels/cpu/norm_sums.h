/* What batch norm computes once a channel, for every instruction set alike: blocks added up in their order, in double, and the constants
 * that its passes over the positions use (norm.h). */
#ifndef CATVAE_NORM_SUMS_H
#define CATVAE_NORM_SUMS_H
#include "plan.h"
#include <math.h>

#define NORM_ROWS 256                    /* positions of a block: 16 KB of 32 channels in bfloat16, half of the L1 cache */
#define NORM_CHANNELS 16                 /* C is a multiple: of the lanes of any instruction set; CHANNELS in ops/norm.py */
#define SERIAL_NORM (INT64_C(1) << 17)   /* N*C under which waking a second thread costs more than it saves */

typedef struct {
    float *partial;   /* (blocks, 2, C) */
    float *constants; /* (5, C), see NormBlock */
    double *sums;     /* (2, C) */
} NormSpace;

static inline int64_t norm_blocks(int64_t N) { return (N + NORM_ROWS - 1) / NORM_ROWS; }

static inline int32_t norm_threads(int64_t N, int64_t C, int32_t n_threads)
{
    if (N * C < SERIAL_NORM) return 1;
    return n_threads < norm_blocks(N) ? n_threads : (int32_t)norm_blocks(N);
}

static inline int64_t norm_bytes(int64_t N, int64_t C)
{
    return 2 * C * (int64_t)sizeof(double) + (2 * norm_blocks(N) + 5) * C * (int64_t)sizeof(float) + ALIGNMENT;
}

static inline NormSpace norm_space(int64_t C, char *workspace)
{
    NormSpace s = {.sums = (double *)workspace};
    s.constants = (float *)(s.sums + 2 * C);
    s.partial = s.constants + 5 * C;
    return s;
}

static inline double rows_of(int64_t N, int64_t block) { return (double)(N - block * NORM_ROWS < NORM_ROWS ? N - block * NORM_ROWS : NORM_ROWS); }

static void norm_combine_moments(int64_t N, int64_t C, const NormSpace *s, float *statistics)
{
    double *mean = s->sums, *square = s->sums + C;
    for (int64_t c = 0; c < 2 * C; ++c) s->sums[c] = 0;
    for (int64_t b = 0; b < norm_blocks(N); ++b)
        for (int64_t c = 0; c < C; ++c) mean[c] += rows_of(N, b) * (double)s->partial[2 * b * C + c];
    for (int64_t c = 0; c < C; ++c) mean[c] /= (double)N;
    for (int64_t b = 0; b < norm_blocks(N); ++b)
        for (int64_t c = 0; c < C; ++c) {
            const double apart = (double)s->partial[2 * b * C + c] - mean[c];
            square[c] += (double)s->partial[(2 * b + 1) * C + c] + rows_of(N, b) * apart * apart;
        }
    for (int64_t c = 0; c < C; ++c) {
        statistics[c] = (float)mean[c];
        statistics[C + c] = square[c] < 0 ? 0 : (float)(square[c] / (double)N); /* rounding alone makes it negative */
    }
}

/* 1 / sqrt(variance + eps), and 0 where all values are one and eps is 0: y is max(0, beta) then. */
static inline double inverse_deviation(double variance, double eps) { return variance + eps > 0 ? 1 / sqrt(variance + eps) : variance + eps; }

static void norm_constants(int64_t C, const float *gamma, const float *beta, double eps, const float *statistics, const NormSpace *s)
{
    for (int64_t c = 0; c < C; ++c) {
        s->constants[c] = statistics[c];
        s->constants[C + c] = (float)((double)gamma[c] * inverse_deviation((double)statistics[C + c], eps));
        s->constants[2 * C + c] = beta[c];
    }
}

static void norm_combine_gradients(int64_t N, int64_t C, double eps, const float *statistics, const NormSpace *s, float *dgamma,
                                   float *dbeta)
{
    for (int64_t c = 0; c < 2 * C; ++c) s->sums[c] = 0;
    for (int64_t b = 0; b < norm_blocks(N); ++b)
        for (int64_t c = 0; c < 2 * C; ++c) s->sums[c] += (double)s->partial[2 * b * C + c];
    for (int64_t c = 0; c < C; ++c) {
        const double inverse = inverse_deviation((double)statistics[C + c], eps), moment = s->sums[C + c] * inverse;
        dbeta[c] = (float)s->sums[c];
        dgamma[c] = (float)moment;
        s->constants[3 * C + c] = (float)(s->sums[c] / (double)N);
        s->constants[4 * C + c] = (float)(moment * inverse / (double)N);
    }
}

#endif
