// The labels, their classes and their texts, as the page was written with them. A label is named by its row.

export const byId = id => document.getElementById(id);

export const data = JSON.parse(byId("data").textContent);

export const labels = data.labels.map((each, row) => {
  const [dataset, index, name, short, column, classAt, meaning, evidence, confidence, note, nearest, cosine] = each;
  const [pixels, boxes] = each.slice(12);
  const words = { note, meaning: data.meanings[meaning], evidence: data.evidence[evidence] };
  return { row, dataset, index, name, short, column, classAt, confidence, nearest, cosine, pixels, boxes, ...words };
});
export const textCount = data.places.length; // distinct texts, the columns
export const members = Array.from({ length: textCount }, () => []); // column → rows: labels that share a text

export const classes = data.classes.map(([name, concepts, lowest, evidence, confidence]) => ({
  name,
  concepts: concepts.map(number => data.concepts[number]),
  lowest,
  evidence: data.evidence[evidence],
  confidence,
  rows: [],
}));
for (const label of labels) {
  members[label.column].push(label.row);
  classes[label.classAt].rows.push(label.row);
}
export const family = row => classes[labels[row].classAt].rows; // the labels of a label's class
export const merged = row => labels[row].classAt < data.merged; // whether several datasets have that class
export const datasetName = row => data.datasets[labels[row].dataset].name;

// What contains what, both ways: { classAt, evidence, confidence, cosine } of the other class. A rest is what its
// dataset has left over.
export const covers = data.covers.map(([whole, parts, rest]) => ({
  whole,
  rest,
  parts: parts.map(([classAt, cosine, evidence, confidence]) => {
    return { classAt, cosine, evidence: data.evidence[evidence], confidence };
  }),
}));
export const partsOf = new Map(covers.map(({ whole, parts }) => [whole, parts]));
export const wholesOf = new Map();
for (const { whole, parts } of covers) {
  for (const part of parts) {
    if (!wholesOf.has(part.classAt)) wholesOf.set(part.classAt, []);
    wholesOf.get(part.classAt).push({ ...part, classAt: whole });
  }
}
