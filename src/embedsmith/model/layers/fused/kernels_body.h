/* The kernels for one row type: T is uint16_t (bfloat16 bits) or float, EXP and RECIPROCAL as exact as T. Included by kernels.c, once for each. */

#define get NAME(get16)
#define put NAME(put16)

/* x += alpha (y + z); h = norm(x) weight + bias. y, z, bias, normed and rstd may be NULL.
 * center: LayerNorm, else RMSNorm. normed (the value before weight and bias) and rstd are what backward needs. */
LOOP(NAME(add_norm)) {
    float *x = a[0].p, alpha = a[3].f, eps = a[6].f, *rstd = a[10].p;
    const T *y = a[1].p, *z = a[2].p;
    const float *weight = a[4].p, *bias = a[5].p;
    int64_t center = a[7].i, width = a[11].i;
    T *h = a[8].p, *normed = a[9].p;
    for (int64_t i = first; i < last; i++) {
        float *row = x + i * width;
        vf sum = splat(0), squares = splat(0);
        EACH_VECTOR(j, width) {
            vf v = loadf(row + j);
            if (y) {
                vf update = get(y + i * width + j);
                if (z) update += get(z + i * width + j);
                v += alpha * update;
                storef(row + j, v);
            }
            sum += v;
            squares += v * v;
        }
        float mean = 0, variance;
        if (center) {
            mean = total(sum) / width;
            squares = splat(0);
            EACH_VECTOR(j, width) {
                vf d = loadf(row + j) - mean;
                squares += d * d;
            }
        }
        variance = total(squares) / width;
        float scale = 1.0f / sqrtf(variance + eps);
        if (rstd) rstd[i] = scale;
        EACH_VECTOR(j, width) {
            vf v = (loadf(row + j) - mean) * scale;
            if (normed) put(normed + i * width + j, v);
            v *= loadf(weight + j);
            if (bias) v += loadf(bias + j);
            put(h + i * width + j, v);
        }
    }
}

/* dx += gradient of the norm at dh (+ dh2); out = alpha dx, in the rows' type, for the product below. */
LOOP(NAME(norm_backward)) {
    const T *dh = a[0].p, *dh2 = a[1].p, *normed = a[2].p;
    const float *rstd = a[3].p, *weight = a[4].p;
    int64_t center = a[5].i, width = a[9].i;
    float *dx = a[6].p, alpha = a[8].f;
    T *out = a[7].p;
    for (int64_t i = first; i < last; i++) {
        int64_t at = i * width;
        vf sum = splat(0), along = splat(0);
        EACH_VECTOR(j, width) {
            vf g = get(dh + at + j);
            if (dh2) g += get(dh2 + at + j);
            g *= loadf(weight + j);
            sum += g;
            along += g * get(normed + at + j);
        }
        float mean = center ? total(sum) / width : 0, slope = total(along) / width, scale = rstd[i];
        EACH_VECTOR(j, width) {
            vf g = get(dh + at + j);
            if (dh2) g += get(dh2 + at + j);
            g *= loadf(weight + j);
            vf d = loadf(dx + at + j) + scale * (g - mean - slope * get(normed + at + j));
            storef(dx + at + j, d);
            put(out + at + j, alpha * d);
        }
    }
}

/* The gate's value and, if wanted, its slope. kind 0: SiLU; 1: GELU, tanh form (= x sigmoid(2 sqrt(2/pi) (...))). */
INLINE vf NAME(gate)(vf g, int32_t kind, vf *slope) {
    vf inner = g, inner_slope = splat(1);
    if (kind == 1) {
        inner = 1.59576912f * g * (1.0f + 0.044715f * g * g);
        inner_slope = 1.59576912f * (1.0f + 0.134145f * g * g);
    }
    vf sigmoid = RECIPROCAL(1.0f + EXP(-inner));
    if (slope) *slope = sigmoid + g * sigmoid * (1.0f - sigmoid) * inner_slope;
    return g * sigmoid;
}

/* y (rows x width) = gate(x[:, :width]) [* x[:, width:] if is_gated]. */
LOOP(NAME(activation)) {
    const T *x = a[0].p;
    T *y = a[1].p;
    int64_t kind = a[2].i, is_gated = a[3].i, width = a[4].i;
    for (int64_t i = first; i < last; i++) {
        const T *row = x + i * width * (is_gated ? 2 : 1);
        EACH_VECTOR(j, width) {
            vf v = NAME(gate)(get(row + j), kind, 0);
            if (is_gated) v *= get(row + width + j);
            put(y + i * width + j, v);
        }
    }
}

