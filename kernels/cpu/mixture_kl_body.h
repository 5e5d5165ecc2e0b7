/* The arithmetic of the mixture loss, once: forward and every gradient, in one pass over chunks of samples.
 *
 * Included with REAL, INTEGER, SUFFIX, REAL_IS_FLOAT, ISA, WIDTH and BLOCK defined; all names carry SUFFIX and ISA. No array of N*K*D elements exists:
 * a chunk holds its m, exp(v), a and KL in scratch that stays in cache, and each product runs in tiles of BLOCK samples
 * (or clusters) by one vector, so that a loaded C and G serve four rows.
 *
 * Padding: C, G, m and exp(v) are zero beyond D; logits are -inf beyond K, so padded clusters have a = 0 and touch no sum.
 */
#define FN(name) JOIN(name, SUFFIX, ISA)
#define LANES ((int64_t)(WIDTH / sizeof(REAL)))
#define INLINE static inline __attribute__((always_inline))

typedef REAL FN(vec) __attribute__((vector_size(WIDTH)));
typedef INTEGER FN(ivec) __attribute__((vector_size(WIDTH)));
#define V FN(vec)
#define VI FN(ivec)

INLINE V FN(load)(const REAL *p)
{
    V x;
    memcpy(&x, p, sizeof x); /* callers may hand us any alignment */
    return x;
}
INLINE void FN(store)(REAL *p, V x) { memcpy(p, &x, sizeof x); }
INLINE V FN(select)(VI mask, V yes, V no) { return (V)((mask & (VI)yes) | (~mask & (VI)no)); }
/* Up to LANES elements; a call of memcpy with a length known only at run time costs more than the few stores. */
INLINE void FN(store_part)(REAL *p, V x, int64_t count)
{
    if (count >= LANES) {
        FN(store)(p, x);
        return;
    }
    for (int64_t j = 0; j < count; ++j) p[j] = x[j];
}
/* Halves are added to halves: four dependent additions instead of sixteen. */
INLINE REAL FN(sum)(V x)
{
    REAL t[LANES];
    memcpy(t, &x, sizeof x);
    for (int64_t w = LANES / 2; w > 0; w /= 2)
        for (int64_t j = 0; j < w; ++j) t[j] += t[j + w];
    return t[0];
}
INLINE REAL FN(largest)(V x)
{
    REAL t[LANES];
    memcpy(t, &x, sizeof x);
    for (int64_t w = LANES / 2; w > 0; w /= 2)
        for (int64_t j = 0; j < w; ++j) t[j] = t[j + w] > t[j] ? t[j + w] : t[j];
    return t[0];
}

/* exp. Float: Cody-Waite reduction and a degree-6 polynomial (coefficients of the Cephes library), at most 2 ulp against fp64 on
 * every finite input (tests/kernels/test_exp.py measures it), +inf above 88.73, gradual underflow to 0 at -103.97, NaN to NaN. The
 * rounding by a magic constant needs associativity to be respected: never compile this file with -fassociative-math. */
INLINE V FN(exp_vec)(V x)
{
#if REAL_IS_FLOAT
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to the nearest integer */
    const V clamped = FN(select)(x > 89.0f, (V){0} + 89.0f, FN(select)(x < -105.0f, (V){0} - 105.0f, x));
    V n = clamped * 1.44269504f + magic;
    n = n - magic;
    n = FN(select)(x == x, n, (V){0}); /* NaN has no integer part; r below keeps it */
    const V r = (clamped - n * 0.693145751953125f) - n * 1.42860677e-06f;
    V y = r * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    const VI exponent = __builtin_convertvector(n, VI);
    const VI half = exponent >> 1; /* two factors, so that 2^128 and subnormal results come out right */
    y = y * (V)((half + 127) << 23);
    return y * (V)((exponent - half + 127) << 23);
#else
    V y;
    for (int64_t j = 0; j < LANES; ++j) y[j] = exp(x[j]);
    return y;
#endif
}

