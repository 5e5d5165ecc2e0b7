/* Forward pass of the factorised loss: KL of every sample to every cluster, assignment and the two sums.
 *
 *   2 KL_nk = sum_d (m^2 + gap(v))  +  sum_d (C^2 + gap(F))  +  sum_d (2 m C + expm1(v) expm1(F))          gap(x) = expm1(x) - x
 *
 * which is exp(v + F) - (1 + v + F) and (m + C)^2 multiplied out, without the ones: near the prior they would be all there is, and cancel.
 * A lane is a sample: GROUP samples are transposed once, and the last sum runs in register tiles of TILE clusters by GROUP samples.
 * Digits are lost where the first two sums, neither of which is negative, are large beside what remains of them; `recheck` computes those
 * entries from m + E - prior and v + F. Long sums begin anew: of equal terms, one chain would lose digits.
 */

#define RECHECK 4 /* the first two sums may exceed 2 KL this many times: two bits at most are lost */
#define FRESH 32  /* additions after which the sum of a sample's or a cluster's own terms begins anew */

/* acc (R, GROUP) += sum_d 2 C_kd m_d + expm1(F)_kd expm1(v)_d for R clusters packed as (D, 2, R). */
INLINE void FN(tile_kl)(const int R, int64_t D, const REAL *packed, const REAL *m, const REAL *growth, V *acc)
{
    for (int64_t d = 0; d < D; ++d) {
        V m0 = FN(load)(m + d * GROUP), m1 = FN(load)(m + d * GROUP + LANES);
        KEEP(m0);
        KEEP(m1);
#pragma GCC unroll 12
        for (int i = 0; i < R; ++i) {
            const V C = FN(splat)(packed[d * 2 * R + i]);
            ADD_PRODUCT(acc[2 * i], C, m0);
            ADD_PRODUCT(acc[2 * i + 1], C, m1);
        }
        V e0 = FN(load)(growth + d * GROUP), e1 = FN(load)(growth + d * GROUP + LANES);
        KEEP(e0);
        KEEP(e1);
#pragma GCC unroll 12
        for (int i = 0; i < R; ++i) {
            const V g = FN(splat)(packed[d * 2 * R + R + i]);
            ADD_PRODUCT(acc[2 * i], g, e0);
            ADD_PRODUCT(acc[2 * i + 1], g, e1);
        }
    }
}

/* KL (R, GROUP) over dimensions d .. d + depth: sums until the last block of dimensions turns them into KL. */
INLINE void FN(kl_tile)(const int R, int64_t d, int64_t depth, int64_t D, const REAL *packed, const REAL *m, const REAL *growth,
                        const V *base, const REAL *cluster, REAL *kl)
{
    V acc[2 * TILE];
#pragma GCC unroll 24
    for (int i = 0; i < 2 * R; ++i) acc[i] = (V){0};
    FN(tile_kl)(R, depth, packed + d * 2 * R, m + d * GROUP, growth + d * GROUP, acc);
    const int first = d == 0, last = d + depth == D;
#pragma GCC unroll 24
    for (int i = 0; i < 2 * R; ++i) {
        const V sum = first ? acc[i] : acc[i] + FN(load)(kl + i * LANES);
        FN(store)(kl + i * LANES, last ? (sum + (base[i % 2] + cluster[i / 2])) * (REAL)0.5 : sum);
    }
}

/* The largest tile, the one that matters: in a function of its own, where gcc 12 finds a register for each of its sums. */
static __attribute__((noinline)) void FN(kl_full_tile)(int64_t d, int64_t depth, int64_t D, const REAL *packed, const REAL *m,
                                                       const REAL *growth, const V *base, const REAL *cluster, REAL *kl)
{
    FN(kl_tile)(TILE, d, depth, D, packed, m, growth, base, cluster, kl);
}

/* Clusters of the register tile that starts at k. */
INLINE int64_t FN(tile_size)(const Plan *p, int64_t k) { return p->Kp - k >= TILE ? TILE : p->Kp - k >= 4 ? 4 : 2; }

/* KL (K, GROUP) of each group of a chunk, from the samples' own sums and the clusters'. A block of dimensions of a group stays in the L1
 * cache while all clusters pass over it. */
static void FN(chunk_kl)(const Plan *p, int64_t groups, const REAL *packed, const REAL *cluster, const REAL *m, const REAL *growth,
                         const V *base, REAL *kl)
{
    const int64_t block = block_size(p->D);
    for (int64_t d = 0; d < p->D; d += block) {
        const int64_t depth = p->D - d < block ? p->D - d : block;
        for (int64_t g = 0; g < groups; ++g) {
            const REAL *mg = m + g * p->D * GROUP, *eg = growth + g * p->D * GROUP;
            for (int64_t k = 0; k < p->Kp;) {
                const int64_t size = FN(tile_size)(p, k);
                const REAL *panel = packed + k * 2 * p->D;
                REAL *out = kl + (g * p->Kp + k) * GROUP;
                if (size == TILE) FN(kl_full_tile)(d, depth, p->D, panel, mg, eg, base + 2 * g, cluster + k, out);
                else if (size == 4) FN(kl_tile)(4, d, depth, p->D, panel, mg, eg, base + 2 * g, cluster + k, out);
                else FN(kl_tile)(2, d, depth, p->D, panel, mg, eg, base + 2 * g, cluster + k, out);
                k += size;
            }
        }
    }
}

