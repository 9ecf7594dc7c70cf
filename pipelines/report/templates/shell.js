"use strict";
// The shell of a batch: a worklist, the report in a frame, and the bar of verdicts. All that a reader gives is kept here;
// reports say by messages which keys were pressed in them, and are told what to show. Below it is the table of all scans.
(() => {
{% include "bar.js" %}
{% include "index.js" %}
  const { batch, cases, only } = JSON.parse(byId("shell-data").textContent); // only: whose blinded reading it is, if one's
  if (!cases.length) return;
  const bar = document.querySelector(".bar");
  for (const part of document.querySelectorAll(".scripted")) part.hidden = false;

  const place = `batch:${batch}`;
  const kept = storage.read(place) ?? {};
  let readers = kept.readers ?? {}; // by name, entries by the report's number
  let reader = only ?? kept.reader ?? storage.read("reader") ?? "";
  let order = only ? "given" : kept.order ?? "worst";
  let filter = "all";
  let current = null;
  let shownAt = 0;
  let dirty = false;
  let folder = null; // a file in a folder that the reader chose, kept up to date
  const undone = [];

  const pictures = new Map();
  for (const row of document.querySelectorAll("#cases tbody tr")) {
    pictures.set(row.querySelector("th").textContent.trim(), row.querySelector("img")?.src);
  }

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const choice = (name, values) => {
    const select = make("select", { "aria-label": name });
    for (const value of values) select.append(make("option", {}, value));
    return select;
  };
  const progress = make("p", { role: "status", class: "progress" });
  const filters = choice("Which scans", only ? ["all", "open", "mine"] : ["all", "open", "flagged", "mine", "disagree"]);
  const orders = choice("Order", ["worst first", "random"]);
  const name = make("input", { maxlength: "16", size: "8", autocomplete: "off" });
  const list = make("ol", { class: "worklist" });
  const stage = make("div", { class: "stage" });
  const comment = make("textarea", { maxlength: "4000", rows: "2", "aria-label": "Comment", placeholder: "Comment" });
  const side = make(
    "aside", { "aria-label": "Worklist" },
    make("div", { class: "choices" }, filters, orders, make("label", {}, "name ", name)), progress, list,
  );
  const shell = make("div", { id: "shell" }, side, stage);
  document.querySelector(".notice").after(shell);
  bar.querySelector("[data-key=c]").after(comment);
  name.value = reader;
  name.readOnly = Boolean(only);
  orders.hidden = Boolean(only);
  orders.selectedIndex = order === "random" ? 1 : 0;

  const mine = () => (readers[reader] ??= {});
  const entryOf = (id) => ({ ...blank(), ...mine()[id] });
  const state = byId("bar-state");
  const tell = (text) => {
    state.textContent = text;
  };
  const verdictsOf = (id) => Object.values(readers).map((given) => given[id]?.verdict).filter(Boolean);

  /** A number by which a batch has one random order for a reader, whatever was found in it. */
  const mixed = (text) => {
    let number = 2166136261;
    for (const letter of text) number = Math.imul(number ^ letter.codePointAt(0), 16777619);
    return Math.imul(number ^ (number >>> 15), 2246822507) >>> 0;
  };
  const matches = (item) => {
    const { verdict } = entryOf(item.id);
    if (filter === "open") return !verdict;
    if (filter === "flagged") return item.flags.length > 0;
    if (filter === "mine") return Boolean(verdict);
    return filter !== "disagree" || new Set(verdictsOf(item.id)).size > 1;
  };
  const sorted = () => {
    if (order !== "random") return cases;
    return [...cases].sort((a, b) => mixed(batch + reader + a.id) - mixed(batch + reader + b.id));
  };
  let shown = [];

  const rows = new Map();
  const mark = (item) => {
    const entry = entryOf(item.id);
    const row = rows.get(item.id);
    row.querySelector(".given").textContent = entry.verdict ? wordsOf(entry) : "";
    row.dataset.verdict = entry.verdict;
    if (item === current) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  };
  const listed = () => {
    shown = sorted().filter(matches);
    rows.clear();
    list.replaceChildren(...shown.map((item) => {
      const picture = pictures.get(item.case);
      const thumb = picture ? [make("img", { src: picture, alt: "", loading: "lazy" })] : [];
      const flags = item.flags.length ? `${item.flags.length} ⚑` : "";
      const confidence = item.confidence === null ? "" : item.confidence.toFixed(2);
      const button = make(
        "button", { type: "button", title: order === "random" ? "" : item.flags.join("; ") }, ...thumb,
        make("span", { class: "case" }, item.case.slice(5)),
        make("span", { class: "bad" }, order === "random" ? "" : flags),
        make("span", { class: "small" }, order === "random" ? "" : confidence),
        make("b", { class: "given" }),
      );
      button.addEventListener("click", () => go(item));
      const row = make("li", {}, button);
      rows.set(item.id, row);
      return row;
    }));
    for (const item of shown) mark(item);
    counted();
  };
  const counted = () => {
    const done = cases.filter(({ id }) => entryOf(id).verdict).length;
    const at = current ? shown.indexOf(current) + 1 : 0;
    progress.textContent = `${at} of ${shown.length}; ${done} of ${cases.length} judged`;
  };

  // Frames: the report that is read, and the next one, which is ready when its turn comes.
  const frames = new Map();
  const ready = new Set();
  const frame = (item) => {
    if (frames.has(item)) return frames.get(item);
    const element = make("iframe", { sandbox: "allow-scripts", title: `Report of ${item.case}`, src: item.report, tabindex: "-1" });
    element.addEventListener("load", () => ready.add(item));
    frames.set(item, element);
    stage.append(element);
    return element;
  };
  const post = (item, type, more) => {
    frames.get(item)?.contentWindow?.postMessage({ domainVision: 1, type, id: item.id, sha256: item.sha256, ...more }, "*");
  };
  const clock = () => {
    if (!current) return;
    const entry = entryOf(current.id);
    spent.set(current.id, (spent.get(current.id) ?? entry.seconds ?? 0) + (performance.now() - shownAt) / 1000);
    shownAt = performance.now();
  };
  const spent = new Map();
  const go = (item) => {
    if (!item) return;
    clock();
    document.body.classList.add("reviewing");
    const before = current;
    current = item;
    shownAt = performance.now();
    const element = frame(item);
    for (const [other, each] of frames) each.classList.toggle("shown", other === item);
    const next = shown[shown.indexOf(item) + 1];
    const keep = new Set([item, next]);
    if (ready.has(item)) post(item, "entry", { entry: entryOf(item.id) });
    if (next) (ready.has(item) ? Promise.resolve() : new Promise((done) => element.addEventListener("load", done, { once: true })))
      .then(() => current === item && frame(next));
    for (const [other, each] of frames) {
      if (keep.has(other)) continue;
      each.remove();
      frames.delete(other);
      ready.delete(other);
    }
    comment.value = entryOf(item.id).comment;
    for (const each of [before, item]) if (each && rows.has(each.id)) mark(each);
    rows.get(item.id)?.scrollIntoView({ block: "nearest" });
    pressed();
    counted();
  };
  const pressed = () => {
    const { verdict, cause } = entryOf(current.id);
    for (const button of bar.querySelectorAll("[data-key]")) {
      const [own, why] = VERDICTS[button.dataset.key] ?? [];
      if (own) button.setAttribute("aria-pressed", String(own === verdict && why === cause));
    }
  };
  const step = (by) => go(shown[Math.max(0, Math.min(shown.length - 1, shown.indexOf(current) + by))]);
  /** The next report that is open; at the end of the list, the first one that was left out. */
  const nextOpen = () => {
    const at = shown.indexOf(current);
    const isOpen = (item) => !entryOf(item.id).verdict;
    return shown.slice(at + 1).find(isOpen) ?? shown.slice(0, at).find(isOpen);
  };

  // What is kept, saved and loaded.
  const keep = () => {
    dirty = true;
    if (!storage.write(place, { readers, reader, order })) tell("This browser keeps nothing: save before you leave.");
    if (folder) writeFolder();
  };
  const saved = () => {
    const verdicts = cases.filter(({ id }) => mine()[id]?.at).map(({ id, sha256 }) => asVerdict(id, sha256, mine()[id], reader));
    return asFile(batch, reader, verdicts);
  };
  const named = () => {
    if (reader) return true;
    tell("Give a short name first; it is asked once.");
    name.focus();
    return false;
  };
  const save = () => {
    if (!named()) return;
    const file = saved();
    download(file.name, file.text);
    dirty = false;
    tell(`Saved as ${file.name}; a later file counts.`);
  };
  let writing = Promise.resolve();
  const writeFolder = () => {
    writing = writing.then(async () => {
      const file = saved();
      const handle = await folder.getFileHandle(file.name, { create: true });
      const stream = await handle.createWritable();
      await stream.write(file.text);
      await stream.close();
      dirty = false;
      tell(`${file.name} is up to date`);
    }).catch((problem) => tell(`The file cannot be written (${problem.message}): save instead.`));
  };
  const picker = byId("keep");
  if (window.showDirectoryPicker) {
    picker.hidden = false;
    picker.addEventListener("click", async () => {
      if (!named()) return;
      try {
        folder = await window.showDirectoryPicker({ mode: "readwrite" });
        writeFolder();
      } catch (problem) {
        if (problem.name !== "AbortError") tell(`No folder: ${problem.message}`);
      }
    });
  }
  const load = async (file) => {
    let document_;
    try {
      document_ = JSON.parse(await file.text());
    } catch {
      return tell(`${file.name}: is not JSON; nothing was loaded.`);
    }
    const given = Array.isArray(document_?.verdicts) ? document_.verdicts : [document_];
    const known = new Map(cases.map((item) => [item.id, item]));
    let taken = 0;
    for (const verdict of given) {
      const item = known.get(verdict?.report?.id);
      if (!item || item.sha256 !== verdict.report.sha256 || Number.isNaN(Date.parse(verdict.created))) continue;
      const signed = String(verdict.reviewer ?? "").slice(0, 16);
      if (only && signed.toLowerCase() !== only.toLowerCase()) continue; // a blinded reader sees nobody else's
      const by = only ?? signed;
      reader ||= by;
      const theirs = (readers[by] ??= {});
      const entry = asEntry(verdict);
      if (!theirs[item.id]?.at || theirs[item.id].at <= entry.at) theirs[item.id] = entry;
      taken += 1;
    }
    name.value = reader;
    if (!storage.write(place, { readers, reader, order })) tell("This browser keeps nothing.");
    listed();
    if (current) go(current);
    return tell(`${taken} of ${given.length} verdicts loaded from ${file.name}`);
  };
  wireLoad(load);
  window.addEventListener("beforeunload", (event) => {
    if (dirty) event.preventDefault();
  });

  const set = (more) => {
    clock();
    const seconds = Math.round((spent.get(current.id) ?? 0) * 10) / 10;
    mine()[current.id] = { ...entryOf(current.id), ...more, seconds, at: new Date().toISOString() };
    mark(current);
    counted();
    keep();
  };
  const judge = (verdict, cause) => {
    if (!current) begin();
    if (!named() || !current) return;
    undone.push({ item: current, entry: entryOf(current.id) });
    const item = current;
    set({ verdict, cause });
    const next = nextOpen();
    if (next) go(next);
    else {
      pressed();
      tell("All are judged: save.");
    }
    if (next) tell(`${item.case.slice(5)}: ${wordsOf(entryOf(item.id))}`);
  };
  const undo = () => {
    const last = undone.pop();
    if (!last) return tell("nothing to undo");
    go(last.item);
    set({ ...last.entry });
    pressed();
    return tell(`${last.item.case.slice(5)}: taken back`);
  };

  const press = (key, down) => {
    if (VIEW_KEYS.has(key)) return current && post(current, "key", { key, down });
    if (!down) return undefined;
    if (VERDICTS[key]) return judge(...VERDICTS[key]);
    if (key === "j") return step(1);
    if (key === "k") return step(-1);
    if (key === "u") return undo();
    if (key === "c") return comment.focus();
    if (key === "e") return save();
    if (key === "t") return document.body.classList.toggle("reviewing");
    if (key === "?") return byId("keys").showModal();
    return undefined;
  };
  const keys = new Set([..."awrRjkucet?", ...VIEW_KEYS]);
  wireBar(bar, press, keys, () => byId("keys").open);
  comment.addEventListener("input", () => current && named() && set({ comment: comment.value }));
  name.addEventListener("change", () => {
    const before = reader;
    reader = name.value.trim();
    if (!before && readers[""]) {
      readers[reader] = { ...readers[""], ...readers[reader] };
      delete readers[""];
    }
    storage.write("reader", reader);
    storage.write(place, { readers, reader, order });
    listed();
    if (current) go(current);
    name.blur();
  });
  filters.addEventListener("change", () => {
    filter = filters.value;
    listed();
    filters.blur();
  });
  orders.addEventListener("change", () => {
    order = orders.selectedIndex === 1 ? "random" : "worst";
    storage.write(place, { readers, reader, order });
    listed();
    go(shown[0]);
    orders.blur();
  });
  window.addEventListener("message", ({ source, data }) => {
    const item = [...frames].find(([, element]) => element.contentWindow === source)?.[0];
    if (!item || data?.domainVision !== 1 || data.id !== item.id || data.sha256 !== item.sha256) return;
    if (data.type === "ready") {
      ready.add(item);
      post(item, "entry", { entry: entryOf(item.id) });
    }
    if (item !== current) return;
    if (data.type === "key" && keys.has(data.key)) press(data.key, true);
    if (data.type === "entry" && named()) {
      set({ structures: data.structures, marks: data.marks, points: data.points ?? {}, fixes: data.fixes ?? [] });
    }
  });

  listed();
  document.body.classList.add("reviewing");
  const begin = () => current || go(shown.find(({ id }) => !entryOf(id).verdict) ?? shown[0]);
  if (document.readyState === "complete") begin();
  else window.addEventListener("load", () => setTimeout(begin)); // the page itself is open before its first report is
})();
