// A file, read in this browser -> the texts in it.

export const MOST_TEXTS = 10_000;
const LARGEST_BYTES = 50_000_000;
const TABLE = /\.(csv|tsv)$/i;

/** One text a line; blank lines are none. */
export const linesOf = (text) =>
  text
    .split(/\r\n|\n|\r/)
    .map((line) => line.trim())
    .filter(Boolean);

/** {name, lines} of a list, {name, rows} of a table; throws an Error in words. */
export async function readFile(file) {
  if (file.size > LARGEST_BYTES) {
    throw new Error(
      `${file.name} has ${file.size.toLocaleString("en")} bytes; at most ${LARGEST_BYTES.toLocaleString("en")} are read.`,
    );
  }
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
  } catch {
    throw new Error(`${file.name} is not text in UTF-8. Save it as UTF-8 and choose it again.`);
  }
  if (text.includes("\0")) throw new Error(`${file.name} is not a text file.`);
  const content = TABLE.test(file.name)
    ? { rows: parseTable(text, separatorOf(file.name, text)) }
    : { lines: linesOf(text) };
  if (!(content.rows ?? content.lines).length) throw new Error(`${file.name} holds no text.`);
  return { name: file.name, ...content };
}

function separatorOf(name, text) {
  if (/\.tsv$/i.test(name)) return "\t";
  const head = text.slice(0, text.search(/[\r\n]|$/));
  return head.split(";").length > head.split(",").length ? ";" : ",";
}

/** Rows of cells, quotes as in RFC 4180; rows without any text are left out. Throws where a quote is never closed. */
export function parseTable(text, separator) {
  const rows = [];
  let row = [];
  let cell = "";
  let isQuoted = false;
  const endCell = () => {
    row.push(cell.trim());
    cell = "";
  };
  const endRow = () => {
    endCell();
    if (row.some(Boolean)) rows.push(row);
    row = [];
  };
  for (let place = 0; place < text.length; place += 1) {
    const letter = text[place];
    if (isQuoted) {
      if (letter !== '"') cell += letter;
      else if (text[place + 1] === '"') cell += text[(place += 1)];
      else isQuoted = false;
    } else if (letter === '"' && cell.trim() === "") {
      isQuoted = true;
      cell = "";
    } else if (letter === separator) endCell();
    else if (letter === "\n" || letter === "\r") {
      if (letter === "\r" && text[place + 1] === "\n") place += 1;
      endRow();
    } else cell += letter;
  }
  if (isQuoted) throw new Error(`A quote is opened in row ${rows.length + 1} and never closed.`);
  endRow();
  return rows;
}

/** Names of a table's columns: those of its first row, or numbers. */
export function columnsOf(rows, hasHeader) {
  const width = Math.max(...rows.map((row) => row.length));
  return Array.from({ length: width }, (_, column) => (hasHeader && rows[0][column]) || `column ${column + 1}`);
}

/** The column with the longest texts, which most likely holds them. */
export function longestColumn(rows) {
  const width = Math.max(...rows.map((row) => row.length));
  const lengths = Array.from({ length: width }, (_, column) =>
    rows.reduce((sum, row) => sum + (row[column]?.length ?? 0), 0),
  );
  return lengths.indexOf(Math.max(...lengths));
}

/** Distinct texts in order, and what was left out of them. */
export function distinct(texts) {
  const own = [...new Set(texts.filter(Boolean))];
  return {
    texts: own.slice(0, MOST_TEXTS),
    numRepeated: texts.filter(Boolean).length - own.length,
    numFurther: Math.max(0, own.length - MOST_TEXTS),
  };
}