static void FN(exp_array)(int64_t n, const REAL *x, REAL *y)
{
    for (int64_t i = 0; i < n; i += LANES) {
        const int64_t left = n - i < LANES ? n - i : LANES;
        V block = {0};
        memcpy(&block, x + i, (size_t)left * sizeof(REAL));
        block = FN(exp_vec)(block);
        memcpy(y + i, &block, (size_t)left * sizeof(REAL));
    }
}

/* C = E - prior, G = exp(F), as (Dp, Kp) and as (Kp, Dp), and Fsum_k = sum_d F_kd. Zero where padded. */
static void FN(pack)(const Plan *p, const REAL *E, const REAL *F, const REAL *prior, REAL *packed)
{
    const int64_t area = p->Kp * p->Dp;
    REAL *C_dk = packed, *G_dk = packed + area, *C_kd = packed + 2 * area, *G_kd = packed + 3 * area, *Fsum = packed + 4 * area;
    memset(packed, 0, (size_t)(4 * area + p->Kp) * sizeof(REAL));
    for (int64_t k = 0; k < p->K; ++k) {
        const REAL *Ek = E + k * p->D, *Fk = F + k * p->D, *pk = prior + k * p->D;
        REAL total = 0;
        FN(exp_array)(p->D, Fk, G_kd + k * p->Dp);
        for (int64_t d = 0; d < p->D; ++d) {
            C_kd[k * p->Dp + d] = Ek[d] - pk[d];
            total += Fk[d];
        }
        Fsum[k] = total;
        for (int64_t d = 0; d < p->D; ++d) {
            C_dk[d * p->Kp + k] = C_kd[k * p->Dp + d];
            G_dk[d * p->Kp + k] = G_kd[k * p->Dp + d];
        }
    }
}

/* KL (BLOCK, Kp) of one block of samples; base_i = sum_d (1 + v_id). */
INLINE void FN(block_kl)(const Plan *p, const REAL *packed, const REAL *mp, const REAL *ev, const REAL *base, REAL *kl)
{
    const int64_t area = p->Kp * p->Dp, Dp = p->Dp, Kp = p->Kp;
    const REAL *C_dk = packed, *G_dk = packed + area, *Fsum = packed + 4 * area;
    for (int64_t kb = 0; kb < Kp; kb += LANES) {
        V square[BLOCK] = {{0}}, spread[BLOCK] = {{0}};
        for (int64_t d = 0; d < p->D; ++d) {
            const V C = FN(load)(C_dk + d * Kp + kb), G = FN(load)(G_dk + d * Kp + kb);
            for (int i = 0; i < BLOCK; ++i) {
                const V t = C + mp[i * Dp + d]; /* squared directly: the expanded square cancels when |m| is large */
                square[i] += t * t;
                spread[i] += G * ev[i * Dp + d];
            }
        }
        const V F_total = FN(load)(Fsum + kb);
        for (int i = 0; i < BLOCK; ++i)
            FN(store)(kl + i * Kp + kb, (square[i] + spread[i] - base[i] - F_total) * (REAL)0.5);
    }
}

