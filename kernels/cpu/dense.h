/* The same loss for encoders whose posteriors do not factorise: mean and log-variance (N, K, D) of their own for every cluster.
 *
 *   2 KL_nk = sum_d (mu - prior)^2 + (expm1(lv) - lv)         dmu = g1 w a (mu - prior)         dlv = g1 w a expm1(lv) / 2
 *
 * expm1, not exp(lv) - 1: near the prior the difference would be all rounding. Bound by reading N*K*D numbers twice: no tiles here.
 */

/* 2 KL of one posterior, spread over the lanes. */
INLINE V FN(posterior_total)(int64_t D, const REAL *mu, const REAL *lv, const REAL *prior)
{
    V total = {0};
    for (int64_t d = 0; d < D; d += LANES) {
        V gap;
        AHEAD(mu + d);
        AHEAD(lv + d);
        FN(expm1)(FN(load_part)(lv + d, D - d), &gap);
        const V shift = FN(load_part)(mu + d, D - d) - FN(load_part)(prior + d, D - d);
        total += shift * shift + gap;
    }
    return total;
}

static void FN(dense_forward_chunk)(const Plan *p, int64_t begin, const void *mu, const void *lv, const REAL *prior, const void *logits,
                                    const REAL *weight, int32_t type, REAL *scratch, double *sums, REAL *assignment, REAL *cluster_kl,
                                    REAL *statistics)
{
    const int64_t K = p->K, D = p->D, rows = p->N - begin < p->chunk ? p->N - begin : p->chunk;
    REAL *kl = scratch, *a = kl + p->Kp * GROUP, *staged = a + 2 * p->Kp * GROUP;
    /* LANES posteriors at a time: their totals are transposed and added, instead of each across its register. */
    for (int64_t i = begin * K, k = 0, end = (begin + rows) * K; i < end; i += LANES) {
        const int64_t here = end - i < LANES ? end - i : LANES;
        V totals[LANES];
        for (int64_t j = 0; j < here; ++j) {
            totals[j] = FN(posterior_total)(D, FN(stage)(mu, type, (i + j) * D, D, staged), FN(stage)(lv, type, (i + j) * D, D, staged + D),
                                            prior + k * D);
            if (++k == K) k = 0;
        }
        for (int64_t j = here; j < LANES; ++j) totals[j] = (V){0};
        FN(transpose)(totals);
        for (int64_t w = LANES / 2; w > 0; w /= 2)
            for (int64_t j = 0; j < w; ++j) totals[j] += totals[j + w];
        FN(store_part)(cluster_kl + i, totals[0] * (REAL)0.5, here);
    }
    sums[0] = sums[1] = 0;
    for (int64_t g = 0; g < rows; g += GROUP) {
        const int64_t valid = rows - g < GROUP ? rows - g : GROUP, n = begin + g;
        FN(rows_to_lanes)(cluster_kl + n * K, valid, K, kl);
        FN(rows_to_lanes)(FN(stage)(logits, type, n * K, valid * K, staged), valid, K, a);
        FN(assign)(K, a, a + K * GROUP, kl, weight ? weight + n : NULL, valid, p->N, statistics + n, sums);
        FN(lanes_to_rows)(a, valid, K, assignment + n * K);
    }
}

static void FN(dense_forward)(const Plan *p, const void *mu, const void *lv, const REAL *prior, const void *logits, const REAL *weight,
                              int32_t type, REAL *kl, REAL *neg_entropy, REAL *assignment, REAL *cluster_kl, REAL *statistics,
                              char *workspace)
{
    double *partial = (double *)(workspace + p->partial_sums);
#pragma omp parallel for schedule(static) num_threads(p->threads) if (p->threads > 1)
    for (int64_t c = 0; c < p->n_chunks; ++c) {
        REAL *scratch = (REAL *)(workspace + p->per_thread + thread_index() * p->per_thread_bytes);
        FN(dense_forward_chunk)(p, c * p->chunk, mu, lv, prior, logits, weight, type, scratch, partial + 2 * c, assignment, cluster_kl,
                                statistics);
    }
    FN(total)(p->n_chunks, partial, kl, neg_entropy);
}

/* Gradients of one posterior, D numbers each. What has no share has no gradient, though its growth be infinite. */
static void FN(posterior_gradient)(int64_t D, REAL share, const REAL *mu, const REAL *lv, const REAL *prior, REAL *dmu, REAL *dlv)
{
    for (int64_t d = 0; d < D; d += LANES) {
        V gap;
        AHEAD(mu + d);
        AHEAD(lv + d);
        const V growth = FN(expm1)(FN(load_part)(lv + d, D - d), &gap);
        const V shift = FN(load_part)(mu + d, D - d) - FN(load_part)(prior + d, D - d);
        FN(store_part)(dmu + d, share == 0 ? (V){0} : shift * share, D - d);
        FN(store_part)(dlv + d, share == 0 ? (V){0} : growth * (share * (REAL)0.5), D - d);
    }
}

/* One sample; a function of its own: clang compiles what stands in a parallel region itself for the plain processor. */
static void FN(dense_backward_row)(const Plan *p, int64_t n, const void *mu, const void *lv, const REAL *prior, const void *logits,
                                   const REAL *weight, int32_t type, const REAL *assignment, const REAL *cluster_kl, const REAL *statistics,
                                   REAL g1, REAL g2, void *dmu, void *dlv, void *dlogits, REAL *shares)
{
    const int64_t K = p->K, D = p->D;
    REAL *staged = shares + p->Kp, *outward = staged + 2 * D + K, *dlogit_row = FN(target)(dlogits, type, n * K, outward);
    FN(logit_gradient)(K, weight ? weight[n] : 1, g1, g2, assignment + n * K, cluster_kl + n * K,
                       FN(stage)(logits, type, n * K, K, staged), statistics + n, p->N, shares, dlogit_row);
    FN(unstage)(dlogit_row, type, n * K, K, dlogits);
    for (int64_t k = 0; k < K; ++k) {
        const int64_t at = (n * K + k) * D;
        const REAL *mu_row = FN(stage)(mu, type, at, D, staged), *lv_row = FN(stage)(lv, type, at, D, staged + D);
        REAL *dmu_row = FN(target)(dmu, type, at, outward), *dlv_row = FN(target)(dlv, type, at, outward + D);
        FN(posterior_gradient)(D, shares[k], mu_row, lv_row, prior + k * D, dmu_row, dlv_row);
        FN(unstage)(dmu_row, type, at, D, dmu);
        FN(unstage)(dlv_row, type, at, D, dlv);
    }
}

static void FN(dense_backward)(const Plan *p, const void *mu, const void *lv, const REAL *prior, const void *logits, const REAL *weight,
                               int32_t type, const REAL *assignment, const REAL *cluster_kl, const REAL *statistics, REAL g1, REAL g2,
                               void *dmu, void *dlv, void *dlogits, char *workspace)
{
#pragma omp parallel for schedule(static) num_threads(p->threads) if (p->threads > 1)
    for (int64_t n = 0; n < p->N; ++n) {
        REAL *shares = (REAL *)(workspace + p->per_thread + thread_index() * p->per_thread_bytes);
        FN(dense_backward_row)(p, n, mu, lv, prior, logits, weight, type, assignment, cluster_kl, statistics, g1, g2, dmu, dlv, dlogits,
                               shares);
    }
}