/* x becomes its own gradient at da. */
LOOP(NAME(activation_backward)) {
    T *x = a[0].p;
    const T *da = a[1].p;
    int64_t kind = a[2].i, is_gated = a[3].i, width = a[4].i;
    for (int64_t i = first; i < last; i++) {
        T *row = x + i * width * (is_gated ? 2 : 1);
        EACH_VECTOR(j, width) {
            vf slope, d = get(da + i * width + j);
            vf value = NAME(gate)(get(row + j), kind, &slope);
            if (is_gated) {
                vf up = get(row + width + j);
                put(row + width + j, d * value);
                d *= up;
            }
            put(row + j, d * slope);
        }
    }
}

/* ---- LoRA: thin products over dropped-out rows ------------------------------------------------------------------ */

/* Columns [first, last) of a row of x as float32, dropped or scaled. */
INLINE void NAME(drop_row)(const T *x, const dropout_t *d, int64_t row, int64_t width, int64_t first, int64_t last,
                           float *to) {
    for (int64_t j = first; j < last; j += LANES) storef(to + j - first, masked(get(x + j), d, row, width, j));
}

/* Calls step(R) for a few ranks in blocks of 8, 4, 2 and 1, so that sums stay in registers. */
#define EACH_RANK_BLOCK(step)                                              \
    for (int64_t r = 0, left = rank; left > 0; r = rank - left) {          \
        if (left >= 8) { step(8); left -= 8; }                             \
        else if (left >= 4) { step(4); left -= 4; }                        \
        else if (left >= 2) { step(2); left -= 2; }                        \
        else { step(1); left -= 1; }                                       \
    }

INLINE void NAME(project_row)(const T *x, const float *w, const dropout_t *d, float scale, float *u, int64_t row,
                              int64_t width, const int R) {
    vf sum[8];
    for (int t = 0; t < R; t++) sum[t] = splat(0);
    EACH_VECTOR(j, width) {
        vf v = masked(get(x + j), d, row, width, j);
        for (int t = 0; t < R; t++) sum[t] += v * loadf(w + t * width + j);
    }
    for (int t = 0; t < R; t++) u[t] = scale * total(sum[t]);
}

/* u (rows x rank) = scale * dropout(x) w^T, w (rank x width). For ranks of less than a vector. */
LOOP(NAME(project)) {
    const T *x = a[0].p;
    const float *w = a[2].p;
    const dropout_t *d = a[3].p;
    float scale = a[4].f, *u = a[5].p;
    int64_t stride = a[1].i, rank = a[6].i, width = a[7].i;
    for (int64_t i = first; i < last; i++) {
#define STEP(R) NAME(project_row)(x + i * stride, w + r * width, d, scale, u + i * rank + r, i, width, R)
        EACH_RANK_BLOCK(STEP)
#undef STEP
    }
}

/* R rows of u, from row i on. */
INLINE void NAME(project_rows)(const T *x, int64_t stride, const float *w, const dropout_t *d, float scale, float *u,
                               int64_t i, int64_t rank, int64_t width, const int R) {
    float rows[8 * THIN_COLUMNS];
    float *to = u + i * rank;
    for (int64_t j = 0; j < width; j += THIN_COLUMNS) {
        int64_t end = j + THIN_COLUMNS < width ? j + THIN_COLUMNS : width;
        for (int r = 0; r < R; r++)
            NAME(drop_row)(x + (i + r) * stride, d, i + r, width, j, end, rows + r * THIN_COLUMNS);
        int64_t t = 0;
        for (; t + 2 * LANES <= rank; t += 2 * LANES)
            tile(rows, THIN_COLUMNS, 1, w + j * rank + t, rank, to + t, rank, end - j, j > 0, R, 2);
        if (t < rank) tile(rows, THIN_COLUMNS, 1, w + j * rank + t, rank, to + t, rank, end - j, j > 0, R, 1);
    }
    EACH_VECTOR(t, R * rank) storef(to + t, scale * loadf(to + t));
}

