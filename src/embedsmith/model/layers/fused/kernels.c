/* CPU kernels of the fused decoder: everything between two matrix products.
 *
 * Plain C with OpenMP; no torch header, so a compiler builds it in seconds. `kernels_body.h` is included twice, for
 * rows in bfloat16 and in float32; arithmetic is float32 always. Vectors are as wide as the machine's with AVX-512,
 * else 8 floats: of wider ones than the machine's, compilers keep arrays in memory instead of registers.
 *
 * Layout everywhere: row-major, one row per token. `stride` is the distance between rows, in elements. All widths are
 * multiples of 16; LoRA's rank may be anything.
 * Built without -ffast-math: linked into a process it would switch off denormals for everyone.
 */
#ifdef __linux__
#define _GNU_SOURCE
#include <sched.h>
#endif
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif
int32_t lanes(void) { return LANES; }
typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));
typedef uint16_t vh __attribute__((vector_size(2 * LANES)));

#define INLINE static inline __attribute__((always_inline))
enum { STRIP_ROWS = 6 }; /* rows whose sums fill the registers, in products.h */
#define ROUND_UP(n) (((n) + LANES - 1) / LANES * LANES)

INLINE vf splat(float a) { return a - (vf){0}; }
INLINE vi splat_i(int32_t a) { return a - (vi){0}; }
INLINE vf select_f(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }

