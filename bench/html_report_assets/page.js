"use strict";
(() => {
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];

  /* ---- making elements: text only, never markup ---- */

  function make(tag, text, attributes = {}) {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }

  /* ---- light and dark ---- */

  const theme = byId("theme");
  const darkSystem = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : darkSystem.matches);
  const showTheme = () => theme.setAttribute("aria-pressed", String(isDark()));
  try {
    const kept = localStorage.getItem("clipbed-theme");
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch { /* a page from a file may have no storage */ }
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("clipbed-theme", root.dataset.theme); } catch { /* likewise */ }
    showTheme();
  });
  darkSystem.addEventListener("change", showTheme);
  showTheme();

  /* ---- sorting ---- */

  const collator = new Intl.Collator("en", { numeric: true });
  const NUMBER = /[+\-−]?(?:\d+\.?\d*|\.\d+)/;

  /** What a cell sorts by: a number, or its text; null for a hole. */
  function sortKey(cell, isLabel) {
    const text = cell.textContent.trim();
    if (isLabel) return text;
    const found = text.match(NUMBER);
    if (!found) return /^[–·X]?$/.test(text) ? null : text;
    const value = Number(found[0].replace("−", "-"));
    return text.startsWith("<") ? value - 1e-9 : value;
  }

  function compareKeys(one, other) {
    if (typeof one === "number" && typeof other === "number") return one - other;
    return collator.compare(String(one), String(other));
  }

  const original = new WeakMap();

  function sortBy(head) {
    const table = head.closest("table");
    const body = table.tBodies[0];
    if (!original.has(table)) original.set(table, [...body.rows]);
    const column = head.cellIndex;
    const isLabel = column === 0;
    // The first press puts the best on top: large numbers, but names from A, and small where lower is better.
    const first = isLabel || head.classList.contains("lower") || /^p\b/.test(head.textContent.trim()) ? "ascending" : "descending";
    const second = first === "ascending" ? "descending" : "ascending";
    const before = head.getAttribute("aria-sort");
    const order = before === "none" ? first : before === first ? second : "none";
    for (const each of all("th[aria-sort]", table.tHead)) each.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", order);
    let rows = original.get(table);
    if (order !== "none") {
      const sign = order === "ascending" ? 1 : -1;
      const keyed = rows.map((row) => [sortKey(row.cells[column], isLabel), row]);
      keyed.sort(([one], [other]) => {
        if (one === null || other === null) return (one === null) - (other === null);
        return sign * compareKeys(one, other);
      });
      rows = keyed.map(([, row]) => row);
    }
    body.append(...rows);
  }

  /* ---- moving in a table of numbers with the arrow keys: one tab stop each ---- */

  const stops = new WeakMap();

  function target(cell) {
    return cell.querySelector("button") ?? cell;
  }

  function moveTo(table, cell) {
    const before = stops.get(table);
    if (before) before.tabIndex = -1;
    const next = target(cell);
    next.tabIndex = 0;
    stops.set(table, next);
    return next;
  }

  function visibleRows(table) {
    return [table.tHead.rows[0], ...[...table.tBodies[0].rows].filter((row) => !row.hidden)];
  }

  function step(cells, from, by) {
    let place = from + by;
    while (cells[place] && cells[place].hidden) place += by;
    return cells[place] ?? cells[from];
  }

  function onArrow(event, table, cell) {
    const rows = visibleRows(table);
    const row = cell.parentElement;
    const place = rows.indexOf(row);
    const inRow = (cells) => cells[cell.cellIndex];
    const last = rows[rows.length - 1];
    const visible = [...row.cells].filter((each) => !each.hidden);
    const next = {
      ArrowLeft: () => step(row.cells, cell.cellIndex, -1),
      ArrowRight: () => step(row.cells, cell.cellIndex, 1),
      ArrowUp: () => inRow(rows[Math.max(0, place - 1)].cells),
      ArrowDown: () => inRow((rows[place + 1] ?? row).cells),
      PageUp: () => inRow(rows[Math.max(0, place - 10)].cells),
      PageDown: () => inRow(rows[Math.min(rows.length - 1, place + 10)].cells),
      Home: () => (event.ctrlKey ? rows[0].cells[0] : visible[0]),
      End: () => (event.ctrlKey ? last.cells[cell.cellIndex] : visible[visible.length - 1]),
    }[event.key];
    if (!next || event.altKey || event.metaKey) return false;
    moveTo(table, next()).focus();
    return true;
  }

  for (const table of all("table.data")) {
    table.setAttribute("role", "grid");
    table.setAttribute("aria-describedby", "hint");
    for (const button of all("button", table.tHead)) button.tabIndex = -1;
    moveTo(table, table.tHead.rows[0].cells[0]);
  }

  const main = byId("main");
  main.addEventListener("keydown", (event) => {
    const cell = event.target.closest("td, th");
    const table = cell?.closest("table.data");
    if (!table) return;
    if ((event.key === "Enter" || event.key === " ") && cell.tagName === "TD") {
      event.preventDefault();
      openCell(cell);
    } else if (onArrow(event, table, cell)) event.preventDefault();
  });
  main.addEventListener("click", (event) => {
    const button = event.target.closest("thead button");
    if (button) {
      const table = button.closest("table");
      if (table.classList.contains("data")) moveTo(table, button.parentElement);
      sortBy(button.parentElement);
      return;
    }
    const cell = event.target.closest("table.data td");
    if (cell && !String(getSelection())) {
      moveTo(cell.closest("table"), cell).focus();
      openCell(cell);
    }
  });

  /* ---- filters ---- */

  const rowFilter = byId("rows");
  const columnFilter = byId("columns");
  const shown = byId("shown");

  function matcher(words) {
    const wished = words.toLowerCase().split(",").map((each) => each.trim()).filter(Boolean);
    return (text) => !wished.length || wished.some((each) => text.toLowerCase().includes(each));
  }

  function filterRows() {
    const matches = matcher(rowFilter.value);
    const labels = new Map();
    for (const row of all("table.data > tbody > tr, table.comparison > tbody > tr", main)) {
      const text = row.cells[0].textContent;
      const isShown = matches(text);
      if (row.hidden === isShown) row.hidden = !isShown;
      labels.set(text, isShown);
    }
    const count = [...labels.values()].filter(Boolean).length;
    return rowFilter.value.trim() ? `${count} of ${labels.size} methods` : "";
  }

  function filterColumns() {
    const matches = matcher(columnFilter.value);
    let count = 0;
    let total = 0;
    for (const table of all("table.data", main)) {
      const heads = [...table.tHead.rows[0].cells];
      const isShown = heads.map((head, place) => place === 0 || head.dataset.average === "1" || matches(head.textContent));
      count += isShown.filter(Boolean).length - 1;
      total += heads.length - 1;
      for (const row of table.rows) {
        for (let place = 1; place < isShown.length; place += 1) {
          const cell = row.cells[place];
          if (cell.hidden === isShown[place]) cell.hidden = !isShown[place];
        }
      }
    }
    return columnFilter.value.trim() ? `${count} of ${total} columns` : "";
  }

  const said = new Map();

  function filtered(filter) {
    let waiting = 0;
    return () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        said.set(filter, filter());
        // A tab stop that was filtered away would leave its table out of reach.
        for (const table of all("table.data", main)) {
          const stop = stops.get(table);
          if (stop.closest("tr").hidden || stop.closest("td, th").hidden) moveTo(table, table.tHead.rows[0].cells[0]);
        }
        shown.textContent = [said.get(filterRows), said.get(filterColumns)].filter(Boolean).join(", ");
      }, 80);
    };
  }

  rowFilter.addEventListener("input", filtered(filterRows));
  if (columnFilter) columnFilter.addEventListener("input", filtered(filterColumns));
  rowFilter.form.addEventListener("submit", (event) => event.preventDefault());

  /* ---- selection rules as tabs ---- */

  const rules = all("section.rule");
  if (rules.length > 1) {
    const list = make("div", undefined, { class: "tabs", role: "tablist", "aria-label": "Selection rule" });
    const tabs = rules.map((section, place) => {
      const tab = make("button", section.dataset.name, { type: "button", role: "tab", id: `tab${place}`, "aria-controls": section.id });
      section.setAttribute("role", "tabpanel");
      section.setAttribute("aria-labelledby", tab.id);
      list.append(tab);
      return tab;
    });
    const choose = (chosen) => {
      tabs.forEach((tab, place) => {
        tab.setAttribute("aria-selected", String(place === chosen));
        tab.tabIndex = place === chosen ? 0 : -1;
        rules[place].hidden = place !== chosen;
      });
      for (const each of all("nav [data-rule]")) each.hidden = each.dataset.rule !== String(chosen);
    };
    list.addEventListener("click", (event) => {
      const place = tabs.indexOf(event.target);
      if (place >= 0) choose(place);
    });
    list.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!by) return;
      const next = (tabs.indexOf(document.activeElement) + by + tabs.length) % tabs.length;
      choose(next);
      tabs[next].focus();
      event.preventDefault();
    });
    rules[0].before(list);
    const atHash = () => Math.max(0, rules.findIndex((section) => location.hash && section.querySelector(`[id="${CSS.escape(location.hash.slice(1))}"]`)));
    choose(atHash());
  }

  /* ---- where one is in the page ---- */

  const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-10% 0px -75% 0px" });
  for (const id of links.keys()) if (byId(id)) seen.observe(byId(id));

  /* ---- what a number is made of ---- */

  const dialog = byId("dialog");
  let details = null;
  const told = () => (details ??= JSON.parse(byId("details").textContent));

  /** The cells of single domains behind a cell: [name, values], values = [choice, hundredths of a percent, …]. */
  function partsOf(number, row, column) {
    const table = told().tables[number];
    const isSingle = !table.parts.length;
    const sources = isSingle ? [number] : table.parts[column];
    const found = [];
    for (const source of sources) {
      const of = told().tables[source];
      const place = isSingle ? row : of.rows.indexOf(table.rows[row]);
      if (place < 0) continue;
      const names = told().tables[source].domains;
      of.cells[place].forEach((values, domain) => {
        if (isSingle && column < of.cells[place].length && column !== domain) return;
        if (values.length) found.push([sources.length > 1 ? `${of.dataset} ${names[domain]}` : names[domain], values]);
      });
    }
    return found;
  }

  const points = (hundredths) => (hundredths / 100).toFixed(2);

  function trialTable(parts) {
    const heads = ["domain", "trial seed", "value (%)", "step", "validation", "hparams seed", "of", "run", "hparams"];
    const table = make("table");
    table.append(make("caption", "Trials", { class: "vh" }));
    const line = table.createTHead().insertRow();
    heads.forEach((head, place) => line.append(make("th", head, { scope: "col", class: [0, 7].includes(place) ? "left" : "" })));
    const body = table.createTBody();
    const used = new Map();
    for (const [name, values] of parts) {
      for (let place = 0; place < values.length; place += 2) {
        const row = body.insertRow();
        const choice = values[place];
        const label = make("th", undefined, { scope: "row" });
        label.append(make("bdi", name));
        const set = told().hparams[choice];
        if (!used.has(set)) used.set(set, used.size + 1);
        const validation = told().validation[choice];
        const folder = told().folders[told().folder[choice]];
        const numbers = [
          told().seeds[choice], points(values[place + 1]), told().steps[choice],
          validation === null ? "·" : points(validation), told().searched[choice], told().candidates[choice],
        ];
        const run = make("td", undefined, { class: "left" });
        run.append(make("code", `${folder ? `${folder}/` : ""}${told().run[choice]}`));
        row.append(label, ...numbers.map((each) => make("td", String(each))), run, make("td", String(used.get(set))));
      }
    }
    const frame = make("div", undefined, { class: "scroll" });
    frame.append(table);
    return [frame, used];
  }

  function pairs(of) {
    const line = make("p");
    line.append(make("code", Object.entries(of).map(([name, value]) => `${name}=${value}`).join(", ")));
    return line;
  }

  function hparamsOf(used) {
    const found = [];
    for (const [set, number] of used) {
      const of = told().sets[set];
      found.push(make("h3", `Hparams ${number}`));
      if (!of) found.push(make("p", "Not recorded."));
      else if (of.all) found.push(pairs(of.all));
      else {
        const isAny = Object.keys(of.changed).length > 0;
        found.push(make("p", isAny ? "Not at the method's defaults:" : "All at the method's defaults."));
        if (isAny) found.push(pairs(of.changed));
        if (Object.keys(of.defaults).length) {
          const rest = make("details");
          rest.append(make("summary", isAny ? "The others, at their defaults" : "Show them"), pairs(of.defaults));
          found.push(rest);
        }
      }
    }
    return found;
  }

  function openCell(cell) {
    const line = cell.parentElement;
    const table = line.closest("table");
    const number = Number(table.dataset.t);
    const column = cell.cellIndex - 1;
    const of = told().tables[number];
    const parts = partsOf(number, Number(line.dataset.r), column);
    const head = table.tHead.rows[0].cells[cell.cellIndex].querySelector("bdi").textContent;
    const title = byId("dialog-title");
    title.replaceChildren(make("bdi", line.cells[0].textContent), " on ", make("bdi", of.scope), ": ", make("bdi", head));
    const shownAs = cell.textContent.trim();
    const hole = told().holes[shownAs];
    const how = hole ? (parts.length ? hole.trials : hole.none)
      : of.ways[of.made[column]][parts.length === 1 ? 0 : 1].replace("{n}", String(parts.length));
    const big = make("p", shownAs.replace("±", " ± ").replace(/[†‡]/, " $&"), { class: "big" });
    const measure = of.measures[of.measures.length > 1 ? column : 0];
    big.append(make("small", `${measure}, %`));
    const error = hole || !shownAs.includes("±") ? "" : ` ${of.error}`;
    const [trials, used] = trialTable(parts);
    const body = [big, make("p", `${of.rule} ${how}${error}`)];
    if (parts.length) body.push(trials, ...hparamsOf(used));
    byId("dialog-body").replaceChildren(...body);
    dialog.showModal();
    dialog.scrollTop = 0;
  }

  byId("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // the backdrop
  });

  /* ---- downloads ---- */

  async function unpacked(file) {
    const bytes = Uint8Array.from(atob(file.textContent), (each) => each.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Blob([await new Response(stream).arrayBuffer()], { type: file.dataset.mime });
  }

  for (const button of all("[data-download]")) {
    button.addEventListener("click", async () => {
      const file = byId(`file-${button.dataset.download}`);
      const link = make("a", undefined, { download: file.dataset.name });
      link.href = URL.createObjectURL(await unpacked(file));
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }
  /* ---- figures: closed where they are many, open on paper ---- */

  const folds = all("details.figures");
  if (all("figure").length <= 6) for (const fold of folds) fold.open = true;
  addEventListener("beforeprint", () => {
    for (const fold of folds) fold.open = true;
  });
  root.dataset.ready = "1";
})();