/* As `project`, for ranks of whole vectors; w is (width x rank). */
LOOP(NAME(project_wide)) {
    const T *x = a[0].p;
    const float *w = a[2].p;
    const dropout_t *d = a[3].p;
    float scale = a[4].f, *u = a[5].p;
    int64_t stride = a[1].i, rank = a[6].i, width = a[7].i, i = first;
    for (; i + 8 <= last; i += 8) NAME(project_rows)(x, stride, w, d, scale, u, i, rank, width, 8);
    for (; i < last; i++) NAME(project_rows)(x, stride, w, d, scale, u, i, rank, width, 1);
}

/* R rows of y from row i on, V vectors of columns from column j on. */
INLINE void NAME(expand_rows)(const float *u, const float *w, const dropout_t *d, float scale, T *y, int64_t stride,
                              int64_t i, int64_t j, int64_t rank, int64_t width, const int R, const int V) {
    float sum[4 * 4 * LANES];
    tile(u + i * rank, rank, 1, w + j, width, sum, V * LANES, rank, 0, R, V);
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) {
            T *to = y + (i + r) * stride + j + v * LANES;
            vf update = loadf(sum + (r * V + v) * LANES);
            put(to, get(to) + scale * masked(update, d, i + r, width, j + v * LANES));
        }
}

/* y += dropout's mask * scale * (u w), w (rank x width). */
LOOP(NAME(expand_add)) {
    const float *u = a[0].p, *w = a[1].p;
    const dropout_t *d = a[2].p;
    float scale = a[3].f;
    T *y = a[4].p;
    int64_t stride = a[5].i, rank = a[6].i, width = a[7].i, j = 0;
#define ROWS(V)                                                                                               \
    int64_t i = first;                                                                                        \
    for (; i + 4 <= last; i += 4) NAME(expand_rows)(u, w, d, scale, y, stride, i, j, rank, width, 4, V);      \
    for (; i < last; i++) NAME(expand_rows)(u, w, d, scale, y, stride, i, j, rank, width, 1, V);
    for (; j + 4 * LANES <= width; j += 4 * LANES) { ROWS(4) }
    for (; j < width; j += LANES) { ROWS(1) }
#undef ROWS
}

/* g (rank x width) = scale * u^T dropout(x), by parts of two vectors of columns: sums do not depend on who takes them. */
LOOP(NAME(outer)) {
    const float *u = a[0].p;
    const T *x = a[1].p;
    const dropout_t *d = a[3].p;
    float scale = a[4].f, *g = a[5].p;
    int64_t stride = a[2].i, rank = a[6].i, width = a[7].i;
    float rows[OUTER_ROWS * 2 * LANES];
    for (int64_t j = part * 2 * LANES; j < end * 2 * LANES; j += 2 * LANES) {
        int64_t stop = j + 2 * LANES < width ? j + 2 * LANES : width;
        for (int64_t i = 0; i < last; i += OUTER_ROWS) {
            int64_t num = i + OUTER_ROWS < last ? OUTER_ROWS : last - i;
            for (int64_t r = 0; r < num; r++)
                NAME(drop_row)(x + (i + r) * stride, d, i + r, width, j, stop, rows + r * 2 * LANES);
#define BLOCK(R, V) tile(u + i * rank + r, 1, rank, rows, 2 * LANES, g + r * width + j, width, num, i > 0, R, V)
#define STEP(R) if (j + LANES < width) BLOCK(R, 2); else BLOCK(R, 1)
            EACH_RANK_BLOCK(STEP)
#undef STEP
#undef BLOCK
        }
        for (int64_t r = 0; r < rank; r++)
            for (int64_t c = j; c < stop; c += LANES) storef(g + r * width + c, scale * loadf(g + r * width + c));
    }
}

/* ---- attention -------------------------------------------------------------------------------------------------- */

INLINE void NAME(load_head)(const T *x, int64_t dim, float *to) { EACH_VECTOR(j, dim) storef(to + j, get(x + j)); }
INLINE void NAME(store_head)(const float *x, int64_t dim, T *to) { EACH_VECTOR(j, dim) put(to + j, loadf(x + j)); }

/* Ask for rows a head's width long before they are needed: they lie too far apart for the processor to guess. */
INLINE void NAME(fetch)(const T *x, int64_t stride, int64_t rows, int64_t width) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < width; j += 64 / sizeof(T)) __builtin_prefetch(x + i * stride + j, 0, 2);
}

