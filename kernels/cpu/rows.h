/* What happens to the clusters of a sample once their KL is known: soft assignment, sums, and the gradient of the logits.
 *
 * Shared by the factorised and the dense loss. Forward, a lane is a sample, so that no reduction runs across a register; backward, every
 * sum over clusters is already known (`statistics`) and the work is elementwise.
 */

/* Statistics of each sample kept for backward, (3, N):  max_k logits;  log sum_k exp(logits - max) + sum_k a log a;  sum_k a KL.
 * The first two stay apart: logits of 1e4 minus their rounded sum would lose the digits that decide log a. */

#define CLUSTERS 64 /* of a partial sum: one chain of additions over thousands of clusters would lose the digits of each */

/* `logits`, `kl` and scratch for `exponentials` are (K, GROUP) lanes; on exit `logits` holds a. Adds w sum_k a KL and w sum_k a log a to `sums`. */
INLINE void FN(assign)(int64_t K, REAL *logits, REAL *exponentials, const REAL *kl, const REAL *weight, int64_t valid, int64_t N, REAL *statistics,
                       double *sums)
{
    for (int64_t h = 0; h < GROUP && h < valid; h += LANES) {
        V top = FN(load)(logits + h);
        for (int64_t k = 1; k < K; ++k) {
            const V x = FN(load)(logits + k * GROUP + h);
            top = FN(select)(x > top, x, top); /* a NaN may be passed over here: its own exponential brings it back */
        }
        V mass = {0};
        for (int64_t first = 0; first < K; first += CLUSTERS) {
            const int64_t end = K - first < CLUSTERS ? K : first + CLUSTERS;
            V part = {0};
            for (int64_t k = first; k < end; ++k) {
                const V shifted = FN(load)(logits + k * GROUP + h) - top, e = FN(exp)(shifted);
                FN(store)(logits + k * GROUP + h, shifted);
                FN(store)(exponentials + k * GROUP + h, e);
                part += e;
            }
            mass += part;
        }
        const V log_mass = FN(log)(mass), inverse = 1 / mass;
        V mean_kl = {0}, neg_entropy = {0};
        for (int64_t first = 0; first < K; first += CLUSTERS) {
            const int64_t end = K - first < CLUSTERS ? K : first + CLUSTERS;
            V part_kl = {0}, part_entropy = {0};
            for (int64_t k = first; k < end; ++k) {
                const V shifted = FN(load)(logits + k * GROUP + h), a = FN(load)(exponentials + k * GROUP + h) * inverse;
                const VI empty = a == 0; /* 0 log 0 and 0 * inf are 0 here: such a cluster has no share in the sample */
                part_kl += FN(select)(empty, (V){0}, a * FN(load)(kl + k * GROUP + h));
                part_entropy += FN(select)(empty, (V){0}, a * (shifted - log_mass));
                FN(store)(logits + k * GROUP + h, a);
            }
            mean_kl += part_kl;
            neg_entropy += part_entropy;
        }
        const int64_t here = valid - h < LANES ? valid - h : LANES;
        FN(store_part)(statistics + h, top, here);
        FN(store_part)(statistics + N + h, log_mass + neg_entropy, here);
        FN(store_part)(statistics + 2 * N + h, mean_kl, here);
        for (int64_t j = 0; j < here; ++j) {
            const double w = weight ? (double)weight[h + j] : 1;
            if (w == 0) continue; /* a masked sample, whose divergence may be infinite */
            sums[0] += w * (double)mean_kl[j];
            sums[1] += w * (double)neg_entropy[j];
        }
    }
}

/* One sample: shares = g1 w a, and dlogits = w a (g1 (KL - sum a KL) + g2 (log a - sum a log a)). */
INLINE void FN(logit_gradient)(int64_t K, REAL w, REAL g1, REAL g2, const REAL *a_row, const REAL *kl_row, const REAL *logits_row,
                               const REAL *statistics, int64_t N, REAL *shares, REAL *dlogits)
{
    const REAL top = statistics[0], rest = statistics[N], mean_kl = statistics[2 * N];
    for (int64_t k = 0; k < K; k += LANES) {
        const int64_t here = K - k;
        const V a = FN(load_part)(a_row + k, here), share = a * (g1 * w);
        const V log_part = (FN(load_part)(logits_row + k, here) - top) - rest, kl_part = FN(load_part)(kl_row + k, here) - mean_kl;
        FN(store_part)(shares + k, share, here);
        const V from_kl = FN(select)(share == 0, (V){0}, share * kl_part), from_entropy = a * (g2 * w) * log_part;
        FN(store_part)(dlogits + k, FN(select)(a == 0, (V){0}, from_kl + from_entropy), here);
    }
}