/* Soft assignment, both sums and both logit gradients of one sample. On entry a_row holds the logits, padded with -inf; on exit w * a. */
INLINE void FN(row_assignment)(const Plan *p, REAL w, REAL *a_row, const REAL *kl_row, REAL *scratch_log_a, double *sums,
                               REAL *assignment, REAL *dlogits_kl, REAL *dlogits_entropy)
{
    V tops = FN(load)(a_row);
    for (int64_t kb = LANES; kb < p->Kp; kb += LANES) {
        const V x = FN(load)(a_row + kb);
        tops = FN(select)(x > tops, x, tops);
    }
    const REAL top = FN(largest)(tops); /* a NaN may be passed over here: its own exponential brings it back */
    V total = {0};
    for (int64_t kb = 0; kb < p->Kp; kb += LANES) {
        const V shifted = FN(load)(a_row + kb) - top, e = FN(exp_vec)(shifted);
        FN(store)(scratch_log_a + kb, shifted);
        FN(store)(a_row + kb, e);
        total += e;
    }
    const REAL mass = FN(sum)(total), inverse = 1 / mass;
    const REAL log_mass = REAL_IS_FLOAT ? (REAL)logf((float)mass) : (REAL)log((double)mass);
    V kl_total = {0}, entropy_total = {0};
    for (int64_t kb = 0; kb < p->Kp; kb += LANES) {
        const V a = FN(load)(a_row + kb) * inverse;
        const VI empty = a == 0; /* 0 * log 0 and 0 * inf are 0 here: such a cluster has no share in the sample */
        const V log_a = FN(select)(empty, (V){0}, FN(load)(scratch_log_a + kb) - log_mass);
        FN(store)(a_row + kb, a);
        FN(store)(scratch_log_a + kb, log_a);
        kl_total += FN(select)(empty, (V){0}, a * FN(load)(kl_row + kb));
        entropy_total += a * log_a;
    }
    const REAL mean_kl = FN(sum)(kl_total), neg_entropy = FN(sum)(entropy_total);
    sums[0] += (double)w * (double)mean_kl;
    sums[1] += (double)w * (double)neg_entropy;
    for (int64_t kb = 0; kb < p->K; kb += LANES) {
        const V a = FN(load)(a_row + kb);
        FN(store_part)(assignment + kb, a, p->K - kb);
        if (!dlogits_kl) continue;
        const V wa = a * w;
        FN(store)(a_row + kb, wa);
        FN(store_part)(dlogits_kl + kb, FN(select)(a == 0, (V){0}, wa * (FN(load)(kl_row + kb) - mean_kl)), p->K - kb);
        FN(store_part)(dlogits_entropy + kb, wa * (FN(load)(scratch_log_a + kb) - neg_entropy), p->K - kb);
    }
}

/* dm = w m + (wa) C,  dv = (exp(v) ((wa) G) - w) / 2 for `rows` samples of one block. */
INLINE void FN(block_sample_grads)(const Plan *p, const REAL *packed, const REAL *mp, const REAL *ev, const REAL *wa, const REAL *w,
                                   int64_t rows, REAL *dm, REAL *dv)
{
    const int64_t area = p->Kp * p->Dp, Dp = p->Dp, D = p->D;
    const REAL *C_kd = packed + 2 * area, *G_kd = packed + 3 * area;
    for (int64_t db = 0; db < D; db += LANES) {
        V shift[BLOCK] = {{0}}, scale[BLOCK] = {{0}};
        for (int64_t k = 0; k < p->K; ++k) {
            const V C = FN(load)(C_kd + k * Dp + db), G = FN(load)(G_kd + k * Dp + db);
            for (int i = 0; i < BLOCK; ++i) {
                shift[i] += C * wa[i * p->Kp + k];
                scale[i] += G * wa[i * p->Kp + k];
            }
        }
        for (int64_t i = 0; i < rows; ++i) {
            const V gm = FN(load)(mp + i * Dp + db) * w[i] + shift[i];
            const V gv = (FN(load)(ev + i * Dp + db) * scale[i] - w[i]) * (REAL)0.5;
            FN(store_part)(dm + i * D + db, gm, D - db);
            FN(store_part)(dv + i * D + db, gv, D - db);
        }
    }
}

/* Rows k0 .. k0 + B of (wa)' m and (wa)' exp(v) over the samples of a chunk. */
INLINE void FN(tile_cluster_grads)(const Plan *p, const int B, int64_t k0, const REAL *mp, const REAL *ev, const REAL *wa, int64_t rows,
                                   REAL *partial)
{
    const int64_t Dp = p->Dp, Kp = p->Kp, area = Kp * Dp;
    for (int64_t db = 0; db < p->D; db += LANES) {
        V first[BLOCK] = {{0}}, second[BLOCK] = {{0}};
        for (int64_t n = 0; n < rows; ++n) {
            const V mean = FN(load)(mp + n * Dp + db), variance = FN(load)(ev + n * Dp + db);
            for (int i = 0; i < B; ++i) {
                first[i] += mean * wa[n * Kp + k0 + i];
                second[i] += variance * wa[n * Kp + k0 + i];
            }
        }
        for (int i = 0; i < B; ++i) {
            FN(store)(partial + (k0 + i) * Dp + db, first[i]);
            FN(store)(partial + area + (k0 + i) * Dp + db, second[i]);
        }
    }
}