/* Keys, rotated and scaled, and values of one KV head, as float32 rows; the first stands at position `first`. */
static void NAME(load_keys)(const attention_t *t, const T *k, const T *v, int64_t stride, int64_t first, int64_t num,
                            float *keys, float *values) {
    for (int64_t i = 0; i < num; i++) {
        NAME(load_head)(k + i * stride, t->dim, keys + i * t->dim);
        rotate(keys + i * t->dim, t, first + i, 1);
        scale_row(keys + i * t->dim, t->scale, t->dim);
        NAME(load_head)(v + i * stride, t->dim, values + i * t->dim);
    }
}

/* Gradients of what `load_keys` read, at those of what it made, which are overwritten. */
static void NAME(store_keys)(const attention_t *t, float *dkeys, float *dvalues, int64_t first, int64_t num, T *dk, T *dv,
                             int64_t stride) {
    for (int64_t i = 0; i < num; i++) {
        rotate(dkeys + i * t->dim, t, first + i, -1);
        scale_row(dkeys + i * t->dim, t->scale, t->dim);
        NAME(store_head)(dkeys + i * t->dim, t->dim, dk + i * stride);
        NAME(store_head)(dvalues + i * t->dim, t->dim, dv + i * stride);
    }
}

/* All that is read next after a member of a task's job, of the segment that is its own; dout may be NULL. */
static void NAME(fetch_next)(const attention_t *t, int64_t task, int64_t member, const T *q, int64_t q_stride,
                             const T *k, const T *v, int64_t kv_stride, const T *dout, int64_t out_stride) {
    job_t job = job_of(t, task / t->kv_heads);
    if (++member == job.end) {
        if (--task < 0) return;
        job = job_of(t, task / t->kv_heads);
        member = job.first;
    }
    part_t s = part_of(t, &job, member);
    int64_t kv_head = task % t->kv_heads, group = t->heads / t->kv_heads * t->dim;
    int64_t row = t->ends_only ? s.segment : s.start, num_queries = t->ends_only ? 1 : s.length;
    NAME(fetch)(k + s.start * kv_stride + kv_head * t->dim, kv_stride, s.length, t->dim);
    NAME(fetch)(v + s.start * kv_stride + kv_head * t->dim, kv_stride, s.length, t->dim);
    NAME(fetch)(q + row * q_stride + kv_head * group, q_stride, num_queries, group);
    if (dout) NAME(fetch)(dout + row * out_stride + kv_head * group, out_stride, num_queries, group);
}

/* Rotated queries from position `first` on, and the same transposed (dim x lanes). */
static void NAME(load_queries)(const attention_t *t, const T *q, int64_t stride, int64_t first, int64_t num,
                               float *queries, float *queries_t, int64_t lanes) {
    for (int64_t i = 0; i < num; i++) {
        NAME(load_head)(q + i * stride, t->dim, queries + i * t->dim);
        rotate(queries + i * t->dim, t, first + i, 1);
    }
    transpose(queries, num, t->dim, queries_t, lanes);
}

/* A block of at most QUERY_ROWS queries of segment `s`: `num` of them from position `first` on, which lie in rows from
 * `row` on and see `seen` of its `total` keys. Of those they may see, whole strips of `product`, which adds to whole
 * strips; what a query does not see among them has weight zero. */
#define EACH_QUERY_BLOCK                                                                                       \
    for (int64_t first = t->ends_only ? total - 1 : s.before, num, seen, row;                                  \
         num = total - first < QUERY_ROWS ? total - first : QUERY_ROWS,                                        \
                 seen = t->is_causal && ROUND_STRIP(first + num) < total ? ROUND_STRIP(first + num) : total,   \
                 row = t->ends_only ? s.segment : s.start + first - s.before, first < total;                   \
         first += QUERY_ROWS)

/* out (queries x heads*dim) = softmax(scale q k^T) v within each segment and its prefix, rotary applied to q and k on
 * the way. Work is one (job, KV head) at a time, the last, longest segments first; a segment's keys and values serve all
 * heads of the group, its prefix's all segments of the job.
 * Scores are held as keys x queries, so that softmax runs down a vector of columns at once. */
