"use strict";

// --- charts: drawn when their section is opened, so that a page with many runs opens quickly ---

// The buttons are listed because the default set includes one that uploads the chart.
const options = { displaylogo: false, plotlyServerURL: "", responsive: true,
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]] };

function draw(root) {
  if (!window.Plotly) return;  // its source is further down in the page
  for (const chart of root.querySelectorAll(".chart")) {
    const figure = chart.querySelector("script");
    if (!figure || chart.closest("details:not([open])")) continue;
    const content = JSON.parse(figure.textContent);
    figure.remove();
    const narrow = chart.clientWidth < 600;
    if (narrow) {  // a phone: less room for margins, and one finger scrolls the page
      Object.assign(content.layout.margin, { l: 58, r: 6 });
      content.layout.font.size = 11;
      content.layout.dragmode = false;
    }
    Plotly.newPlot(chart, content.data, content.layout, { ...options, displayModeBar: narrow ? false : "hover" });
  }
}

function openLinked() {
  const run = document.getElementById(location.hash.slice(1));
  if (run) { run.open = true; run.scrollIntoView(); }
}

// --- long tables: rows that the page holds as JSON, of which a hundred at a time are elements ---

const ROWS = 100;
const textOf = cell => Array.isArray(cell) ? cell[0] : cell;
const keyOf = cell => Array.isArray(cell) ? cell[1] : cell;

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

class LongTable {
  constructor(box) {
    const { columns, rows, noun, links } = JSON.parse(box.querySelector("script").textContent);
    Object.assign(this, { columns, noun, links: links || {}, page: 0, sorted: null, direction: 1 });
    this.rows = rows.map((cells, number) => ({ cells, number, text: cells.map(textOf).join("\n").toLowerCase() }));
    this.chosen = this.rows;
    this.choices = new Map();
    box.replaceChildren(this.controls(), this.table());
    this.show();
  }

  controls() {
    this.status = element("span", {});
    this.status.setAttribute("role", "status");
    this.search = element("input", { type: "search", placeholder: `filter ${this.noun}`, oninput: () => this.filter() });
    this.search.setAttribute("aria-label", `filter ${this.noun} by text`);
    const selects = this.columns.flatMap((column, index) => {
      const values = column.choice ? [...new Set(this.rows.map(row => textOf(row.cells[index])))].sort() : [];
      if (values.length < 2) return [];
      const select = element("select", { onchange: () => this.filter() }, element("option", { value: "" , textContent: `any ${column.name}` }),
        ...values.map(value => element("option", { value: "=" + value, textContent: value || `no ${column.name}` })));
      select.setAttribute("aria-label", column.name);
      this.choices.set(index, select);
      return [select];
    });
    this.back = element("button", { type: "button", textContent: "previous", onclick: () => this.turn(-1) });
    this.next = element("button", { type: "button", textContent: "next", onclick: () => this.turn(1) });
    return element("div", { className: "controls" }, this.search, ...selects, this.back, this.next, this.status);
  }

  table() {
    this.heads = this.columns.map((column, index) => element("th", { className: column.side, scope: "col" },
      element("button", { type: "button", title: "sort", textContent: column.name, onclick: () => this.sort(index) })));
    this.body = element("tbody", {});
    this.box = element("div", { className: "scroll", tabIndex: 0 },
      element("table", { className: this.noun }, element("thead", {}, element("tr", {}, ...this.heads)), this.body));
    return this.box;
  }

  filter() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const values = [...this.choices].filter(([, select]) => select.value).map(([index, select]) => [index, select.value.slice(1)]);
    this.chosen = this.rows.filter(row =>
      words.every(word => row.text.includes(word)) && values.every(([index, value]) => textOf(row.cells[index]) === value));
    this.page = 0;
    this.arrange();
  }

  sort(index) {
    this.direction = this.sorted === index ? -this.direction : 1;
    this.sorted = index;
    for (const head of this.heads) head.removeAttribute("aria-sort");
    this.heads[index].setAttribute("aria-sort", this.direction === 1 ? "ascending" : "descending");
    this.page = 0;
    this.arrange();
  }

  arrange() {
    const index = this.sorted, direction = this.direction;
    if (index !== null) {
      this.chosen = [...this.chosen].sort((one, other) => {
        const a = keyOf(one.cells[index]), b = keyOf(other.cells[index]);
        if (a === null || b === null) return (a === null) - (b === null) || one.number - other.number;  // what has no number comes last
        return direction * (a < b ? -1 : a > b ? 1 : 0) || one.number - other.number;
      });
    }
    this.show();
  }

  turn(pages) {
    this.page += pages;
    this.show();
  }

  show() {
    const first = this.page * ROWS, count = this.chosen.length, shown = this.chosen.slice(first, first + ROWS);
    this.body.replaceChildren(...shown.map(row => element("tr", {}, ...row.cells.map((cell, index) => this.cell(row, cell, index)))));
    this.back.disabled = first === 0;
    this.next.disabled = first + ROWS >= count;
    const number = value => value.toLocaleString("en-US");
    const all = this.rows.length;
    const some = count === all ? number(all) : `${number(count)} of ${number(all)}`;
    const part = count > ROWS ? `, ${number(first + 1)} to ${number(first + shown.length)} shown` : "";
    const summed = this.columns.findIndex(column => column.summed);
    const sum = this.chosen.reduce((sum, row) => sum + keyOf(row.cells[summed]), 0);
    const percent = sum.toLocaleString("en-US", { minimumFractionDigits: 3, maximumFractionDigits: 3, signDisplay: "always" });
    this.status.textContent = `${some} ${this.noun}${part}; ${this.columns[summed].name} ${percent} %`;
    this.box.scrollTop = 0;
  }

  cell(row, content, index) {
    const column = this.columns[index], key = keyOf(content);
    const tone = column.signed && key ? (key > 0 ? " won" : " lost") : column.id ? " id" : "";
    const link = index === 0 && this.links[row.number];
    return element("td", { className: column.side + tone }, link ? element("a", { href: "#" + link, textContent: textOf(content) }) : textOf(content));
  }
}

function fill(root) {
  for (const box of root.querySelectorAll(".long-table")) {
    if (box.querySelector("script") && !box.closest("details:not([open])")) new LongTable(box);
  }
}

for (const section of document.querySelectorAll("details")) {
  section.addEventListener("toggle", () => { draw(section); fill(section); });
}
addEventListener("hashchange", openLinked);
openLinked();
fill(document);
addEventListener("DOMContentLoaded", () => draw(document));
