// Sorts the table of cases by a column; a second click turns the order round.
const table = document.querySelector("#cases table");
const body = table.tBodies[0];
const headings = [...table.tHead.rows[0].cells].filter((cell) => cell.dataset.kind);

const key = (row, column, numeric) => {
  const text = row.cells[column].dataset.value;
  return numeric ? (text === "" ? null : Number(text)) : text;
};

const sort = (heading) => {
  const rising = heading.getAttribute("aria-sort") !== "ascending";
  const numeric = heading.dataset.kind === "number";
  const column = heading.cellIndex;
  const order = (a, b) => (numeric ? a - b : a.localeCompare(b)) * (rising ? 1 : -1);
  const rows = [...body.rows].map((row) => ({ row, value: key(row, column, numeric) }));
  // what has no figure comes last in both orders
  rows.sort((a, b) => (a.value === null) - (b.value === null) || (a.value === null ? 0 : order(a.value, b.value)));
  body.append(...rows.map(({ row }) => row));
  headings.forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
};

for (const heading of headings) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = heading.textContent;
  button.addEventListener("click", () => sort(heading));
  heading.replaceChildren(button);
}
