/* Backward pass of the factorised loss, given both upstream gradients. With s = g1 w a (N, K), C = E - prior, G = exp(F):
 *
 *   dm = g1 w m + s C         dv = (exp(v) (s G) - g1 w) / 2
 *   dE = s'm + C sum_n s      dF = (G (s'exp(v)) - sum_n s) / 2       dlogits: rows.h
 *
 * Both pairs of products run in register tiles of HALF rows by one panel (two vectors) of columns, on copies of C, G and of m, exp(v)
 * that lie panel after panel, so that every load is contiguous whatever D is. Nothing of N*K*D elements exists. Like every product form,
 * dm and dE carry an absolute error of the order of 1e-7 |m|, times the weights summed, where m and -C are large and nearly equal. exp(v)
 * and G must be finite: |v| and |F| up to 88 in float.
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
        if (TILE > 6) KEEP(y1);
#pragma GCC unroll 6
        for (int i = 0; i < R; ++i) {
            const V b = FN(splat)(s[i * si + j * sj]);
            ADD_PRODUCT(x[2 * i], b, x0);
            ADD_PRODUCT(x[2 * i + 1], b, x1);
            ADD_PRODUCT(y[2 * i], b, y0);
            ADD_PRODUCT(y[2 * i + 1], b, y1);
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

/* sums (R, 2, PANEL) += the products of one tile. */
INLINE void FN(sum_tile)(const int R, int first, int64_t depth, const REAL *s, int64_t si, int64_t sj, const REAL *panels, REAL *sums)
{
    V x[2 * R], y[2 * R];
    FN(load_sums)(R, first, sums, x, y);
    FN(tile_pair)(R, depth, s, si, sj, panels, x, y);
    FN(store_sums)(R, x, y, sums);
}

/* sums (rows, 2, PANEL) = products of `rows` rows of s with `depth` rows of panels, as many at a time as stay in the L1 cache. */
static void FN(sum_rows)(int64_t rows, int64_t depth, const REAL *s, int64_t si, int64_t sj, const REAL *panels, REAL *sums)
{
    const int64_t block = block_size(depth);
    for (int64_t j = 0; j < depth; j += block) {
        const int64_t here = depth - j < block ? depth - j : block;
        const REAL *panel = panels + j * 2 * PANEL;
        for (int64_t i = 0; i < rows;) {
            const int64_t size = FN(half_tile)(rows - i);
            const REAL *at = s + i * si + j * sj;
            REAL *to = sums + i * 2 * PANEL;
            if (size == HALF) FN(sum_tile)(HALF, j == 0, here, at, si, sj, panel, to);
            else if (size == 4) FN(sum_tile)(4, j == 0, here, at, si, sj, panel, to);
            else if (size == 2) FN(sum_tile)(2, j == 0, here, at, si, sj, panel, to);
            else FN(sum_tile)(1, j == 0, here, at, si, sj, panel, to);
            i += size;
        }
    }
}

/* Pieces of scratch of a call, as the tasks see them. */
typedef struct {
    REAL *packed, *samples, *shares, *share_sums, *partial;
} FN(Scratch);

/* Where the gradients of m and v go, and their scale g1 w for each sample of a chunk. */
typedef struct {
    void *dm, *dv;
    int32_t type;
    REAL scale[LARGE_CHUNK];
} FN(Target);

/* dm, dv of R samples for one panel of columns, straight from the registers; sums between blocks of clusters, but for the last one. */
INLINE void FN(sample_tile)(const int R, const Plan *p, int64_t k, int64_t depth, int64_t n, int64_t column, const REAL *shares,
                            const REAL *panels, const REAL *sample, REAL *sums, const FN(Target) * t, const REAL *scale)
{
    V x[2 * R], y[2 * R];
    FN(load_sums)(R, k == 0, sums, x, y);
    FN(tile_pair)(R, depth, shares + k, p->K, 1, panels + k * 2 * PANEL, x, y);
    if (k + depth < p->K) {
        FN(store_sums)(R, x, y, sums);
        return;
    }
#pragma GCC unroll 6
    for (int i = 0; i < R; ++i)
        for (int h = 0; h < 2; ++h) {
            const int64_t c = column + h * LANES, at = (n + i) * p->D + c, left = p->D - c;
            if (left <= 0) continue;
            const V m = FN(load)(sample + i * 2 * PANEL + h * LANES), ev = FN(load)(sample + i * 2 * PANEL + PANEL + h * LANES);
            FN(put_part)(t->dm, t->type, at, m * scale[i] + x[2 * i + h], left);
            FN(put_part)(t->dv, t->type, at, (ev * y[2 * i + h] - scale[i]) * (REAL)0.5, left);
        }
}