void NAME(attention)(const attention_t *t, const T *q, int64_t q_stride, const T *k, const T *v, int64_t kv_stride,
                     T *out, int64_t out_stride) {
    const int64_t dim = t->dim, group = t->heads / t->kv_heads, scores = (t->longest + SPARE_ROWS) * QUERY_ROWS;
    const int64_t matrix = (t->longest + SPARE_ROWS) * dim, block = (QUERY_ROWS + SPARE_ROWS) * dim;
    const int64_t share = t->members ? 1 : 4;
    go_home();
#pragma omp parallel
    {
        float *memory = aligned_alloc(64, sizeof(float) * (2 * matrix + 3 * block + scores));
        float *keys = memory, *values = keys + matrix;
        float *queries = values + matrix, *queries_t = queries + block, *sums = queries_t + block, *p = sums + block;
#pragma omp for schedule(dynamic, share)
        for (int64_t task = t->num_jobs * t->kv_heads - 1; task >= 0; task--) {
            int64_t kv_head = task % t->kv_heads;
            job_t job = job_of(t, task / t->kv_heads);
            int64_t at = job.start * kv_stride + kv_head * dim;
            NAME(load_keys)(t, k + at, v + at, kv_stride, 0, job.shared, keys, values);
            for (int64_t member = job.first; member < job.end; member++) {
                part_t s = part_of(t, &job, member);
                int64_t total = s.before + s.length, own = s.before * dim;
                int64_t ahead = t->is_causal ? 0 : t->window > 0 ? t->window - 1 : total;
                at = s.start * kv_stride + kv_head * dim;
                NAME(fetch_next)(t, task, member, q, q_stride, k, v, kv_stride, NULL, 0);
                if (s.segment != job.prefix)
                    NAME(load_keys)(t, k + at, v + at, kv_stride, s.before, s.length, keys + own, values + own);
                for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++)
                    EACH_QUERY_BLOCK {
                        int64_t lanes = ROUND_UP(num);
                        NAME(load_queries)
                        (t, q + row * q_stride + head * dim, q_stride, first, num, queries, queries_t, lanes);
                        product(keys, dim, 1, queries_t, lanes, p, lanes, seen, lanes, dim, 0);
                        if (t->softcap) cap_scores(p, NULL, seen * lanes, t->softcap);
                        softmax_columns(p, first, seen, lanes, t->window, ahead, EXP);
                        product(p, 1, lanes, values, dim, sums, dim, num, dim, seen, 0);
                        for (int64_t i = 0; i < num; i++)
                            NAME(store_head)(sums + i * dim, dim, out + (row + i) * out_stride + head * dim);
                    }
            }
        }
        free(memory);
    }
}

/* Gradients of `attention` at dout; probabilities are computed again. dq, dk, dv have the layout of q, k, v.
 * What the segments of a job add to their prefix's keys and values goes into a sum of its own, and those are added up in
 * the order of the jobs: nothing depends on who computed which. */