/* This chunk's share of (wa)' m and (wa)' exp(v), both (Kp, Dp), and of sum_n wa (Kp). */
INLINE void FN(chunk_cluster_grads)(const Plan *p, const REAL *mp, const REAL *ev, const REAL *wa, int64_t rows, REAL *partial)
{
    int64_t k0 = 0;
    for (; k0 + BLOCK <= p->K; k0 += BLOCK) FN(tile_cluster_grads)(p, BLOCK, k0, mp, ev, wa, rows, partial);
    for (; k0 < p->K; k0 += 2) FN(tile_cluster_grads)(p, 2, k0, mp, ev, wa, rows, partial); /* Kp is even: one padded row at most */
    for (int64_t kb = 0; kb < p->Kp; kb += LANES) {
        V total = {0};
        for (int64_t n = 0; n < rows; ++n) total += FN(load)(wa + n * p->Kp + kb);
        FN(store)(partial + 2 * p->Kp * p->Dp + kb, total);
    }
}

/* One chunk of samples, from inputs to its outputs and its partial sums. */
static void FN(chunk)(const Plan *p, int64_t index, const REAL *packed, const REAL *m, const REAL *v, const REAL *logits,
                      const REAL *weight, REAL *scratch, double *sums, REAL *assignment, REAL *cluster_kl, REAL *dm, REAL *dv,
                      REAL *dlogits_kl, REAL *dlogits_entropy, REAL *partial)
{
    const int64_t K = p->K, D = p->D, Kp = p->Kp, Dp = p->Dp;
    const int64_t begin = index * p->chunk, rows = p->N - begin < p->chunk ? p->N - begin : p->chunk;
    REAL *mp = scratch, *ev = mp + p->chunk * Dp, *a = ev + p->chunk * Dp, *kl = a + p->chunk * Kp, *log_a = kl + p->chunk * Kp;
    sums[0] = sums[1] = 0;
    for (int64_t i0 = 0; i0 < rows; i0 += BLOCK) {
        const int64_t here = rows - i0 < BLOCK ? rows - i0 : BLOCK;
        REAL base[BLOCK] = {0}, w[BLOCK] = {0};
        memset(mp + i0 * Dp, 0, (size_t)(BLOCK * Dp) * sizeof(REAL));
        memset(ev + i0 * Dp, 0, (size_t)(BLOCK * Dp) * sizeof(REAL));
        for (int64_t i = 0; i < here; ++i) {
            const int64_t n = begin + i0 + i;
            REAL *ev_row = ev + (i0 + i) * Dp;
            memcpy(mp + (i0 + i) * Dp, m + n * D, (size_t)D * sizeof(REAL));
            memcpy(ev_row, v + n * D, (size_t)D * sizeof(REAL));
            V total = {0};
            for (int64_t db = 0; db < Dp; db += LANES) {
                const V x = FN(load)(ev_row + db);
                total += x;
                FN(store)(ev_row + db, FN(exp_vec)(x));
            }
            for (int64_t d = D; d < Dp; ++d) ev_row[d] = 0; /* exp(0) = 1 must not count */
            base[i] = (REAL)D + FN(sum)(total);
            w[i] = weight ? weight[n] : 1;
        }
        FN(block_kl)(p, packed, mp + i0 * Dp, ev + i0 * Dp, base, kl + i0 * Kp);
        for (int64_t i = 0; i < BLOCK; ++i) {
            REAL *row = a + (i0 + i) * Kp;
            if (i >= here) { /* rows that fill up the last block weigh nothing */
                memset(row, 0, (size_t)Kp * sizeof(REAL));
                continue;
            }
            const int64_t n = begin + i0 + i;
            REAL *kl_row = kl + (i0 + i) * Kp;
            memcpy(row, logits + n * K, (size_t)K * sizeof(REAL));
            for (int64_t k = K; k < Kp; ++k) row[k] = -INFINITY;
            for (int64_t kb = 0; kb < K; kb += LANES) FN(store_part)(cluster_kl + n * K + kb, FN(load)(kl_row + kb), K - kb);
            FN(row_assignment)(p, w[i], row, kl_row, log_a, sums, assignment + n * K, dm ? dlogits_kl + n * K : NULL,
                               dm ? dlogits_entropy + n * K : NULL);
        }
        if (dm)
            FN(block_sample_grads)(p, packed, mp + i0 * Dp, ev + i0 * Dp, a + i0 * Kp, w, here, dm + (begin + i0) * D,
                                   dv + (begin + i0) * D);
    }
    if (dm) FN(chunk_cluster_grads)(p, mp, ev, a, rows, partial);
}