/* dm, dv of a chunk, from its shares and its panels of m and exp(v). */
static void FN(chunk_samples)(const Plan *p, const FN(Scratch) * s, int64_t begin, int64_t rows, const FN(Target) * t, REAL *sums)
{
    const int64_t K = p->K, block = block_size(K);
    for (int64_t column = 0; column < p->D; column += PANEL) {
        const REAL *panels = s->packed + column * 2 * K, *samples = s->samples + (column * p->N + begin * PANEL) * 2;
        for (int64_t k = 0; k < K; k += block) {
            const int64_t depth = K - k < block ? K - k : block;
            for (int64_t i = 0; i < rows;) {
                const int64_t size = FN(half_tile)(rows - i), n = begin + i;
                const REAL *share = s->shares + n * K, *sample = samples + i * 2 * PANEL, *scale = t->scale + i;
                REAL *sum = sums + i * 2 * PANEL;
                if (size == HALF) FN(sample_tile)(HALF, p, k, depth, n, column, share, panels, sample, sum, t, scale);
                else if (size == 4) FN(sample_tile)(4, p, k, depth, n, column, share, panels, sample, sum, t, scale);
                else if (size == 2) FN(sample_tile)(2, p, k, depth, n, column, share, panels, sample, sum, t, scale);
                else FN(sample_tile)(1, p, k, depth, n, column, share, panels, sample, sum, t, scale);
                i += size;
            }
        }
    }
}

/* Panels of m and exp(v), shares and dlogits of one chunk. */
static void FN(backward_chunk)(const Plan *p, const FN(Scratch) * s, int64_t chunk, const REAL *m, const REAL *v, const REAL *logits,
                               const REAL *weight, const REAL *assignment, const REAL *cluster_kl, const REAL *statistics, REAL g1,
                               REAL g2, REAL *dlogits)
{
    const int64_t K = p->K, D = p->D, begin = chunk * p->chunk, rows = p->N - begin < p->chunk ? p->N - begin : p->chunk;
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
    REAL *share_sum = s->share_sums + chunk * K;
    memset(share_sum, 0, (size_t)K * sizeof(REAL));
    for (int64_t i = 0; i < rows; ++i) {
        const int64_t n = begin + i;
        REAL *share = s->shares + n * K;
        FN(logit_gradient)(K, weight ? weight[n] : 1, g1, g2, assignment + n * K, cluster_kl + n * K, logits + i * K, statistics + n, p->N,
                           share, dlogits + i * K);
        for (int64_t k = 0; k < K; k += LANES)
            FN(store_part)(share_sum + k, FN(load_part)(share_sum + k, K - k) + FN(load_part)(share + k, K - k), K - k);
    }
}

/* dE and dF of clusters k .. k + count for one panel of columns. partial: (n_slices, ...), `stride` apart; slices and chunks are added in
 * their order. */
static void FN(combine)(const Plan *p, const FN(Scratch) * s, int64_t k, int64_t count, int64_t column, const REAL *partial, int64_t stride,
                        REAL *dE, REAL *dF)
{
    for (int64_t i = 0; i < count; ++i) {
        REAL share = 0;
        for (int64_t c = 0; c < p->n_chunks; ++c) share += s->share_sums[c * p->K + k + i];
        for (int64_t c = 0; c < PANEL && column + c < p->D; c += LANES) {
            V x = {0}, y = {0};
            for (int64_t slice = 0; slice < p->n_slices; ++slice) {
                const REAL *from = partial + slice * stride + i * 2 * PANEL + c;
                x += FN(load)(from);
                y += FN(load)(from + PANEL);
            }
            const REAL *packed = s->packed + (column * p->K + (k + i) * PANEL) * 2 + c;
            const int64_t out = (k + i) * p->D + column + c, left = p->D - column - c;
            FN(store_part)(dE + out, x + FN(load)(packed) * share, left);
            FN(store_part)(dF + out, (FN(load)(packed + PANEL) * y - share) * (REAL)0.5, left);
        }
    }
}

/* shares'm and shares'exp(v) of a slice of samples for one panel of columns and clusters k .. k + count; the only slice finishes them. */
static void FN(cluster_task)(const Plan *p, const FN(Scratch) * s, int64_t slice, int64_t column, int64_t k, int64_t count, REAL *sums,
                             REAL *dE, REAL *dF)
{
    const int64_t begin = slice * p->slice, depth = p->N - begin < p->slice ? p->N - begin : p->slice;
    const REAL *samples = s->samples + (column * p->N + begin * PANEL) * 2;
    if (p->n_slices > 1) sums = s->partial + (slice * p->Dp * p->K + column * p->K + k * PANEL) * 2;
    FN(sum_rows)(count, depth, s->shares + begin * p->K + k, 1, p->K, samples, sums);
    if (p->n_slices == 1) FN(combine)(p, s, k, count, column, sums, 0, dE, dF);
}

/* C and G of one cluster into every panel; whatever stands beyond D is never stored. */
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

