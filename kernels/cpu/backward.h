/* Backward pass of the factorised loss, given both upstream gradients. With s = g1 w a (N, K), C = E - prior, G = exp(F):
 *
 *   dm = g1 w m + s C         dv = (exp(v) (s G) - g1 w) / 2
 *   dE = s'm + C sum_n s      dF = (G (s'exp(v)) - sum_n s) / 2       dlogits: rows.h
 *
 * Both pairs of products run in register tiles of HALF rows by one panel (two vectors) of columns, on copies of C, G and of m, exp(v)
 * that lie panel after panel, so that every load is contiguous whatever D is. Nothing of N*K*D elements exists. Like every product form,
 * dm and dE carry an absolute error of the order of 1e-7 |m| where m and -C are large and nearly equal.
 */

#define PANEL (2 * LANES)
#define HALF (TILE / 2) /* two products at once, TILE * 2 sums in registers */

/* x, y (R, PANEL) += sum_j s_ij * (panel j, first half) and (second half), j < depth. Element s_ij is s[i * si + j * sj]. */
INLINE void FN(tile_pair)(const int R, int64_t depth, const REAL *s, int64_t si, int64_t sj, const REAL *panels, V *x, V *y)
{
    for (int64_t j = 0; j < depth; ++j) {
        const REAL *panel = panels + j * 2 * PANEL;
        V x0 = FN(load)(panel), x1 = FN(load)(panel + LANES), y0 = FN(load)(panel + PANEL), y1 = FN(load)(panel + PANEL + LANES);
        KEEP(x0);
        KEEP(x1);
        KEEP(y0);
        KEEP(y1);
#pragma GCC unroll 6
        for (int i = 0; i < R; ++i) {
            const V b = FN(splat)(s[i * si + j * sj]);
            x[2 * i] += b * x0;
            x[2 * i + 1] += b * x1;
            y[2 * i] += b * y0;
            y[2 * i + 1] += b * y1;
        }
    }
}

/* Rows of the register tile that handles the first of `left` rows. */
INLINE int64_t FN(half_tile)(int64_t left) { return left >= HALF ? HALF : left >= 4 ? 4 : left >= 2 ? 2 : 1; }

/* The sums (R, 2, PANEL) of a tile between two blocks of its depth: zero before the first one. */
INLINE void FN(load_sums)(const int R, int first, const REAL *sums, V *x, V *y)
{
#pragma GCC unroll 6
    for (int i = 0; i < R; ++i)
        for (int h = 0; h < 2; ++h) {
            x[2 * i + h] = first ? (V){0} : FN(load)(sums + i * 2 * PANEL + h * LANES);
            y[2 * i + h] = first ? (V){0} : FN(load)(sums + i * 2 * PANEL + PANEL + h * LANES);
        }
}
INLINE void FN(store_sums)(const int R, const V *x, const V *y, REAL *sums)
{
#pragma GCC unroll 6
    for (int i = 0; i < R; ++i)
        for (int h = 0; h < 2; ++h) {
            FN(store)(sums + i * 2 * PANEL + h * LANES, x[2 * i + h]);
            FN(store)(sums + i * 2 * PANEL + PANEL + h * LANES, y[2 * i + h]);
        }
}

/* dm, dv of R samples for one panel of columns, over clusters k .. k + depth; the last block of clusters writes them. */
INLINE void FN(sample_tile)(const int R, const Plan *p, int64_t k, int64_t depth, int64_t column, const REAL *shares, const REAL *packed,
                            REAL *sums, const REAL *sample_panel, const REAL *gw, REAL *dm, REAL *dv)
{
    V x[2 * R], y[2 * R];
    FN(load_sums)(R, k == 0, sums, x, y);
    FN(tile_pair)(R, depth, shares + k, p->K, 1, packed + k * 2 * PANEL, x, y);
    if (k + depth < p->K) {
        FN(store_sums)(R, x, y, sums);
        return;
    }
#pragma GCC unroll 6
    for (int i = 0; i < R; ++i)
        for (int h = 0; h < 2; ++h) {
            const int64_t c = column + h * LANES, left = p->D - c;
            if (left <= 0) continue;
            const V m = FN(load)(sample_panel + i * 2 * PANEL + h * LANES), ev = FN(load)(sample_panel + i * 2 * PANEL + PANEL + h * LANES);
            FN(store_part)(dm + i * p->D + c, m * gw[i] + x[2 * i + h], left);
            FN(store_part)(dv + i * p->D + c, (ev * y[2 * i + h] - gw[i]) * (REAL)0.5, left);
        }
}

/* Pieces of scratch of a call, as the tasks see them. */
typedef struct {
    REAL *packed, *samples, *shares, *share_sums, *partial;
} FN(Scratch);

