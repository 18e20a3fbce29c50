"use strict";
// Sorting, filtering, and the switch of colours.

// Columns of numbers are sorted by the number that a cell begins with; what is missing or no number goes last.
const amount = (text) => {
  const match = text.match(/^[<>]?\s*([-−]?)(∞|\d[\d.,]*(?:e[-+]?\d+)?)/i);
  if (!match) return null;
  const size = match[2] === "∞" ? Infinity : Number(match[2].replace(/,/g, ""));
  return Number.isNaN(size) ? null : match[1] ? -size : size;
};
const words = new Intl.Collator("en", { numeric: true });

for (const table of document.querySelectorAll("details.table table")) {
  const body = table.tBodies[0];
  const rows = [...body.rows]; // as the page has them
  const headings = [...table.tHead.rows[0].cells];
  const box = table.closest("details.table");
  const input = box.querySelector("input");
  const count = box.querySelector("output");
  let texts; // made when they are first asked for: a page of many records has many rows

  const sort = (column, direction) => {
    const keys = new Map(rows.map((row) => [row, row.cells[column].textContent.trim()]));
    const known = [...keys.values()].filter((text) => text !== "–");
    const numeric = known.some((text) => amount(text) !== null) &&
      known.every((text) => amount(text) !== null || !/^\d/.test(text));
    const value = (row) => (numeric ? amount(keys.get(row)) : keys.get(row) === "–" ? null : keys.get(row));
    const compare = (a, b) => {
      const [left, right] = [value(a), value(b)];
      if (left === null || right === null) return (left === null) - (right === null);
      // (Not a difference: that of two infinities is no number.)
      return direction * (numeric ? (left > right) - (left < right) : words.compare(left, right));
    };
    body.append(...(direction ? [...rows].sort(compare) : rows));
    headings.forEach((heading, place) => {
      const own = place === column && direction;
      heading.setAttribute("aria-sort", own ? (direction > 0 ? "ascending" : "descending") : "none");
    });
  };
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const next = { none: 1, ascending: -1, descending: 0 };
      sort(column, next[heading.getAttribute("aria-sort")]);
    });
  });

  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    texts ??= rows.map((row) => row.textContent.toLowerCase());
    let shown = 0;
    rows.forEach((row, place) => {
      row.hidden = !wanted.every((word) => texts[place].includes(word));
      shown += !row.hidden;
    });
    count.textContent = wanted.length ? `${shown} of ${rows.length} rows` : `${rows.length} rows`;
  });
}

const themes = { "": "as the system", light: "light", dark: "dark" };
const switcher = document.getElementById("theme");
const setTheme = (name) => {
  document.documentElement.dataset.theme = name;
  switcher.textContent = `Colours: ${themes[name]}`;
  document.dispatchEvent(new Event("colours"));
  try { localStorage.setItem("nice-bench-theme", name); } catch { /* a page from disk may have no storage */ }
};
switcher.addEventListener("click", () => {
  const names = Object.keys(themes);
  setTheme(names[(names.indexOf(document.documentElement.dataset.theme ?? "") + 1) % names.length]);
});
try { setTheme(localStorage.getItem("nice-bench-theme") ?? ""); } catch { setTheme(""); }
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("colours")));