/* Where the KL has no gradient only logits have one: nothing is multiplied, so that no infinite exp(v) meets a zero. */
static void FN(backward_of_entropy)(const Plan *p, const void *logits, const REAL *weight, int32_t type, const REAL *assignment,
                                    const REAL *cluster_kl, const REAL *statistics, REAL g2, REAL *shares, REAL *narrow_rows, void *dm,
                                    void *dv, REAL *dE, REAL *dF, void *dlogits)
{
    const int64_t K = p->K, size = type == CATVAE_SAME ? (int64_t)sizeof(REAL) : 2;
    memset(dm, 0, (size_t)(p->N * p->D * size));
    memset(dv, 0, (size_t)(p->N * p->D * size));
    memset(dE, 0, (size_t)(K * p->D) * sizeof(REAL));
    memset(dF, 0, (size_t)(K * p->D) * sizeof(REAL));
    for (int64_t n = 0; n < p->N; ++n) {
        REAL *dlogit_row = FN(target)(dlogits, type, n * K, narrow_rows + p->chunk * K);
        FN(logit_gradient)(K, weight ? weight[n] : 1, 0, g2, assignment + n * K, cluster_kl + n * K,
                           FN(stage)(logits, type, n * K, K, narrow_rows), statistics + n, p->N, shares, dlogit_row);
        FN(unstage)(dlogit_row, type, n * K, K, dlogits);
    }
}

static void FN(mixture_kl_backward)(const Plan *p, const void *m, const void *v, const REAL *E, const REAL *F, const REAL *prior,
                                    const void *logits, const REAL *weight, int32_t type, const REAL *assignment, const REAL *cluster_kl,
                                    const REAL *statistics, REAL g1, REAL g2, void *dm, void *dv, REAL *dE, REAL *dF, void *dlogits,
                                    char *workspace)
{
    const int64_t K = p->K, D = p->D, panels = (D + PANEL - 1) / PANEL, blocks = (K + CLUSTER_BLOCK - 1) / CLUSTER_BLOCK;
    const int64_t cluster_tasks = p->n_slices * panels * blocks;
    const FN(Scratch) s = {(REAL *)(workspace + p->packed), (REAL *)(workspace + p->samples), (REAL *)(workspace + p->shares),
                           (REAL *)(workspace + p->share_sums), (REAL *)(workspace + p->partial)};
    if (p->N == 0 || g1 == 0) {
        FN(backward_of_entropy)(p, logits, weight, type, assignment, cluster_kl, statistics, g2, s.shares,
                                (REAL *)(workspace + p->per_thread) + 2 * p->chunk * D, dm, dv, dE, dF, dlogits);
        return;
    }
#pragma omp parallel num_threads(p->threads) if (p->threads > 1)
    {
        REAL *scratch = (REAL *)(workspace + p->per_thread + thread_index() * p->per_thread_bytes);
#pragma omp for schedule(static)
        for (int64_t k = 0; k < K; ++k) FN(pack_cluster)(p, k, E, F, prior, s.packed);
#pragma omp for schedule(dynamic, 1)
        for (int64_t c = 0; c < p->n_chunks; ++c) {
            const int64_t begin = c * p->chunk, rows = p->N - begin < p->chunk ? p->N - begin : p->chunk;
            REAL *narrow_rows = scratch + 2 * p->chunk * D, *dlogit_rows = FN(target)(dlogits, type, begin * K, narrow_rows + p->chunk * K);
            FN(backward_chunk)(p, &s, c, FN(stage)(m, type, begin * D, rows * D, scratch),
                               FN(stage)(v, type, begin * D, rows * D, scratch + p->chunk * D),
                               FN(stage)(logits, type, begin * K, rows * K, narrow_rows), weight, assignment, cluster_kl, statistics, g1, g2,
                               dlogit_rows);
            FN(unstage)(dlogit_rows, type, begin * K, rows * K, dlogits);
            FN(Target) t = {.dm = dm, .dv = dv, .type = type};
            for (int64_t i = 0; i < rows; ++i) t.scale[i] = weight ? g1 * weight[begin + i] : g1;
            FN(chunk_samples)(p, &s, begin, rows, &t, scratch);
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < cluster_tasks; ++i) {
            const int64_t k = i % blocks * CLUSTER_BLOCK, count = K - k < CLUSTER_BLOCK ? K - k : CLUSTER_BLOCK;
            FN(cluster_task)(p, &s, i / (panels * blocks), i / blocks % panels * PANEL, k, count, scratch, dE, dF);
        }
        if (p->n_slices > 1) {
#pragma omp for schedule(static)
            for (int64_t k = 0; k < K; ++k)
                for (int64_t column = 0; column < D; column += PANEL)
                    FN(combine)(p, &s, k, 1, column, s.partial + (column * K + k * PANEL) * 2, p->Dp * K * 2, dE, dF);
        }
    }
}
