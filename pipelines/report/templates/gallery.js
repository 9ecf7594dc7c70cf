"use strict";
// Labels images with one key each. Some come twice; what the network said is hidden until a label is given.
(() => {
{% include "bar.js" %}
  const { gallery, file, again, entries } = JSON.parse(byId("gallery-data").textContent);
  const bar = document.querySelector(".bar");
  const list = document.querySelector(".cutouts");
  if (!entries.length) return;
  for (const part of document.querySelectorAll(".scripted")) part.hidden = false;
  const content = byId("content");
  content.classList.add("labelling");

  const labels = new Map([...bar.querySelectorAll("[data-label]")].map((button) => [button.dataset.key, button.dataset.label]));
  const place = `gallery:${gallery}`;
  const tell = (text) => {
    byId("bar-state").textContent = text;
  };
  const reader = byId("reader");
  const order = byId("order");
  const { kept, keep, change, save: saveAs } = keeper(place, () => ({ given, reader: reader.value.trim() }), tell);
  const given = kept.given ?? {}; // by the place of an image, with a prime where it comes again
  reader.value = kept.reader ?? storage.read("reader") ?? "";

  const items = [...list.children].map((element, number) => ({ key: `${number}`, entry: entries[number], element }));
  const copies = again.map((number) => {
    const element = items[number].element.cloneNode(true);
    return { key: `${number}'`, entry: entries[number], element };
  });
  let shown = [];
  let current = null;
  const undone = [];
  const show = (item) => {
    const label = given[item.key]?.label ?? "";
    item.element.querySelector(".given").textContent = label;
    item.element.classList.toggle("labelled", label !== "");
    item.element.querySelector("figure").classList.toggle("current", item === current);
  };
  const counted = () => {
    byId("progress").textContent = `${shown.filter(({ key }) => given[key]).length} of ${shown.length} labelled`;
    for (const button of bar.querySelectorAll("[data-label]")) {
      button.setAttribute("aria-pressed", String(given[current.key]?.label === button.dataset.label));
    }
  };
  const go = (item, scroll = true) => {
    if (!item) return;
    const before = current;
    current = item;
    if (before) show(before);
    show(item);
    counted();
    if (scroll) item.element.scrollIntoView({ block: "nearest" });
  };
  const arrange = () => {
    const by = order.value;
    const sign = by === "margin" || by === "believed" ? 1 : -1;
    const doubt = ({ entry }) => (entry[by] === null ? Infinity : sign * entry[by]);
    shown = [...[...items].sort((a, b) => doubt(a) - doubt(b)), ...copies];
    list.replaceChildren(...shown.map(({ element }) => element));
    shown.forEach(show);
    go(shown.find(({ key }) => !given[key]) ?? shown[0], false);
  };
  const set = (item, label) => {
    undone.push({ item, before: given[item.key] });
    given[item.key] = { label, at: new Date().toISOString() };
    change();
    show(item);
    const at = shown.indexOf(item);
    const next = shown.slice(at + 1).find(({ key }) => !given[key]) ?? shown.slice(0, at).find(({ key }) => !given[key]);
    if (next) go(next);
    else {
      counted();
      tell("All are labelled: save.");
    }
  };
  const undo = () => {
    const last = undone.pop();
    if (!last) return tell("nothing to undo");
    if (last.before) given[last.item.key] = last.before;
    else delete given[last.item.key];
    change();
    return go(last.item);
  };

  /** Text of a cell; what a spreadsheet would take for a formula gets an apostrophe in front. */
  const safe = (value) => {
    const text = String(value ?? "");
    return /^[=+\-@\t\r\n＝＋－＠]/.test(text) ? `'${text}` : text;
  };
  const cell = (value) => {
    const text = safe(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const TITLES = ["id", "row", "label", "again", "answer", "drawn", "reader", "created", "gallery"];
  const save = () => {
    const by = reader.value.trim();
    if (!by) {
      tell("Give a short name first; it is asked once.");
      return reader.focus();
    }
    storage.write("reader", by);
    const rows = [TITLES];
    for (const { key, entry } of items) {
      const [first, second] = [given[key], given[`${key}'`]];
      const at = first?.at ?? second?.at;
      if (at) rows.push([entry.id, entry.row, first?.label, second?.label, entry.answer, entry.drawn, by, at, gallery]);
    }
    return saveAs(file, rows.map((row) => `${row.map(cell).join(",")}\n`).join(""), "text/csv");
  };

  /** The rows of a table, by its titles; none where it is no table that a gallery saved. */
  const rowsOf = (text) => {
    const rows = [[]];
    const cells = /("(?:[^"]|"")*"|[^",\r\n]*)(,|\r?\n|$)/y;
    cells.lastIndex = text.startsWith("\uFEFF") ? 1 : 0;
    while (cells.lastIndex < text.length) {
      const [, value, end] = cells.exec(text) ?? [];
      if (value === undefined) return [];
      rows.at(-1).push(value.startsWith('"') ? value.slice(1, -1).replaceAll('""', '"') : value);
      if (end && end !== ",") rows.push([]);
    }
    const titles = rows.shift();
    if (!TITLES.slice(0, -1).every((title) => titles.includes(title))) return [];
    return rows.filter((row) => row.length === titles.length).map((row) => Object.fromEntries(titles.map((title, at) => [title, row[at]])));
  };
  const load = async (chosen) => {
    const rows = rowsOf(await chosen.text());
    if (!rows.length) return tell(`${chosen.name}: is no table that a gallery saved; nothing was loaded.`);
    const known = new Map(items.map(({ key, entry }) => [`${safe(entry.id)} ${entry.row}`, { key, entry }]));
    const ours = rows.filter((row) => {
      const entry = known.get(`${row.id} ${row.row}`)?.entry; // tables of earlier versions do not say which gallery
      return entry && (row.gallery ?? gallery) === gallery && row.answer === safe(entry.answer);
    });
    if (!ours.length) return tell(`${chosen.name}: is of another gallery; nothing was loaded.`);
    reader.value ||= ours[0].reader;
    const own = ours.filter((row) => row.reader.toLowerCase() === reader.value.trim().toLowerCase());
    if (!own.length) return tell(`${chosen.name}: has labels of ${ours[0].reader}, not of ${reader.value}; nothing was loaded.`);
    const names = new Map([...labels.values()].map((label) => [safe(label), label]));
    let taken = 0;
    for (const row of own) {
      const { key } = known.get(`${row.id} ${row.row}`);
      if (Number.isNaN(Date.parse(row.created)) || ![row.label, row.again].every((label) => !label || names.has(label))) continue;
      for (const [place, label] of [[key, row.label], [`${key}'`, row.again]]) {
        if (label && !(given[place]?.at > row.created)) given[place] = { label: names.get(label), at: row.created };
      }
      taken += 1;
    }
    undone.length = 0;
    keep();
    arrange();
    return tell(`${taken} of ${rows.length} labels loaded from ${chosen.name}`);
  };

  /** Show the picture, or one of its bands; on the image at hand Grad-CAM comes and goes over it. */
  const layer = byId("layer");
  const showLayer = () => {
    for (const image of list.querySelectorAll("[data-layer]")) image.hidden = image.dataset.layer !== layer?.value;
  };
  const VIEWS = new Set([" ", ".", "[", "]"]);
  const view = (key, down) => {
    if (key === " ") return content.classList.toggle("cam", down);
    if (!down) return undefined;
    if (key === ".") {
      const on = content.classList.toggle("flickering");
      return bar.querySelector('[data-key="."]')?.setAttribute("aria-pressed", String(on));
    }
    if (!layer) return tell("The images have one band.");
    layer.selectedIndex = (layer.selectedIndex + (key === "]" ? 1 : layer.length - 1)) % layer.length;
    return showLayer();
  };

  const press = (key, down) => {
    if (VIEWS.has(key)) return view(key, down);
    if (!down) return undefined;
    if (labels.has(key)) return set(current, labels.get(key));
    if (key === "j") return go(shown[shown.indexOf(current) + 1]);
    if (key === "k") return go(shown[shown.indexOf(current) - 1]);
    if (key === "u") return undo();
    if (key === "h") return content.classList.toggle("closed");
    return save();
  };
  wireBar(bar, press, new Set([...labels.keys(), ...VIEWS, ..."jkuhe"]));
  wireLoad(load);
  for (const item of [...items, ...copies]) {
    item.element.addEventListener("click", ({ target }) => {
      if (!target.matches(".copy")) return go(item, false);
      return navigator.clipboard?.writeText(target.textContent).then(() => tell("copied"), () => tell(target.textContent));
    });
  }
  order.addEventListener("change", () => {
    arrange();
    order.blur();
  });
  layer?.addEventListener("change", () => {
    showLayer();
    layer.blur();
  });
  reader.addEventListener("change", () => {
    keep();
    reader.blur();
  });
  arrange();
})();
