/* What batch norm computes once a channel, for every instruction set alike: blocks added up in their order, in double, and the constants
 * that its passes over the positions use (norm.h). */
#ifndef CATVAE_NORM_SUMS_H
#define CATVAE_NORM_SUMS_H
#include "plan.h"
#include <math.h>

#define ROWS 256                         /* positions of a block: 16 KB of 32 channels in bfloat16, half of the L1 cache */
#define CHANNELS 16                      /* C is a multiple: of the lanes of any instruction set */
#define SERIAL_NORM (INT64_C(1) << 17)   /* N*C under which waking a second thread costs more than it saves */

typedef struct {
    float *partial;   /* (blocks, 2, C) */
    float *constants; /* (5, C), see NormBlock */
    double *sums;     /* (2, C) */
} NormSpace;

static inline int64_t norm_blocks(int64_t N) { return (N + ROWS - 1) / ROWS; }

static inline int64_t norm_bytes(int64_t N, int64_t C)
{
    return 2 * C * (int64_t)sizeof(double) + (2 * norm_blocks(N) + 5) * C * (int64_t)sizeof(float) + ALIGNMENT;
}

static inline NormSpace norm_space(int64_t N, int64_t C, char *workspace)
{
    NormSpace s = {.sums = (double *)workspace};
    s.constants = (float *)(s.sums + 2 * C);
    s.partial = s.constants + 5 * C;
    (void)N;
    return s;
}

static inline double rows_of(int64_t N, int64_t block) { return (double)(N - block * ROWS < ROWS ? N - block * ROWS : ROWS); }

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

static void norm_constants(int64_t C, const float *gamma, const float *beta, double eps, const float *statistics, const NormSpace *s)
{
    for (int64_t c = 0; c < C; ++c) {
        s->constants[c] = statistics[c];
        s->constants[C + c] = (float)((double)gamma[c] / sqrt((double)statistics[C + c] + eps));
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
        const double spread = (double)statistics[C + c] + eps, moment = s->sums[C + c];
        dbeta[c] = (float)s->sums[c];
        dgamma[c] = (float)(moment / sqrt(spread));
        s->constants[3 * C + c] = (float)(s->sums[c] / (double)N);
        s->constants[4 * C + c] = (float)(moment / (spread * (double)N));
    }
}

#endif