/* What C's vector extension has no operator for; one instruction each on AVX-512. */
#ifdef __AVX512F__
INLINE vf max_v(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vf min_v(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE vf reciprocal(vf a) { /* 14 bits from the table, the rest by a Newton step */
    vf r = (vf)_mm512_rcp14_ps((__m512)a);
    return r * (2.0f - a * r);
}
INLINE vf keep_from(vu x, uint32_t threshold, vf a) { /* a where x >= threshold, else 0 */
    return (vf)_mm512_maskz_mov_ps(_mm512_cmpge_epu32_mask((__m512i)x, _mm512_set1_epi32(threshold)), (__m512)a);
}
#else
INLINE vf max_v(vf a, vf b) { return select_f(a > b, a, b); }
INLINE vf min_v(vf a, vf b) { return select_f(a < b, a, b); }
INLINE vf reciprocal(vf a) { return 1.0f / a; }
INLINE vf keep_from(vu x, uint32_t threshold, vf a) { return select_f(x >= (threshold - (vu){0}), a, splat(0)); }
#endif

typedef float v8 __attribute__((vector_size(32)));
typedef float v4 __attribute__((vector_size(16)));

INLINE float total(vf v) {
    union { vf whole; v8 half[LANES / 8]; } a = {v};
    union { v8 whole; v4 half[2]; } b = {LANES == 16 ? a.half[0] + a.half[LANES / 8 - 1] : a.half[0]};
    union { v4 whole; float of[4]; } c = {b.half[0] + b.half[1]};
    return (c.of[0] + c.of[1]) + (c.of[2] + c.of[3]);
}

INLINE vf loadf(const float *p) { vf v; memcpy(&v, p, sizeof v); return v; }
INLINE void storef(float *p, vf v) { memcpy(p, &v, sizeof v); }
#define EACH_VECTOR(j, n) for (int64_t j = 0; j < (n); j += LANES)

/* A loop over rows `first` to `last`, or over parts of what it makes (panels of columns) from `part` to `end`, or both;
 * `run_loops` at the end of this file shares them out. Each row and part is written by itself, so who takes it changes
 * nothing. What it reads and writes lies in slots, in the order of `loops.py`. */
typedef union {
    void *p;
    int64_t i;
    float f;
} slot_t;
#define LOOP(name) static void name(const slot_t *a, int64_t first, int64_t last, int64_t part, int64_t end)

/* e^x to about 1e-7 relative: x = n ln 2 + f, a polynomial in f, n into the exponent. Held to e^-87 .. e^88. */
INLINE vf exp_v(vf x) {
    x = min_v(max_v(x, splat(-87.0f)), splat(88.0f));
    vf n = (x * 1.44269504f + 12582912.0f) - 12582912.0f; /* rounds to the nearest whole number */
    vf f = x - n * 0.693359375f + n * 2.12194440e-4f;
    vf p = f * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = p * (f * f) + f + 1.0f;
    vi exponent = (__builtin_convertvector(n, vi) + 127) << 23;
    return p * (vf)exponent;
}

/* e^x to 14 bits and 1 / x to 14 bits, for rows that are rounded to bfloat16's 8 anyway: half the instructions. */
#ifdef __AVX512F__
INLINE vf exp_quick(vf x) {
    vf t = x * 1.44269504f;
    vf n = (vf)_mm512_roundscale_ps((__m512)t, _MM_FROUND_TO_NEAREST_INT);
    vf f = t - n, p = f * 9.6759e-3f + 5.5507e-2f;
    p = p * f + 2.4022e-1f;
    p = p * f + 6.9315e-1f;
    p = p * f + 1.0f;
    return (vf)_mm512_scalef_ps((__m512)p, (__m512)n);
}
INLINE vf reciprocal_quick(vf a) { return (vf)_mm512_rcp14_ps((__m512)a); }
#else
INLINE vf exp_quick(vf x) { return exp_v(x); }
INLINE vf reciprocal_quick(vf a) { return reciprocal(a); }
#endif

/* ---- a core for each thread ------------------------------------------------------------------------------------- */

/* Threads that wake beside a busy process are often put on the same core as the one that wakes them, and take turns there
 * while the other process has a core alone. So each waiting thread is bound to a core. The first one, whose children
 * inherit where they may run, stays free, and only goes back to its core before it begins a loop. */
#ifdef __linux__
extern int omp_get_thread_num(void);
static _Thread_local int home = -1;
static _Thread_local cpu_set_t everywhere;

static void run_on(int core) {
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(core, &only);
    sched_setaffinity(0, sizeof only, &only);
}

/* Bind the calling thread's threads, where they are as many as the cores that it may run on; whether they are. */
int32_t bind_threads(int64_t threads) {
    int cores[CPU_SETSIZE], num_cores = 0;
    if (sched_getaffinity(0, sizeof everywhere, &everywhere)) return 0;
    for (int core = 0; core < CPU_SETSIZE; core++)
        if (CPU_ISSET(core, &everywhere)) cores[num_cores++] = core;
    if (num_cores != threads) return 0;
    home = cores[0];
#pragma omp parallel num_threads(threads)
    if (omp_get_thread_num() > 0) run_on(cores[omp_get_thread_num()]);
    return 1;
}

static void go_home(void) {
    if (home < 0 || sched_getcpu() == home) return;
    run_on(home);
    sched_setaffinity(0, sizeof everywhere, &everywhere);
}
#else
int32_t bind_threads(int64_t threads) { return 0; }
static void go_home(void) {}
#endif

/* ---- dropout: the mask is a function of (seed, row, column), so it is never stored ---------------------------- */

/* Dropout of one product's input. threshold 0: none. rows: the original row of each row, or NULL. */
typedef struct {
    uint32_t seed0, seed1, threshold;
    float keep_scale;
    const int64_t *rows;
    int64_t first_row;
} dropout_t;

#define SPREAD 0x9E3779B1u
#if LANES == 16
static const vi LANE = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#else
static const vi LANE = {0, 1, 2, 3, 4, 5, 6, 7};
#endif

/* A vector of x from (row, column) on, dropped or scaled. */
INLINE vf masked(vf x, const dropout_t *d, int64_t row, int64_t width, int64_t column) {
    if (!d->threshold) return x;
    uint32_t first = (uint32_t)(((d->rows ? d->rows[row] : row) + d->first_row) * width + column);
    vu h = (vu)LANE * SPREAD + (first * SPREAD + d->seed0);
    h ^= h >> 16;
    h = (h * 0x7FEB352Du) ^ d->seed1;
    h ^= h >> 15;
    h *= 0x846CA68Bu;
    return keep_from(h, d->threshold, x * d->keep_scale);
}

/* ---- small float32 matrix products, for attention and LoRA ------------------------------------------------------------ */

/* c (R x V vectors) [+]= a (R x k) b (k x V vectors); a's element (i, p) lies at i*ai + p*ap. R and V are constants. */
INLINE void sums(const float *a, int64_t ai, int64_t ap, const float *b, int64_t ldb, float *c, int64_t ldc, int64_t k,
                 int accumulate, const int R, const int V) {
    vf sum[8][4];
    for (int i = 0; i < R; i++)
        for (int v = 0; v < V; v++) sum[i][v] = accumulate ? loadf(c + i * ldc + v * LANES) : splat(0);
    for (int64_t p = 0; p < k; p++) {
        vf row[4];
        for (int v = 0; v < V; v++) row[v] = loadf(b + p * ldb + v * LANES);
        for (int i = 0; i < R; i++) {
            float scalar = a[i * ai + p * ap];
            for (int v = 0; v < V; v++) sum[i][v] += scalar * row[v];
        }
    }
    for (int i = 0; i < R; i++)
        for (int v = 0; v < V; v++) storef(c + i * ldc + v * LANES, sum[i][v]);
}

/* The same by as many rows and vectors at a time as the registers hold: 32 with AVX-512, else 16. */
enum { MOST_ROWS = LANES == 16 ? 8 : 4, MOST_VECTORS = LANES == 16 ? 4 : 2 };
INLINE void tile(const float *a, int64_t ai, int64_t ap, const float *b, int64_t ldb, float *c, int64_t ldc, int64_t k,
                 int accumulate, const int R, const int V) {
    for (int i = 0; i < R; i += MOST_ROWS)
        for (int v = 0; v < V; v += MOST_VECTORS)
            sums(a + i * ai, ai, ap, b + v * LANES, ldb, c + i * ldc + v * LANES, ldc, k, accumulate,
                 R < MOST_ROWS ? R : MOST_ROWS, V < MOST_VECTORS ? V : MOST_VECTORS);
}

/* c (m x n) [+]= a (m x k) b (k x n); n is a multiple of 16. Rows go in strips of 4 or 8, so that 8 to 16 sums keep
 * the adders busy; the last strip runs over: a and c need room for SPARE_ROWS more, which may hold anything. */
enum { SPARE_ROWS = 7 };
#define ROUND_STRIP(n) (((n) + 7) / 8 * 8)
static void product(const float *a, int64_t ai, int64_t ap, const float *b, int64_t ldb, float *c, int64_t ldc,
                    int64_t m, int64_t n, int64_t k, int accumulate) {
#define STRIPS(R, V)                                                                                                  \
    for (int64_t i = 0; i < m; i += R) tile(a + i * ai, ai, ap, b + j, ldb, c + i * ldc + j, ldc, k, accumulate, R, V); \
    j += V * LANES;
    for (int64_t j = 0; j < n;) {
        int64_t vectors = (n - j) / LANES;
        if (vectors >= 4) {
            STRIPS(4, 4)
        } else if (vectors >= 2) {
            STRIPS(8, 2)
        } else {
            STRIPS(8, 1)
        }
    }
}

/* What a LoRA product holds as float32 at a time: columns of eight rows, or rows of two vectors of columns. */
enum { THIN_COLUMNS = 512, OUTER_ROWS = 64 };

/* ---- attention ------------------------------------------------------------------------------------------------- */

/* One call's shape. Every segment attends to its prefix, if it has one, and to itself, causally; without prefixes it may
 * be both ways. `ends_only`: only its last query.
 *
 * Work comes in jobs. Job j is segments members[bounds[j]] to members[bounds[j + 1] - 1]; their prefix is segment
 * prefixes[j], which may be one of them. The first num_shared jobs are such, those of one prefix side by side; in the
 * others each segment is alone and prefixes[j] is -1. members NULL: all are, in their order. */
typedef struct {
    const int32_t *cu_seqlens, *members, *bounds, *prefixes;
    int64_t num_jobs, num_shared, longest_prefix;
    int64_t longest; /* prefix included */
    int64_t heads, kv_heads, dim, rotary_dim, window;
    int32_t ends_only, is_causal;
    float scale, softcap; /* softcap c: scores become c tanh(score / c); 0: none */
    const float *cos, *sin; /* (positions, rotary_dim / 2) */
} attention_t;

/* A job: members from `first` on and below `end`, and where the `shared` rows of their prefix start. */
typedef struct {
    int64_t first, end, prefix, start, shared;
} job_t;

INLINE job_t job_of(const attention_t *t, int64_t j) {
    if (!t->members) return (job_t){j, j + 1, -1, 0, 0};
    int64_t prefix = t->prefixes[j], start = prefix < 0 ? 0 : t->cu_seqlens[prefix];
    return (job_t){t->bounds[j], t->bounds[j + 1], prefix, start, prefix < 0 ? 0 : t->cu_seqlens[prefix + 1] - start};
}

/* A segment: `length` rows from `start` on, the first at position `before`. */
typedef struct {
    int64_t segment, start, length, before;
} part_t;

INLINE part_t part_of(const attention_t *t, const job_t *job, int64_t member) {
    int64_t segment = t->members ? t->members[member] : member, start = t->cu_seqlens[segment];
    return (part_t){segment, start, t->cu_seqlens[segment + 1] - start, segment == job->prefix ? 0 : job->shared};
}

enum { QUERY_ROWS = 32 };
#define MASKED -1e30f /* not infinity, which exp_quick would turn into NaN */

/* Softmax of each column of s (seen keys x lanes queries) over keys (position - window, position + ahead]; the others
 * become zero. Column l is the query at position first + l. */
INLINE void softmax_columns(float *s, int64_t first, int64_t seen, int64_t lanes, int64_t window, int64_t ahead,
                            vf (*exp)(vf)) {
    EACH_VECTOR(l, lanes) {
        vi position = LANE + (int32_t)(first + l), before = window > 0 ? position - (int32_t)window : splat_i(-1);
        vi last = position + (int32_t)ahead;
        vf top = splat(MASKED), sum = splat(0);
        for (int64_t j = 0; j < seen; j++) {
            vi key = splat_i((int32_t)j);
            vf v = select_f((key <= last) & (key > before), loadf(s + j * lanes + l), splat(MASKED));
            top = max_v(top, v);
            storef(s + j * lanes + l, v);
        }
        for (int64_t j = 0; j < seen; j++) {
            vf e = exp(loadf(s + j * lanes + l) - top);
            sum += e;
            storef(s + j * lanes + l, e);
        }
        vf scale = 1.0f / sum;
        for (int64_t j = 0; j < seen; j++) storef(s + j * lanes + l, loadf(s + j * lanes + l) * scale);
    }
}

/* Scores s become cap tanh(s / cap); slopes, if wanted, the derivative. tanh(x) = 1 - 2 / (e^2x + 1), to float32's digits. */
static void cap_scores(float *s, float *slopes, int64_t n, float cap) {
    float inverse = 1.0f / cap;
    EACH_VECTOR(j, n) {
        vf value = 1.0f - 2.0f * reciprocal(exp_v(2.0f * inverse * loadf(s + j)) + 1.0f);
        storef(s + j, cap * value);
        if (slopes) storef(slopes + j, 1.0f - value * value);
    }
}

static void add(float *x, const float *y, int64_t n) { EACH_VECTOR(j, n) storef(x + j, loadf(x + j) + loadf(y + j)); }

static void multiply(float *x, const float *y, int64_t n) {
    EACH_VECTOR(j, n) storef(x + j, loadf(x + j) * loadf(y + j));
}

/* p (seen keys x lanes queries) and the gradient of its columns at ds, which becomes that of the scores. */
INLINE void softmax_columns_backward(const float *p, float *ds, int64_t seen, int64_t lanes) {
    EACH_VECTOR(l, lanes) {
        vf mean = splat(0);
        for (int64_t j = l; j < seen * lanes; j += lanes) mean += loadf(p + j) * loadf(ds + j);
        for (int64_t j = l; j < seen * lanes; j += lanes) storef(ds + j, loadf(p + j) * (loadf(ds + j) - mean));
    }
}

/* Rotate the first rotary_dim values in place (halves paired, Su et al. 2021); direction -1 turns back. */
INLINE void rotate(float *x, const attention_t *t, int64_t position, float direction) {
    int64_t half = t->rotary_dim / 2, j = 0;
    const float *cos = t->cos + position * half, *sin = t->sin + position * half;
    for (; j + LANES <= half; j += LANES) {
        vf a = loadf(x + j), b = loadf(x + j + half), c = loadf(cos + j), s = loadf(sin + j) * direction;
        storef(x + j, a * c - b * s);
        storef(x + j + half, b * c + a * s);
    }
    for (; j < half; j++) {
        float a = x[j], b = x[j + half], s = direction * sin[j];
        x[j] = a * cos[j] - b * s;
        x[j + half] = b * cos[j] + a * s;
    }
}

INLINE void scale_row(float *x, float scale, int64_t n) { EACH_VECTOR(j, n) storef(x + j, loadf(x + j) * scale); }

/* LANES x LANES floats in place: stage d swaps the blocks of d x d off the diagonal of every block of 2d x 2d. */
#ifdef __has_builtin
#if __has_builtin(__builtin_shufflevector)
#define HAS_SHUFFLE
#endif
#endif
#ifdef HAS_SHUFFLE
#define LOWER(d, l) ((l) & (d) ? LANES + (l) - (d) : (l))
#define UPPER(d, l) ((l) & (d) ? LANES + (l) : (l) + (d))
#define EIGHT_LANES(f, d) f(d, 0), f(d, 1), f(d, 2), f(d, 3), f(d, 4), f(d, 5), f(d, 6), f(d, 7)
#if LANES == 16
#define EACH_LANE(f, d) \
    EIGHT_LANES(f, d), f(d, 8), f(d, 9), f(d, 10), f(d, 11), f(d, 12), f(d, 13), f(d, 14), f(d, 15)
#else
#define EACH_LANE EIGHT_LANES
#endif
#define STAGE(d)                                                         \
    for (int i = 0; i < LANES; i++)                                      \
        if (!(i & (d))) {                                                \
            vf a = m[i], b = m[i | (d)];                                 \
            m[i] = __builtin_shufflevector(a, b, EACH_LANE(LOWER, d));   \
            m[i | (d)] = __builtin_shufflevector(a, b, EACH_LANE(UPPER, d)); \
        }
INLINE void transpose_square(vf *m) {
    STAGE(1) STAGE(2) STAGE(4)
#if LANES == 16
    STAGE(8)
#endif
}
#else
INLINE void transpose_square(vf *m) {
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < i; j++) {
            float a = m[i][j];
            m[i][j] = m[j][i];
            m[j][i] = a;
        }
}
#endif

/* x (rows x columns) -> y (columns x stride), stride of whole vectors; what lies past the rows becomes zero. */
static void transpose(const float *x, int64_t rows, int64_t columns, float *y, int64_t stride) {
    EACH_VECTOR(i, stride)
        EACH_VECTOR(j, columns) {
            vf square[LANES];
            for (int64_t l = 0; l < LANES; l++) square[l] = i + l < rows ? loadf(x + (i + l) * columns + j) : splat(0);
            transpose_square(square);
            for (int64_t l = 0; l < LANES; l++) storef(y + (j + l) * stride + i, square[l]);
        }
}

#define NAME(x) x##_bf16
#define T uint16_t
#define EXP exp_quick
#define RECIPROCAL reciprocal_quick
INLINE vf get16_bf16(const uint16_t *p) {
    vh bits;
    memcpy(&bits, p, sizeof bits);
    return (vf)(__builtin_convertvector(bits, vu) << 16);
}
INLINE void put16_bf16(uint16_t *p, vf v) { /* to the nearest, ties to even */
#ifdef __AVX512BF16__
    __m256bh half = _mm512_cvtneps_pbh((__m512)v);
#else
    vu bits = (vu)v;
    bits += 0x7FFFu + ((bits >> 16) & 1u);
    vh half = __builtin_convertvector(bits >> 16, vh);
#endif
    memcpy(p, &half, sizeof half);
}
#include "kernels_body.h"
#undef NAME
#undef T
#undef EXP
#undef RECIPROCAL

#define NAME(x) x##_f32
#define T float
#define EXP exp_v
#define RECIPROCAL reciprocal
INLINE vf get16_f32(const float *p) { vf v; memcpy(&v, p, sizeof v); return v; }
INLINE void put16_f32(float *p, vf v) { memcpy(p, &v, sizeof v); }
#include "kernels_body.h"
#include "products.h"

/* ---- several loops together ------------------------------------------------------------------------------------- */

typedef struct {
    int64_t loop, parts, is_outer;
    slot_t slots[13];
} call_t;

typedef struct {
    const char *name;
    void (*run)(const slot_t *, int64_t, int64_t, int64_t, int64_t);
} loop_t;
#define BOTH(name) {#name "_bf16", name##_bf16}, {#name "_f32", name##_f32}
static const loop_t LOOPS[] = {
    BOTH(add_norm), BOTH(norm_backward), BOTH(activation), BOTH(activation_backward), BOTH(project),
    BOTH(project_wide), BOTH(expand_add), BOTH(outer),
#ifdef __AVX512BF16__
    {"plain_product", plain_product}, {"add_product", add_product}, {"product_activation", product_activation},
    {"product_activation_backward", product_activation_backward},
#endif
};

/* A loop's number, or -1. */
int64_t find_loop(const char *name) {
    for (uint64_t i = 0; i < sizeof LOOPS / sizeof *LOOPS; i++)
        if (!strcmp(LOOPS[i].name, name)) return (int64_t)i;
    return -1;
}

/* BLOCK_ROWS: as many rows share a panel of weights while it lies in the second cache. FEW_ROWS: a thread with fewer has
 * read the weights for too little. */
enum { BLOCK_ROWS = 96, FEW_ROWS = 48, SHARE_ROWS = 16 };

/* Run calls of loops over the same rows, each as if those before it had ended, in one parallel region; then outer
 * products, which sum over the rows.
 *
 * Many rows: a thread takes a block of them through all calls, so that threads meet once, however many there are, and a
 * core that others use takes fewer blocks. Few rows: threads share the parts of each call. */
void run_loops(const call_t *calls, int64_t num_calls, int64_t rows, int64_t threads) {
    int64_t blocks = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS, outer_parts = 0;
    for (int64_t c = 0; c < num_calls; c++) outer_parts += calls[c].is_outer ? calls[c].parts : 0;
    const int is_wide = rows >= threads * FEW_ROWS;
    if (is_wide) blocks = (blocks + threads - 1) / threads * threads;
    int64_t block_rows = (rows + blocks - 1) / blocks;
    if (is_wide) block_rows = (block_rows + STRIP_ROWS - 1) / STRIP_ROWS * STRIP_ROWS;
    go_home();
#pragma omp parallel
    {
        if (is_wide) {
#pragma omp for schedule(dynamic, 1)
            for (int64_t block = 0; block < blocks; block++) {
                int64_t first = block * block_rows, last = first + block_rows < rows ? first + block_rows : rows;
                for (int64_t c = 0; c < num_calls && first < last; c++)
                    if (!calls[c].is_outer) LOOPS[calls[c].loop].run(calls[c].slots, first, last, 0, calls[c].parts);
            }
        } else {
            for (int64_t c = 0; c < num_calls; c++) {
                const call_t *call = calls + c;
                const int64_t share = call->parts > 1 ? block_rows : SHARE_ROWS, shares = (rows + share - 1) / share;
                if (call->is_outer) continue;
#pragma omp for schedule(dynamic, 1)
                for (int64_t turn = 0; turn < shares * call->parts; turn++) {
                    int64_t first = turn / call->parts * share, part = turn % call->parts;
                    int64_t last = first + share < rows ? first + share : rows;
                    LOOPS[call->loop].run(call->slots, first, last, part, part + 1);
                }
            }
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t turn = 0; turn < outer_parts; turn++) {
            const call_t *call = calls;
            int64_t part = turn;
            for (; !call->is_outer || part >= call->parts; call++) part -= call->is_outer ? call->parts : 0;
            LOOPS[call->loop].run(call->slots, 0, rows, part, part + 1);
        }
    }
}