void NAME(attention_backward)(const attention_t *t, const T *q, int64_t q_stride, const T *k, const T *v,
                              int64_t kv_stride, const T *dout, int64_t out_stride, T *dq, T *dk, T *dv) {
    const int64_t dim = t->dim, group = t->heads / t->kv_heads, scores = (t->longest + SPARE_ROWS) * QUERY_ROWS;
    const int64_t matrix = (t->longest + SPARE_ROWS) * dim, block = (QUERY_ROWS + SPARE_ROWS) * dim;
    const int64_t share = t->members ? 1 : 4, partial = t->longest_prefix * dim;
    float *partials = t->num_shared ? aligned_alloc(64, sizeof(float) * t->num_shared * t->kv_heads * 2 * partial) : NULL;
    go_home();
#pragma omp parallel
    {
        float *memory = aligned_alloc(64, sizeof(float) * (4 * matrix + 5 * block + (t->softcap ? 3 : 2) * scores));
        float *keys = memory, *values = keys + matrix, *dkeys = values + matrix, *dvalues = dkeys + matrix;
        float *queries = dvalues + matrix, *queries_t = queries + block, *dqueries = queries_t + block;
        float *douts = dqueries + block, *douts_t = douts + block;
        float *p = douts_t + block, *ds = p + scores, *slopes = ds + scores;
#pragma omp for schedule(dynamic, share)
        for (int64_t task = t->num_jobs * t->kv_heads - 1; task >= 0; task--) {
            int64_t kv_head = task % t->kv_heads;
            job_t job = job_of(t, task / t->kv_heads);
            int64_t at = job.start * kv_stride + kv_head * dim, shared = job.shared * dim;
            NAME(load_keys)(t, k + at, v + at, kv_stride, 0, job.shared, keys, values);
            memset(dkeys, 0, sizeof(float) * shared);
            memset(dvalues, 0, sizeof(float) * shared);
            for (int64_t member = job.first; member < job.end; member++) {
                part_t s = part_of(t, &job, member);
                int64_t total = s.before + s.length, own = s.before * dim;
                int64_t ahead = t->is_causal ? 0 : t->window > 0 ? t->window - 1 : total;
                at = s.start * kv_stride + kv_head * dim;
                NAME(fetch_next)(t, task, member, q, q_stride, k, v, kv_stride, dout, out_stride);
                NAME(fetch_next)(t, task, member, dq, q_stride, dk, dv, kv_stride, NULL, 0);
                if (s.segment != job.prefix) {
                    NAME(load_keys)(t, k + at, v + at, kv_stride, s.before, s.length, keys + own, values + own);
                    memset(dkeys + own, 0, sizeof(float) * s.length * dim);
                    memset(dvalues + own, 0, sizeof(float) * s.length * dim);
                }
                for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++)
                    EACH_QUERY_BLOCK {
                        int64_t lanes = ROUND_UP(num);
                        NAME(load_queries)
                        (t, q + row * q_stride + head * dim, q_stride, first, num, queries, queries_t, lanes);
                        for (int64_t i = 0; i < num; i++)
                            NAME(load_head)(dout + (row + i) * out_stride + head * dim, dim, douts + i * dim);
                        transpose(douts, num, dim, douts_t, lanes);
                        product(keys, dim, 1, queries_t, lanes, p, lanes, seen, lanes, dim, 0);
                        product(values, dim, 1, douts_t, lanes, ds, lanes, seen, lanes, dim, 0);
                        if (t->softcap) cap_scores(p, slopes, seen * lanes, t->softcap);
                        softmax_columns(p, first, seen, lanes, t->window, ahead, EXP);
                        softmax_columns_backward(p, ds, seen, lanes);
                        if (t->softcap) multiply(ds, slopes, seen * lanes);
                        product(ds, 1, lanes, keys, dim, dqueries, dim, num, dim, seen, 0);
                        product(ds, lanes, 1, queries, dim, dkeys, dim, seen, dim, num, 1);
                        product(p, lanes, 1, douts, dim, dvalues, dim, seen, dim, num, 1);
                        for (int64_t i = 0; i < num; i++) {
                            rotate(dqueries + i * dim, t, first + i, -1);
                            NAME(store_head)(dqueries + i * dim, dim, dq + (row + i) * q_stride + head * dim);
                        }
                    }
                if (s.segment != job.prefix)
                    NAME(store_keys)(t, dkeys + own, dvalues + own, s.before, s.length, dk + at, dv + at, kv_stride);
            }
            if (job.shared) {
                memcpy(partials + 2 * task * partial, dkeys, sizeof(float) * shared);
                memcpy(partials + (2 * task + 1) * partial, dvalues, sizeof(float) * shared);
            }
        }
        if (partials) {
#pragma omp for schedule(dynamic, 1)
            for (int64_t task = 0; task < t->num_shared * t->kv_heads; task++) {
                int64_t j = task / t->kv_heads, kv_head = task % t->kv_heads;
                if (j > 0 && t->prefixes[j] == t->prefixes[j - 1]) continue;
                job_t job = job_of(t, j);
                float *sum = partials + 2 * task * partial;
                for (int64_t i = j + 1; i < t->num_shared && t->prefixes[i] == job.prefix; i++)
                    for (int64_t part = 0; part < 2; part++) {
                        const float *more = partials + 2 * (i * t->kv_heads + kv_head) * partial;
                        add(sum + part * partial, more + part * partial, job.shared * dim);
                    }
                int64_t at = job.start * kv_stride + kv_head * dim;
                NAME(store_keys)(t, sum, sum + partial, 0, job.shared, dk + at, dv + at, kv_stride);
            }
        }
        free(memory);
    }
    free(partials);
}

#undef get
#undef put
#undef EACH_RANK_BLOCK
#undef EACH_QUERY_BLOCK
