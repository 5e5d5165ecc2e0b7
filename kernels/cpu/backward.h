/* Backward pass of the factorised loss, given both upstream gradients. With s = g1 w a (N, K), C = E - prior, G = exp(F):
 *
 *   dm = g1 w m + s C         dv = (exp(v) (s G) - g1 w) / 2
 *   dE = s'm + C sum_n s      dF = (G (s'exp(v)) - sum_n s) / 2       dlogits: rows.h
 *
 * A task is one panel (two vectors) of columns of one slice of samples: it copies the panel of C and G, and block by block that of
 * g1 w m and g1 w exp(v), so that every load of the products is contiguous whatever D is and no task reads what another one wrote. Both
 * pairs of products run in register tiles of HALF rows by a panel. Nothing of N*K*D elements exists. Like every product form, dm and dE carry an
 * absolute error of the order of 1e-7 |m|, times the weights summed, where m and -C are large and nearly equal. exp(v), G and g1 w exp(v)
 * must be finite: |v| and |F| up to 80 in float, but for samples of weight 0.
 */

#define PANEL (2 * LANES)
#define ROWS_AHEAD 3 /* that are fetched while a panel goes down the rows: no processor foresees steps as long as a row */
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

/* The sums (R, 2, PANEL) of a tile between two blocks of its depth. Each block begins at zero: one chain of additions as long as the depth
 * would lose what many small terms add to a large sum. */
