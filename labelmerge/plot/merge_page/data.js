// The labels, their groups and their texts, as the page was written with them.

export const byId = id => document.getElementById(id);

export const data = JSON.parse(byId("data").textContent);

export const labels = data.labels.map(([dataset, index, name, column, group], row) => ({
  row,
  dataset,
  index,
  name,
  column,
  group,
}));
export const textCount = data.places.length; // distinct texts, the columns

export const members = Array.from({ length: textCount }, () => []); // column → rows: labels that share a text
export const groups = Array.from({ length: data.groups.length + 1 }, () => []); // group number → rows
for (const label of labels) {
  members[label.column].push(label.row);
  if (label.group) groups[label.group].push(label.row);
}
export const groupSize = row => (labels[row].group ? groups[labels[row].group].length : 1);
export const datasetName = row => data.datasets[labels[row].dataset].name;

export const tableRows = [...byId("table").tBodies[0].rows]; // in the order in which the table shows them
export const meanings = tableRows.map(row => row.cells[row.cells.length - 1].textContent);

// What the search looks through, in lower case: names and datasets, or the meanings too.
export const names = labels.map(label => `${label.name} ${datasetName(label.row)}`.toLowerCase());
export const namesAndMeanings = meanings.map((meaning, row) => `${names[row]} ${meaning.toLowerCase()}`);