/* The KL of one sample to one cluster with every difference squared on its own. */
static REAL FN(direct_kl)(int64_t D, const REAL *m, const REAL *v, const REAL *E, const REAL *F, const REAL *prior)
{
    V total = {0};
    for (int64_t d = 0; d < D; d += LANES) {
        /* m + E first: where the modes are far from the origin, this sum is the one that cancels exactly. */
        const V shift = FN(load_part)(m + d, D - d) + FN(load_part)(E + d, D - d) - FN(load_part)(prior + d, D - d);
        V gap;
        FN(expm1)(FN(load_part)(v + d, D - d) + FN(load_part)(F + d, D - d), &gap);
        total += shift * shift + gap;
    }
    return FN(sum)(total) * (REAL)0.5;
}

/* Whether any KL of a group has lost digits, or is no number. */
INLINE int FN(any_lost)(const Plan *p, const V *base, const REAL *cluster, const REAL *kl)
{
    VI lost = {0};
    for (int64_t k = 0; k < p->K; ++k)
        for (int64_t h = 0; h < 2; ++h)
            lost |= ~(base[h] + cluster[k] <= FN(load)(kl + k * GROUP + h * LANES) * (REAL)(2 * RECHECK));
    INTEGER any = 0;
    for (int64_t j = 0; j < LANES; ++j) any |= lost[j];
    return any != 0;
}

static void FN(recheck)(const Plan *p, int64_t valid, const REAL *base, const REAL *cluster, const REAL *m, const REAL *v, const REAL *E,
                        const REAL *F, const REAL *prior, REAL *kl)
{
    const int64_t D = p->D;
    for (int64_t j = 0; j < valid; ++j)
        for (int64_t k = 0; k < p->K; ++k) {
            REAL *here = kl + k * GROUP + j;
            if (!(base[j] + cluster[k] <= *here * (2 * RECHECK)))
                *here = FN(direct_kl)(D, m + j * D, v + j * D, E + k * D, F + k * D, prior + k * D);
        }
}

/* Clusters k .. k + size as (D, 2, size) of 2 C and expm1(F), and their own sums; zeros for the cluster that pads an odd K. */
static void FN(pack_tile)(const Plan *p, int64_t k, const REAL *E, const REAL *F, const REAL *prior, REAL *packed, REAL *cluster)
{
    const int64_t size = FN(tile_size)(p, k), D = p->D;
    REAL *panel = packed + k * 2 * D;
    for (int64_t i = 0; i < size; i += LANES) { /* as many clusters as a vector has lanes */
        const int64_t real = p->K - k - i, width = size - i;
        V total[LANES], part[LANES];
        for (int64_t l = 0; l < LANES; ++l) total[l] = part[l] = (V){0};
        for (int64_t d = 0; d < D; d += LANES) {
            V C[LANES], growth[LANES];
            for (int64_t l = 0; l < LANES; ++l) {
                C[l] = growth[l] = (V){0};
                if (l >= width || l >= real) continue;
                const int64_t at = (k + i + l) * D + d;
                V gap;
                FETCH(E, (at + 4 * LANES) * (int64_t)sizeof(REAL)); /* more streams than a processor follows on its own */
                FETCH(F, (at + 4 * LANES) * (int64_t)sizeof(REAL));
                FETCH(prior, (at + 4 * LANES) * (int64_t)sizeof(REAL));
                C[l] = FN(load_part)(E + at, D - d) - FN(load_part)(prior + at, D - d);
                growth[l] = FN(expm1)(FN(load_part)(F + at, D - d), &gap);
                part[l] += C[l] * C[l] + gap;
                C[l] += C[l];
                if (d / LANES % FRESH == FRESH - 1 || d + LANES >= D) {
                    total[l] += part[l];
                    part[l] = (V){0};
                }
            }
            FN(transpose)(C);
            FN(transpose)(growth);
            for (int64_t j = 0; j < LANES && d + j < D; ++j) {
                FN(store_part)(panel + (d + j) * 2 * size + i, C[j], width);
                FN(store_part)(panel + (d + j) * 2 * size + size + i, growth[j], width);
            }
        }
        for (int64_t l = 0; l < LANES && l < width; ++l) cluster[k + i + l] = FN(sum)(total[l]);
    }
}