INLINE void FN(no_sums)(const int R, V *x, V *y)
{
#pragma GCC unroll 12
    for (int i = 0; i < 2 * R; ++i) x[i] = y[i] = (V){0};
}
INLINE void FN(add_sums)(const int R, const REAL *sums, V *x, V *y)
{
#pragma GCC unroll 6
    for (int i = 0; i < R; ++i)
        for (int h = 0; h < 2; ++h) {
            x[2 * i + h] += FN(load)(sums + i * 2 * PANEL + h * LANES);
            y[2 * i + h] += FN(load)(sums + i * 2 * PANEL + PANEL + h * LANES);
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
    V x[TILE], y[TILE];
    FN(no_sums)(R, x, y);
    FN(tile_pair)(R, depth, s, si, sj, panels, x, y);
    if (!first) FN(add_sums)(R, sums, x, y);
    FN(store_sums)(R, x, y, sums);
}

/* Scratch of a thread, and how much each sample of the block at hand counts: g1 w. */
typedef struct {
    REAL *clusters; /* (K, 2, PANEL)      C and G of one panel of columns */
    REAL *samples;  /* (BLOCK, 2, PANEL)  m and exp(v) of a block of samples, times what each counts */
    REAL *rows;     /* (BLOCK, 2, PANEL)  sums of the block between two blocks of clusters */
    REAL *logits;   /* (3, K)             of one sample: shares, the gradients and the logits where they are halves */
    int64_t panel;  /* that `clusters` holds, which is kept where there is but one; -1: none */
    REAL scale[BLOCK];
} FN(Scratch);

static void FN(share_out)(const Plan *p, char *at, FN(Scratch) * s)
{
    const int64_t clusters = p->K * 2 * PANEL, block = BLOCK * 2 * PANEL;
    s->clusters = (REAL *)at;
    s->samples = s->clusters + clusters;
    s->rows = s->samples + block;
    s->logits = s->rows + block;
    s->panel = -1;
}

/* What a call was given, as its tasks see it. */
typedef struct {
    const void *m, *v;
    const REAL *E, *F, *prior, *weight, *assignment;
    REAL g1;
    void *dm, *dv;
    REAL *dE, *dF;
    int32_t type;
} FN(Given);

/* C and G of a cluster in LANES columns, of which `left` exist. */
INLINE void FN(cluster_of)(const Plan *p, const FN(Given) * in, int64_t at, int64_t left, V *C, V *G)
{
    const int64_t ahead = (at + ROWS_AHEAD * p->D) * (int64_t)sizeof(REAL);
    FETCH(in->E, ahead);
    FETCH(in->prior, ahead);
    FETCH(in->F, ahead);
    *C = FN(load_part)(in->E + at, left) - FN(load_part)(in->prior + at, left);
    *G = FN(exp)(FN(load_part)(in->F + at, left));
}

/* C and G of one panel of columns; whatever stands beyond D is never stored. */
static void FN(pack_clusters)(const Plan *p, const FN(Given) * in, int64_t column, REAL *packed)
{
    for (int64_t k = 0; k < p->K; ++k)
        for (int64_t c = 0; c < PANEL; c += LANES) {
            V C = {0}, G = {0};
            if (column + c < p->D) FN(cluster_of)(p, in, k * p->D + column + c, p->D - column - c, &C, &G);
            FN(store)(packed + k * 2 * PANEL + c, C);
            FN(store)(packed + k * 2 * PANEL + PANEL + c, G);
        }
}

/* The same of `rows` samples from n on, and what each of them counts. */
static void FN(pack_samples)(const Plan *p, const FN(Given) * in, int64_t n, int64_t rows, int64_t column, FN(Scratch) * s)
{
    const int64_t size = in->type == CATVAE_SAME ? (int64_t)sizeof(REAL) : 2;
    REAL *to = s->samples;
    for (int64_t i = 0; i < rows; ++i, to += 2 * PANEL) {
        const REAL scale = s->scale[i] = in->weight ? in->g1 * in->weight[n + i] : in->g1;
        for (int64_t c = 0; c < PANEL; c += LANES) {
            const int64_t at = (n + i) * p->D + column + c, left = p->D - column - c;
            V m = {0}, ev = {0};
            FETCH(in->m, (at + ROWS_AHEAD * p->D) * size);
            FETCH(in->v, (at + ROWS_AHEAD * p->D) * size);
            if (left > 0 && scale != 0) { /* a masked sample adds nothing, though its exp(v) be infinite */
                m = FN(get_part)(in->m, in->type, at, left) * scale;
                ev = FN(exp)(FN(get_part)(in->v, in->type, at, left)) * scale;
            }
            FN(store)(to + c, m);
            FN(store)(to + PANEL + c, ev);
        }
    }
}

/* dm, dv of R samples from the i-th of a block on, straight from the registers; sums between blocks of clusters, but for the last one. */
INLINE void FN(sample_tile)(const int R, const Plan *p, const FN(Given) * in, const FN(Scratch) * s, int64_t k, int64_t depth, int64_t n,
                            int64_t i, int64_t column)
{
    V x[TILE], y[TILE];
    REAL *sums = s->rows + i * 2 * PANEL;
    FN(no_sums)(R, x, y);
    FN(tile_pair)(R, depth, in->assignment + (n + i) * p->K + k, p->K, 1, s->clusters + k * 2 * PANEL, x, y);
    if (k > 0) FN(add_sums)(R, sums, x, y);
    if (k + depth < p->K) {
        FN(store_sums)(R, x, y, sums);
        return;
    }
    const REAL *sample = s->samples + i * 2 * PANEL, *scale = s->scale + i;
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
        for (int h = 0; h < 2; ++h) {
            const int64_t c = column + h * LANES, at = (n + i + r) * p->D + c, left = p->D - c;
            if (left <= 0) continue;
            const V m = FN(load)(sample + r * 2 * PANEL + h * LANES), ev = FN(load)(sample + r * 2 * PANEL + PANEL + h * LANES);
            FN(put_part)(in->dm, in->type, at, m + x[2 * r + h] * scale[r], left);
            FN(put_part)(in->dv, in->type, at, (ev * y[2 * r + h] - scale[r]) * (REAL)0.5, left);
        }
}

/* dm, dv of a block of samples for one panel of columns. */
static void FN(block_samples)(const Plan *p, const FN(Given) * in, const FN(Scratch) * s, int64_t n, int64_t rows, int64_t column)
{
    const int64_t block = block_size(p->K);
    for (int64_t k = 0; k < p->K; k += block) {
        const int64_t depth = p->K - k < block ? p->K - k : block;
        for (int64_t i = 0; i < rows;) {
            const int64_t size = FN(half_tile)(rows - i);
            if (size == HALF) FN(sample_tile)(HALF, p, in, s, k, depth, n, i, column);
            else if (size == 4) FN(sample_tile)(4, p, in, s, k, depth, n, i, column);
            else if (size == 2) FN(sample_tile)(2, p, in, s, k, depth, n, i, column);
            else FN(sample_tile)(1, p, in, s, k, depth, n, i, column);
            i += size;
        }
    }
}

/* sums (K, 2, PANEL) = or += a'(g1 w m) and a'(g1 w exp(v)) of a block of samples. */
static void FN(block_clusters)(const Plan *p, const FN(Given) * in, const FN(Scratch) * s, int64_t n, int64_t rows, int first, REAL *sums)
{
    for (int64_t k = 0; k < p->K;) {
        const int64_t size = FN(half_tile)(p->K - k);
        const REAL *at = in->assignment + n * p->K + k;
        REAL *to = sums + k * 2 * PANEL;
        if (size == HALF) FN(sum_tile)(HALF, first, rows, at, 1, p->K, s->samples, to);
        else if (size == 4) FN(sum_tile)(4, first, rows, at, 1, p->K, s->samples, to);
        else if (size == 2) FN(sum_tile)(2, first, rows, at, 1, p->K, s->samples, to);
        else FN(sum_tile)(1, first, rows, at, 1, p->K, s->samples, to);
        k += size;
    }
}

/* shares (K) += what a block of samples counts for each cluster. */
static void FN(block_shares)(const Plan *p, const FN(Given) * in, const FN(Scratch) * s, int64_t n, int64_t rows, REAL *shares)
{
    for (int64_t k = 0; k < p->K; k += LANES) {
        V sum = {0};
        for (int64_t i = 0; i < rows; ++i) sum += FN(load_part)(in->assignment + (n + i) * p->K + k, p->K - k) * s->scale[i];
        FN(store_part)(shares + k, FN(load_part)(shares + k, p->K - k) + sum, p->K - k);
    }
}

/* dE and dF of one cluster in one panel of columns, from sums and shares of the slices, added in their order. */
static void FN(combine)(const Plan *p, const FN(Given) * in, int64_t k, int64_t column, const REAL *sums, const REAL *shares)
{
    REAL share = 0;
    for (int64_t slice = 0; slice < p->n_slices; ++slice) share += shares[slice * p->K + k];
    for (int64_t c = 0; c < PANEL && column + c < p->D; c += LANES) {
        V x = {0}, y = {0}, C, G;
        for (int64_t slice = 0; slice < p->n_slices; ++slice) {
            const REAL *from = sums + (slice * p->K + k) * 2 * PANEL + c;
            x += FN(load)(from);
            y += FN(load)(from + PANEL);
        }
        const int64_t at = k * p->D + column + c, left = p->D - column - c;
        FN(cluster_of)(p, in, at, left, &C, &G);
        FN(store_part)(in->dE + at, x + C * share, left);
        FN(store_part)(in->dF + at, (G * y - share) * (REAL)0.5, left);
    }
}

/* One panel of columns and one slice of samples: their dm and dv, and what they add to dE and dF: sums (K, 2, PANEL), and to shares (K). */
static void FN(backward_task)(const Plan *p, const FN(Given) * in, int64_t panel, int64_t slice, REAL *sums, REAL *shares, FN(Scratch) * s)
{
    const int64_t column = panel * PANEL, begin = slice * p->slice, end = p->N - begin < p->slice ? p->N : begin + p->slice;
    const int64_t block = block_size(end - begin);
    if (s->panel != panel) FN(pack_clusters)(p, in, column, s->clusters);
    s->panel = panel;
    if (panel == 0) memset(shares, 0, (size_t)p->K * sizeof(REAL));
    for (int64_t n = begin; n < end; n += block) {
        const int64_t rows = end - n < block ? end - n : block;
        FN(pack_samples)(p, in, n, rows, column, s);
        FN(block_samples)(p, in, s, n, rows, column);
        FN(block_clusters)(p, in, s, n, rows, n == begin, sums);
        if (panel == 0) FN(block_shares)(p, in, s, n, rows, shares);
    }
}

/* dlogits of a chunk of samples. */
static void FN(chunk_logits)(const Plan *p, int64_t begin, const void *logits, const REAL *weight, int32_t type, const REAL *assignment,
                             const REAL *cluster_kl, const REAL *statistics, REAL g1, REAL g2, void *dlogits, REAL *scratch)
{
    const int64_t K = p->K, end = p->N - begin < p->chunk ? p->N : begin + p->chunk;
    for (int64_t n = begin; n < end; ++n) {
        REAL *row = FN(target)(dlogits, type, n * K, scratch + K);
        FN(logit_gradient)(K, weight ? weight[n] : 1, g1, g2, assignment + n * K, cluster_kl + n * K,
                           FN(stage)(logits, type, n * K, K, scratch + 2 * K), statistics + n, p->N, scratch, row);
        FN(unstage)(row, type, n * K, K, dlogits);
    }
}

static void FN(mixture_kl_backward)(const Plan *p, const void *m, const void *v, const REAL *E, const REAL *F, const REAL *prior,
                                    const void *logits, const REAL *weight, int32_t type, const REAL *assignment, const REAL *cluster_kl,
                                    const REAL *statistics, REAL g1, REAL g2, void *dm, void *dv, REAL *dE, REAL *dF, void *dlogits,
                                    char *workspace)
{
    const int64_t K = p->K, D = p->D, panels = (D + PANEL - 1) / PANEL;
    const FN(Given) in = {m, v, E, F, prior, weight, assignment, g1, dm, dv, dE, dF, type};
    REAL *partial = (REAL *)(workspace + p->partial), *shares = partial + panels * p->n_slices * K * 2 * PANEL;
    if (p->N == 0 || g1 == 0) { /* only logits have a gradient: nothing is multiplied, so that no infinite exp(v) meets a zero */
        const int64_t size = type == CATVAE_SAME ? (int64_t)sizeof(REAL) : 2;
        memset(dm, 0, (size_t)(p->N * D * size));
        memset(dv, 0, (size_t)(p->N * D * size));
        memset(dE, 0, (size_t)(K * D) * sizeof(REAL));
        memset(dF, 0, (size_t)(K * D) * sizeof(REAL));
    }
#pragma omp parallel num_threads(p->threads) if (p->threads > 1)
    {
        FN(Scratch) s;
        FN(share_out)(p, workspace + p->per_thread + thread_index() * p->per_thread_bytes, &s);
#pragma omp for schedule(static) nowait
        for (int64_t c = 0; c < p->n_chunks; ++c)
            FN(chunk_logits)(p, c * p->chunk, logits, weight, type, assignment, cluster_kl, statistics, g1, g2, dlogits, s.logits);
        if (p->N > 0 && g1 != 0) {
            /* Slice by slice, and to each thread what lies together: with as many slices as threads no two of them write to one row. */
#pragma omp for schedule(static)
            for (int64_t i = 0; i < panels * p->n_slices; ++i) {
                const int64_t slice = i / panels, panel = i % panels;
                FN(backward_task)(p, &in, panel, slice, partial + (panel * p->n_slices + slice) * K * 2 * PANEL, shares + slice * K, &s);
            }
#pragma omp for schedule(static)
            for (int64_t i = 0; i < panels * K; ++i)
                FN(combine)(p, &in, i % K, i / K * PANEL, partial + i / K * p->n_slices * K * 2 * PANEL, shares);
        }
    }
}