/* dm, dv of a chunk, from its shares and its panels of m and exp(v). */
static void FN(chunk_samples)(const Plan *p, const FN(Scratch) * s, int64_t begin, int64_t rows, const REAL *gw, REAL *sums, REAL *dm,
                              REAL *dv)
{
    const REAL *shares = s->shares + begin * p->K;
    for (int64_t column = 0; column < p->D; column += PANEL) {
        const REAL *packed = s->packed + column * 2 * p->K, *samples = s->samples + (column * p->N + begin * PANEL) * 2;
        for (int64_t k = 0; k < p->K; k += BLOCK) {
            const int64_t depth = p->K - k < BLOCK ? p->K - k : BLOCK;
            for (int64_t i = 0; i < rows;) {
                const int64_t size = FN(half_tile)(rows - i), at = i * 2 * PANEL, out = i * p->D;
                const REAL *share = shares + i * p->K, *sample = samples + at;
                REAL *sum = sums + at;
                if (size == HALF) FN(sample_tile)(HALF, p, k, depth, column, share, packed, sum, sample, gw + i, dm + out, dv + out);
                else if (size == 4) FN(sample_tile)(4, p, k, depth, column, share, packed, sum, sample, gw + i, dm + out, dv + out);
                else if (size == 2) FN(sample_tile)(2, p, k, depth, column, share, packed, sum, sample, gw + i, dm + out, dv + out);
                else FN(sample_tile)(1, p, k, depth, column, share, packed, sum, sample, gw + i, dm + out, dv + out);
                i += size;
            }
        }
    }
}

/* Panels of m and exp(v), shares and dlogits, then dm and dv, of one chunk. */
static void FN(backward_chunk)(const Plan *p, const FN(Scratch) * s, int64_t begin, const REAL *m, const REAL *v, const REAL *logits,
                               const REAL *weight, const REAL *assignment, const REAL *cluster_kl, const REAL *statistics, REAL g1,
                               REAL g2, REAL *sums, REAL *dm, REAL *dv, REAL *dlogits)
{
    const int64_t K = p->K, D = p->D, rows = p->N - begin < CHUNK ? p->N - begin : CHUNK;
    REAL gw[CHUNK];
    for (int64_t column = 0; column < D; column += PANEL) {
        REAL *panel = s->samples + (column * p->N + begin * PANEL) * 2;
        for (int64_t i = 0; i < rows; ++i, panel += 2 * PANEL)
            for (int64_t c = 0; c < PANEL; c += LANES) {
                const int64_t left = D - column - c;
                const V x = left > 0 ? FN(load_part)(m + i * D + column + c, left) : (V){0};
                const V y = left > 0 ? FN(load_part)(v + i * D + column + c, left) : (V){0};
                FN(store)(panel + c, x);
                FN(store)(panel + PANEL + c, left > 0 ? FN(exp)(y) : y);
            }
    }
    REAL *share_sum = s->share_sums + begin / CHUNK * K;
    memset(share_sum, 0, (size_t)K * sizeof(REAL));
    for (int64_t i = 0; i < rows; ++i) {
        const int64_t n = begin + i;
        const REAL w = weight ? weight[n] : 1;
        REAL *share = s->shares + n * K;
        gw[i] = g1 * w;
        FN(logit_gradient)(K, w, g1, g2, assignment + n * K, cluster_kl + n * K, logits + i * K, statistics + n, p->N, share,
                           dlogits + i * K);
        for (int64_t k = 0; k < K; k += LANES)
            FN(store_part)(share_sum + k, FN(load_part)(share_sum + k, K - k) + FN(load_part)(share + k, K - k), K - k);
    }
    FN(chunk_samples)(p, s, begin, rows, gw, sums, dm, dv);
}

INLINE void FN(cluster_tile)(const int R, int64_t depth, int64_t K, const REAL *shares, const REAL *samples, int first, REAL *out)
{
    V x[2 * R], y[2 * R];
    FN(load_sums)(R, first, out, x, y);
    FN(tile_pair)(R, depth, shares, 1, K, samples, x, y);
    FN(store_sums)(R, x, y, out);
}

/* shares'm and shares'exp(v) of a slice of samples, for one panel of columns and one block of clusters. */
static void FN(cluster_task)(const Plan *p, const FN(Scratch) * s, int64_t slice, int64_t column, int64_t block)
{
    const int64_t K = p->K, begin = slice * p->slice, depth = p->N - begin < p->slice ? p->N - begin : p->slice;
    const int64_t end = (block + 1) * CLUSTER_BLOCK < K ? (block + 1) * CLUSTER_BLOCK : K;
    const REAL *samples = s->samples + (column * p->N + begin * PANEL) * 2, *shares = s->shares + begin * K;
    REAL *out = s->partial + (slice * p->Dp * K + column * K) * 2;
    for (int64_t n = 0; n < depth; n += BLOCK) {
        const int64_t here = depth - n < BLOCK ? depth - n : BLOCK;
        const REAL *sample = samples + n * 2 * PANEL;
        for (int64_t k = block * CLUSTER_BLOCK; k < end;) {
            const int64_t size = FN(half_tile)(end - k);
            const REAL *share = shares + n * K + k;
            REAL *to = out + k * 2 * PANEL;
            if (size == HALF) FN(cluster_tile)(HALF, here, K, share, sample, n == 0, to);
            else if (size == 4) FN(cluster_tile)(4, here, K, share, sample, n == 0, to);
            else if (size == 2) FN(cluster_tile)(2, here, K, share, sample, n == 0, to);
            else FN(cluster_tile)(1, here, K, share, sample, n == 0, to);
            k += size;
        }
    }
}

