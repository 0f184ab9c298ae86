"use strict";
// Sorts the list of images by the column whose heading is pressed; dashes always come last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const compareNames = new Intl.Collator(undefined, { numeric: true }).compare;
  const press = (column) => {
    const rising = heads[column].getAttribute("aria-sort") !== "ascending";
    heads.forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
    const rows = [...body.rows].map((row) => {
      const text = row.cells[column].textContent.trim();
      return { row, key: column === 0 ? text : parseFloat(text) };
    });
    const sign = rising ? 1 : -1;
    rows.sort((a, b) => {
      if (column === 0) return sign * compareNames(a.key, b.key);
      if (isNaN(a.key) || isNaN(b.key)) return isNaN(a.key) - isNaN(b.key);
      return sign * (a.key - b.key);
    });
    body.append(...rows.map((entry) => entry.row));
  };
  heads.forEach((head, i) => head.querySelector("button")?.addEventListener("click", () => press(i)));
}
