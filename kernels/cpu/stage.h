/* Chunks of inputs as REAL rows, and chunks of gradients back: halves pass through scratch, anything else is used where it lies. */

INLINE const REAL *FN(stage)(const void *x, int32_t type, int64_t begin, int64_t count, REAL *scratch)
{
#if REAL_IS_FLOAT
    if (type != CATVAE_SAME) {
        widen(count, (const uint16_t *)x + begin, type, scratch);
        return scratch;
    }
#endif
    (void)type, (void)count, (void)scratch;
    return (const REAL *)x + begin;
}

#if REAL_IS_FLOAT
typedef uint16_t FN(halves) __attribute__((vector_size(WIDTH / 2)));
typedef uint32_t FN(bits) __attribute__((vector_size(WIDTH)));

/* A whole vector of bfloat16. */
INLINE V FN(widened)(const uint16_t *x)
{
    FN(halves) h;
    memcpy(&h, x, sizeof h);
    return (V)(__builtin_convertvector(h, FN(bits)) << 16);
}

/* To nearest, ties to even; of a NaN the payload is not kept. */
INLINE void FN(rounded)(uint16_t *y, V x)
{
    const FN(bits) raw = (FN(bits))x, near = (raw + 0x7fff + (raw >> 16 & 1)) >> 16;
    const FN(halves) h = __builtin_convertvector((FN(bits))FN(select)(x == x, (V)near, (V)((FN(bits)){0} + 0x7fc0)), FN(halves));
    memcpy(y, &h, sizeof h);
}
#endif

/* The first `count` numbers from x[at ...] on. */
INLINE V FN(get_part)(const void *x, int32_t type, int64_t at, int64_t count)
{
#if REAL_IS_FLOAT
    if (type == CATVAE_BF16 && count >= LANES) return FN(widened)((const uint16_t *)x + at);
    if (type != CATVAE_SAME) {
        REAL t[LANES] = {0};
        if (count >= LANES) widen(LANES, (const uint16_t *)x + at, type, t); /* a number the compiler knows: vectors */
        else widen(count, (const uint16_t *)x + at, type, t);
        return FN(load)(t);
    }
#endif
    (void)type;
    return FN(load_part)((const REAL *)x + at, count);
}

/* The first `count` lanes to y[at ...], rounded where y holds halves. */
INLINE void FN(put_part)(void *y, int32_t type, int64_t at, V x, int64_t count)
{
#if REAL_IS_FLOAT
    if (type == CATVAE_BF16 && count >= LANES) {
        FN(rounded)((uint16_t *)y + at, x);
        return;
    }
    if (type != CATVAE_SAME) {
        REAL t[LANES];
        FN(store)(t, x);
        if (count >= LANES) narrow(LANES, t, type, (uint16_t *)y + at);
        else narrow(count, t, type, (uint16_t *)y + at);
        return;
    }
#endif
    (void)type;
    FN(store_part)((REAL *)y + at, x, count);
}

INLINE REAL *FN(target)(void *y, int32_t type, int64_t begin, REAL *scratch) { return type == CATVAE_SAME ? (REAL *)y + begin : scratch; }

INLINE void FN(unstage)(const REAL *rows, int32_t type, int64_t begin, int64_t count, void *y)
{
#if REAL_IS_FLOAT
    if (type != CATVAE_SAME) narrow(count, rows, type, (uint16_t *)y + begin);
#else
    (void)rows, (void)type, (void)begin, (void)count, (void)y;
#endif
}

/* Partial sums (count, 2) added in their order, in double. */
INLINE void FN(total)(int64_t count, const double *partial, REAL *kl, REAL *neg_entropy)
{
    double sums[2] = {0, 0};
    for (int64_t c = 0; c < count; ++c) {
        sums[0] += partial[2 * c];
        sums[1] += partial[2 * c + 1];
    }
    *kl = (REAL)sums[0];
    *neg_entropy = (REAL)sums[1];
}