/* dE and dF of one cluster: slices and chunks are added in their order. */
static void FN(combine)(const Plan *p, const FN(Scratch) * s, int64_t k, REAL *dE, REAL *dF)
{
    REAL share = 0;
    for (int64_t c = 0; c < p->n_chunks; ++c) share += s->share_sums[c * p->K + k];
    for (int64_t column = 0; column < p->D; column += PANEL)
        for (int64_t c = 0; c < PANEL && column + c < p->D; c += LANES) {
            const REAL *at = s->packed + (column * p->K + k * PANEL) * 2 + c;
            V x = {0}, y = {0};
            for (int64_t slice = 0; slice < p->n_slices; ++slice) {
                const REAL *partial = s->partial + (slice * p->Dp * p->K + column * p->K + k * PANEL) * 2 + c;
                x += FN(load)(partial);
                y += FN(load)(partial + PANEL);
            }
            const int64_t out = k * p->D + column + c, left = p->D - column - c;
            FN(store_part)(dE + out, x + FN(load)(at) * share, left);
            FN(store_part)(dF + out, (FN(load)(at + PANEL) * y - share) * (REAL)0.5, left);
        }
}

/* C and G of one cluster into every panel, zero beyond D. */
static void FN(pack_cluster)(const Plan *p, int64_t k, const REAL *E, const REAL *F, const REAL *prior, REAL *packed)
{
    for (int64_t column = 0; column < p->D; column += PANEL)
        for (int64_t c = 0; c < PANEL; c += LANES) {
            REAL *at = packed + (column * p->K + k * PANEL) * 2 + c;
            const int64_t in = k * p->D + column + c, left = p->D - column - c;
            V C = {0}, G = {0};
            if (left > 0) {
                C = FN(load_part)(E + in, left) - FN(load_part)(prior + in, left);
                G = FN(exp)(FN(load_part)(F + in, left));
            }
            FN(store)(at, C);
            FN(store)(at + PANEL, G);
        }
}

static void FN(mixture_kl_backward)(const Plan *p, const void *m, const void *v, const REAL *E, const REAL *F, const REAL *prior,
                                    const void *logits, const REAL *weight, int32_t type, const REAL *assignment, const REAL *cluster_kl,
                                    const REAL *statistics, REAL g1, REAL g2, void *dm, void *dv, REAL *dE, REAL *dF, void *dlogits,
                                    char *workspace)
{
    const int64_t K = p->K, D = p->D, panels = (D + PANEL - 1) / PANEL, blocks = (K + CLUSTER_BLOCK - 1) / CLUSTER_BLOCK;
    const FN(Scratch) s = {(REAL *)(workspace + p->packed), (REAL *)(workspace + p->samples), (REAL *)(workspace + p->shares),
                           (REAL *)(workspace + p->share_sums), (REAL *)(workspace + p->partial)};
#pragma omp parallel num_threads(p->threads) if (p->threads > 1)
    {
#pragma omp for schedule(static)
        for (int64_t k = 0; k < K; ++k) FN(pack_cluster)(p, k, E, F, prior, s.packed);
        REAL *sums = (REAL *)(workspace + p->per_thread + thread_index() * p->per_thread_bytes), *staged = sums + CHUNK * 2 * PANEL;
        REAL *gradients = staged + CHUNK * (2 * D + K);
#pragma omp for schedule(dynamic, 1)
        for (int64_t c = 0; c < p->n_chunks; ++c) {
            const int64_t begin = c * CHUNK, rows = p->N - begin < CHUNK ? p->N - begin : CHUNK;
            const REAL *m_rows = FN(stage)(m, type, begin * D, rows * D, staged);
            const REAL *v_rows = FN(stage)(v, type, begin * D, rows * D, staged + CHUNK * D);
            const REAL *logit_rows = FN(stage)(logits, type, begin * K, rows * K, staged + 2 * CHUNK * D);
            REAL *dm_rows = FN(target)(dm, type, begin * D, gradients), *dv_rows = FN(target)(dv, type, begin * D, gradients + CHUNK * D);
            REAL *dlogit_rows = FN(target)(dlogits, type, begin * K, gradients + 2 * CHUNK * D);
            FN(backward_chunk)(p, &s, begin, m_rows, v_rows, logit_rows, weight, assignment, cluster_kl, statistics, g1, g2, sums, dm_rows,
                               dv_rows, dlogit_rows);
            FN(unstage)(dm_rows, type, begin * D, rows * D, dm);
            FN(unstage)(dv_rows, type, begin * D, rows * D, dv);
            FN(unstage)(dlogit_rows, type, begin * K, rows * K, dlogits);
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < p->n_slices * panels * blocks; ++task)
            FN(cluster_task)(p, &s, task / (panels * blocks), task / blocks % panels * PANEL, task % blocks);
#pragma omp for schedule(static)
        for (int64_t k = 0; k < K; ++k) FN(combine)(p, &s, k, dE, dF);
    }
}