static void FN(forward_chunk)(const Plan *p, int64_t begin, const REAL *packed, const REAL *cluster, const REAL *m, const REAL *v,
                              const REAL *E, const REAL *F, const REAL *prior, const REAL *logits, const REAL *weight,
                              REAL *scratch, double *sums, REAL *assignment, REAL *cluster_kl, REAL *statistics)
{
    const int64_t K = p->K, D = p->D, rows = p->N - begin < p->chunk ? p->N - begin : p->chunk;
    REAL *mt = scratch, *growth = mt + D * p->chunk, *kl = growth + D * p->chunk, *a = kl + p->Kp * p->chunk;
    V base[2 * LARGE_CHUNK / GROUP];
    for (int64_t g = 0; g < rows; g += GROUP) {
        const int64_t valid = rows - g < GROUP ? rows - g : GROUP;
        REAL *mg = mt + g * D, *eg = growth + g * D;
        FN(rows_to_lanes)(m + g * D, valid, D, mg);
        FN(rows_to_lanes)(v + g * D, valid, D, eg);
        for (int64_t h = 0; h < 2; ++h) {
            V total = {0}, part = {0};
            for (int64_t d = 0; d < D; ++d) {
                V gap;
                const V x = FN(load)(mg + d * GROUP + h * LANES);
                FN(store)(eg + d * GROUP + h * LANES, FN(expm1)(FN(load)(eg + d * GROUP + h * LANES), &gap));
                part += x * x + gap;
                if (d % FRESH == FRESH - 1 || d + 1 == D) {
                    total += part;
                    part = (V){0};
                }
            }
            base[2 * g / GROUP + h] = total;
        }
    }
    FN(chunk_kl)(p, (rows + GROUP - 1) / GROUP, packed, cluster, mt, growth, base, kl);
    sums[0] = sums[1] = 0;
    for (int64_t g = 0; g < rows; g += GROUP) {
        const int64_t valid = rows - g < GROUP ? rows - g : GROUP, n = begin + g;
        const V *base_g = base + 2 * g / GROUP;
        REAL *kl_g = kl + g * p->Kp;
        if (FN(any_lost)(p, base_g, cluster, kl_g))
            FN(recheck)(p, valid, (const REAL *)base_g, cluster, m + g * D, v + g * D, E, F, prior, kl_g);
        FN(rows_to_lanes)(logits + g * K, valid, K, a);
        FN(assign)(K, a, a + K * GROUP, kl_g, weight ? weight + n : NULL, valid, p->N, statistics + n, sums);
        FN(lanes_to_rows)(a, valid, K, assignment + n * K);
        FN(lanes_to_rows)(kl_g, valid, K, cluster_kl + n * K);
    }
}

static void FN(mixture_kl_forward)(const Plan *p, const void *m, const void *v, const REAL *E, const REAL *F, const REAL *prior,
                                   const void *logits, const REAL *weight, int32_t type, REAL *kl, REAL *neg_entropy,
                                   REAL *assignment, REAL *cluster_kl, REAL *statistics, char *workspace)
{
    const int64_t K = p->K, D = p->D;
    REAL *packed = (REAL *)(workspace + p->packed), *cluster = (REAL *)(workspace + p->per_cluster);
    double *partial = (double *)(workspace + p->partial_sums);
#pragma omp parallel num_threads(p->threads) if (p->threads > 1)
    {
#pragma omp for schedule(static)
        for (int64_t tile = 0; tile < (p->Kp + TILE - 1) / TILE; ++tile)
            for (int64_t k = tile * TILE; k < p->Kp && k < (tile + 1) * TILE; k += FN(tile_size)(p, k))
                FN(pack_tile)(p, k, E, F, prior, packed, cluster);
        REAL *scratch = (REAL *)(workspace + p->per_thread + thread_index() * p->per_thread_bytes);
#pragma omp for schedule(static)
        for (int64_t c = 0; c < p->n_chunks; ++c) {
            const int64_t begin = c * p->chunk, rows = p->N - begin < p->chunk ? p->N - begin : p->chunk;
            REAL *staged = scratch + 2 * (D + p->Kp) * p->chunk;
            const REAL *m_rows = FN(stage)(m, type, begin * D, rows * D, staged);
            const REAL *v_rows = FN(stage)(v, type, begin * D, rows * D, staged + p->chunk * D);
            const REAL *logit_rows = FN(stage)(logits, type, begin * K, rows * K, staged + 2 * p->chunk * D);
            FN(forward_chunk)(p, begin, packed, cluster, m_rows, v_rows, E, F, prior, logit_rows, weight, scratch,
                              partial + 2 * c, assignment, cluster_kl, statistics);
        }
    }
    FN(total)(p->n_chunks, partial, kl, neg_entropy);
}
