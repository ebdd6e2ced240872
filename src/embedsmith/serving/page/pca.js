// The two directions in which vectors vary most, by power iteration.

const MOST_ROUNDS = 500;
const SMALLEST_CHANGE = 1e-7;

/**
 * K vectors -> {points: [[x, y]] x K, share}: each vector's place on the two directions of the largest variance around
 * their mean, and the share of the variance that those two hold (0 to 1).
 */
export function project(vectors) {
  const rows = center(vectors);
  const total = sumOfSquares(rows);
  const axes = [];
  while (axes.length < 2) axes.push(strongest(rows, axes));
  const points = rows.map((row) => axes.map((axis) => dot(row, axis)));
  return { points, share: total ? sumOfSquares(points) / total : 0 };
}

/** Mirror points along each axis so that they lie as near to others as that allows: a direction's sign means nothing. */
export function mirror(points, others) {
  const signs = [0, 1].map((axis) =>
    points.reduce((sum, point, row) => sum + point[axis] * others[row][axis], 0) < 0 ? -1 : 1,
  );
  return points.map((point) => point.map((value, axis) => signs[axis] * value));
}

function center(vectors) {
  const mean = new Float64Array(vectors[0].length);
  for (const vector of vectors) add(mean, vector, 1 / vectors.length);
  return vectors.map((vector) => Float64Array.from(vector, (value, place) => value - mean[place]));
}

/** The unit vector along which rows vary most, at right angles to those given; zeros where nothing is left. */
function strongest(rows, found) {
  let axis = start(rows, found);
  for (let round = 0; round < MOST_ROUNDS; round += 1) {
    const next = new Float64Array(axis.length);
    for (const row of rows) add(next, row, dot(row, axis));
    if (!normalize(remove(next, found))) break;
    const change = next.reduce((most, value, place) => Math.max(most, Math.abs(value - axis[place])), 0);
    axis = next;
    if (change < SMALLEST_CHANGE) break;
  }
  return axis;
}

/** The longest row, without what lies along the directions given. */
function start(rows, found) {
  const left = rows.map((row) => remove(row.slice(), found));
  const lengths = left.map((row) => dot(row, row));
  const longest = left[lengths.indexOf(Math.max(...lengths))];
  normalize(longest);
  return longest;
}

function remove(vector, axes) {
  for (const axis of axes) add(vector, axis, -dot(vector, axis));
  return vector;
}

function normalize(vector) {
  const length = Math.sqrt(dot(vector, vector));
  if (length < 1e-12) {
    vector.fill(0);
    return false;
  }
  for (let place = 0; place < vector.length; place += 1) vector[place] /= length;
  return true;
}

function add(sum, vector, factor) {
  for (let place = 0; place < sum.length; place += 1) sum[place] += factor * vector[place];
}

function dot(a, b) {
  let sum = 0;
  for (let place = 0; place < a.length; place += 1) sum += a[place] * b[place];
  return sum;
}

const sumOfSquares = (rows) => rows.reduce((sum, row) => sum + dot(row, row), 0);
