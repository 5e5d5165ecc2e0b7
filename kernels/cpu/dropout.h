/* Dropout with the ReLU behind it, for one instruction set; the interface is in catvae_layers.h.
 *
 * What falls out is decided by 32 random bits an element, of the generator SplitMix (Steele, Lea & Flood, OOPSLA 2014) in 32 bits:
 * element i is start + i gamma, mixed. Any element can thus be computed alone, so that blocks, threads and lanes change nothing.
 * Backward looks at y.
 */

typedef struct {
    int64_t n;
    int32_t type;
    const void *x, *y;
    void *out;
    uint32_t start, gamma, dropped; /* of 2^32 values the lowest `dropped` fall out */
    REAL scale;
} FN(Dropout);

/* The two-round finaliser `lowbias32` of C. Wellons. */
INLINE FN(bits) FN(mixed)(FN(bits) x)
{
    x = (x ^ x >> 16) * 0x7feb352d;
    x = (x ^ x >> 15) * 0x846ca68b;
    return x ^ x >> 16;
}

INLINE void FN(drop)(const FN(Dropout) *d, int64_t begin, int64_t end, const int32_t type)
{
    FN(bits) state = d->start + (uint32_t)begin * d->gamma + (FN(bits))FN(lane)() * d->gamma;
    for (int64_t i = begin; i < end; i += LANES, state += (uint32_t)LANES * d->gamma) {
        const V x = FN(wide)(d->x, type, i);
        const VI out = (VI)(FN(mixed)(state) < d->dropped) | (x <= 0);
        FN(narrowed)(d->out, type, i, FN(select)(out, (V){0}, x * d->scale));
    }
}

INLINE void FN(drop_gradient)(const FN(Dropout) *d, int64_t begin, int64_t end, const int32_t type)
{
    for (int64_t i = begin; i < end; i += LANES)
        FN(narrowed)(d->out, type, i, FN(passed)(FN(wide)(d->y, type, i), FN(wide)(d->x, type, i) * d->scale));
}

/* A function of its own: clang compiles what stands in a parallel region itself for the plain processor. */
#define DEFINE_PASS(name)                                                                                           \
    static void FN(name##_block)(const FN(Dropout) *d, int64_t begin)                                               \
    {                                                                                                               \
        const int64_t end = d->n - begin < DROPOUT_BLOCK ? d->n : begin + DROPOUT_BLOCK;                            \
        if (d->type == CATVAE_SAME) FN(name)(d, begin, end, CATVAE_SAME);                                           \
        else FN(name)(d, begin, end, CATVAE_BF16);                                                                  \
    }                                                                                                               \
    static void FN(name##_all)(const FN(Dropout) *d, int32_t threads)                                               \
    {                                                                                                               \
        _Pragma("omp parallel for schedule(static) num_threads(threads) if (threads > 1)")                          \
        for (int64_t begin = 0; begin < d->n; begin += DROPOUT_BLOCK) FN(name##_block)(d, begin);                   \
    }

DEFINE_PASS(drop)
DEFINE_PASS(drop_gradient)
#undef DEFINE_PASS

static void FN(dropout_relu_forward)(int64_t n, const void *x, int32_t type, uint32_t dropped, float scale, int64_t seed, void *y,
                                     int32_t threads)
{
    uint32_t gamma = (uint32_t)(seed >> 32) | 1;
    if (__builtin_popcount(gamma ^ gamma >> 1) < 12) gamma ^= 0xaaaaaaaa; /* too regular: as SplitMix does with 24 of 64 */
    FN(drop_all)(&(FN(Dropout)){.n = n, .type = type, .x = x, .out = y, .start = (uint32_t)seed, .gamma = gamma, .dropped = dropped,
                                .scale = scale}, threads);
}

static void FN(dropout_relu_backward)(int64_t n, const void *dy, const void *y, int32_t type, float scale, void *dx, int32_t threads)
{
    FN(drop_gradient_all)(&(FN(Dropout)){.n = n, .type = type, .x = dy, .y = y, .out = dx, .scale = scale}, threads);
}
