/* Patches of images: those of a transposed 4x4 convolution of stride 2 and padding 1, added up, and those of any convolution, taken. The
 * interface is in catvae_layers.h.
 *
 * Added up: position (a, b) of an image reaches rows 2a-1 .. 2a+2 and columns 2b-1 .. 2b+2. A row of the result is added in float, with
 * one more position to either side of it. The halves of a row of four are added apart: what one position adds to, the next one does not.
 */

typedef struct {
    int64_t h, w, C;
    int32_t type;
    const void *patches;
    const REAL *bias;
    void *y;
} FN(Patches);

INLINE REAL FN(number)(const void *x, int32_t type, int64_t at)
{
    return type == CATVAE_SAME ? ((const REAL *)x)[at] : bits_to_float((uint32_t)((const uint16_t *)x)[at] << 16);
}

/* sum (2w + 2, C) += row `i` of the patches of one row of positions, the first of which lies at `at`. */
INLINE void FN(add_patches)(const FN(Patches) *p, int64_t at, int64_t i, const int32_t type, const int64_t C, REAL *sum)
{
    for (int64_t half = 0; half < 2; ++half)
        for (int64_t b = 0; b < p->w; ++b)
            for (int64_t q = 0; q < 2 * C; ++q)
                sum[2 * (b + half) * C + q] += FN(number)(p->patches, type, at + (b * 16 + i * 4 + 2 * half) * C + q);
}

INLINE void FN(overlap_row)(const FN(Patches) *p, int64_t image, int64_t row, const int32_t type, const int64_t C)
{
    REAL sum[PATCHES_ROW];
    const int64_t i = (row + 1) & 1, a = (row + 1) / 2, width = 2 * p->w * C, first = (image * p->h + a) * p->w * 16 * C;
    for (int64_t x = 0; x < 2 * p->w + 2; ++x)
        for (int64_t c = 0; c < C; ++c) sum[x * C + c] = p->bias[c];
    if (a < p->h) FN(add_patches)(p, first, i, type, C, sum);
    if (a > 0) FN(add_patches)(p, first - p->w * 16 * C, i + 2, type, C, sum);
    const int64_t out = (image * 2 * p->h + row) * width;
    if (type == CATVAE_SAME) memcpy((REAL *)p->y + out, sum + C, (size_t)width * sizeof(REAL));
    else narrow(width, sum + C, CATVAE_BF16, (uint16_t *)p->y + out);
}

/* A function of its own: clang compiles what stands in a parallel region itself for the plain processor. */
static void FN(overlap_image)(const FN(Patches) *p, int64_t image)
{
    for (int64_t row = 0; row < 2 * p->h; ++row)
        switch (p->C * 4 + p->type) { /* numbers that the compiler knows */
        case 4 + CATVAE_SAME: FN(overlap_row)(p, image, row, CATVAE_SAME, 1); break;
        case 4 + CATVAE_BF16: FN(overlap_row)(p, image, row, CATVAE_BF16, 1); break;
        case 12 + CATVAE_SAME: FN(overlap_row)(p, image, row, CATVAE_SAME, 3); break;
        case 12 + CATVAE_BF16: FN(overlap_row)(p, image, row, CATVAE_BF16, 3); break;
        default: FN(overlap_row)(p, image, row, p->type, p->C);
        }
}

static void FN(overlap_patches)(int64_t N, int64_t h, int64_t w, int64_t C, const void *patches, int32_t type, const REAL *bias, void *y,
                                int32_t threads)
{
    const FN(Patches) p = {h, w, C, type, patches, bias, y};
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t image = 0; image < N; ++image) FN(overlap_image)(&p, image);
}

typedef struct {
    int64_t H, W, h, w, k, stride, padding;
    int64_t C, run; /* channels of one pixel, and of k of them */
    const uint16_t *x;
    uint16_t *out;
} FN(Taken);

/* One row of positions. Nearly every row of a patch is one piece of memory. */
INLINE void FN(take_row)(const FN(Taken) *t, int64_t image, int64_t row, const int64_t run)
{
    uint16_t *out = t->out + (image * t->h + row) * t->w * t->k * run;
    for (int64_t b = 0; b < t->w; ++b)
        for (int64_t i = 0; i < t->k; ++i, out += run) {
            const int64_t y = row * t->stride - t->padding + i, x = b * t->stride - t->padding;
            const int64_t from = ((image * t->H + y) * t->W + x) * t->C; /* of the first column, also where there is none */
            if (y < 0 || y >= t->H) memset(out, 0, 2 * (size_t)run);
            else if (x >= 0 && x + t->k <= t->W) memcpy(out, t->x + from, 2 * (size_t)run);
            else {
                const int64_t left = x < 0 ? -x * t->C : 0, right = x + t->k > t->W ? (x + t->k - t->W) * t->C : 0;
                memset(out, 0, 2 * (size_t)left);
                memcpy(out + left, t->x + (from + left), 2 * (size_t)(run - left - right));
                memset(out + run - right, 0, 2 * (size_t)right);
            }
        }
}

static void FN(take_rows)(const FN(Taken) *t, int64_t image, int64_t row)
{
    switch (t->run) { /* numbers that the compiler knows: three and four pixels in colour */
    case 9: FN(take_row)(t, image, row, 9); break;
    case 12: FN(take_row)(t, image, row, 12); break;
    default: FN(take_row)(t, image, row, t->run);
    }
}

static void FN(take_patches)(int64_t N, int64_t H, int64_t W, int64_t C, int64_t k, int64_t stride, int64_t padding, const uint16_t *x,
                             uint16_t *out, int32_t threads)
{
    const int64_t h = patches_along(H, k, stride, padding), w = patches_along(W, k, stride, padding);
    const FN(Taken) t = {H, W, h, w, k, stride, padding, C, k * C, x, out};
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t at = 0; at < N * h; ++at) FN(take_rows)(&t, at / h, at % h);
}