/* dE = (wa)' m + C sum(wa),  dF = (G (wa)' exp(v) - sum(wa)) / 2, partials added in chunk order. */
static void FN(combine)(const Plan *p, const REAL *packed, const char *partials, int64_t k, REAL *dE, REAL *dF)
{
    const int64_t area = p->Kp * p->Dp, D = p->D;
    const REAL *C = packed + 2 * area + k * p->Dp, *G = packed + 3 * area + k * p->Dp;
    REAL share = 0;
    for (int64_t d = 0; d < D; ++d) dE[k * D + d] = dF[k * D + d] = 0;
    for (int64_t c = 0; c < p->n_chunks; ++c) {
        const REAL *partial = (const REAL *)(partials + c * p->partial_grads_bytes);
        const REAL *first = partial + k * p->Dp, *second = partial + area + k * p->Dp;
        for (int64_t d = 0; d < D; ++d) {
            dE[k * D + d] += first[d];
            dF[k * D + d] += second[d];
        }
        share += partial[2 * area + k];
    }
    for (int64_t d = 0; d < D; ++d) {
        dE[k * D + d] += C[d] * share;
        dF[k * D + d] = (G[d] * dF[k * D + d] - share) * (REAL)0.5;
    }
}

static void FN(mixture_kl)(const Plan *p, const REAL *m, const REAL *v, const REAL *E, const REAL *F, const REAL *prior,
                           const REAL *logits, const REAL *weight, double *sums, REAL *assignment, REAL *cluster_kl, REAL *dm, REAL *dv,
                           REAL *dE, REAL *dF, REAL *dlogits_kl, REAL *dlogits_entropy, void *workspace)
{
    char *start = (char *)(((uintptr_t)workspace + VECTOR_BYTES - 1) & ~(uintptr_t)(VECTOR_BYTES - 1));
    REAL *packed = (REAL *)(start + p->packed);
    double *partial_sums = (double *)(start + p->partial_sums);
    char *partials = start + p->partial_grads;
    FN(pack)(p, E, F, prior, packed);
#pragma omp parallel num_threads(p->threads) if (p->threads > 1)
    {
#ifdef _OPENMP
        const int64_t thread = omp_get_thread_num();
#else
        const int64_t thread = 0;
#endif
        REAL *scratch = (REAL *)(start + p->per_thread + thread * p->per_thread_bytes);
#pragma omp for schedule(dynamic, 1)
        for (int64_t c = 0; c < p->n_chunks; ++c)
            FN(chunk)(p, c, packed, m, v, logits, weight, scratch, partial_sums + 2 * c, assignment, cluster_kl, dm, dv, dlogits_kl,
                      dlogits_entropy, (REAL *)(partials + c * p->partial_grads_bytes));
        if (dm) {
#pragma omp for schedule(static)
            for (int64_t k = 0; k < p->K; ++k) FN(combine)(p, packed, partials, k, dE, dF);
        }
    }
    sums[0] = sums[1] = 0;
    for (int64_t c = 0; c < p->n_chunks; ++c) {
        sums[0] += partial_sums[2 * c];
        sums[1] += partial_sums[2 * c + 1];
    }
}

#undef FN
#undef LANES
#undef INLINE
#undef V
#undef VI
