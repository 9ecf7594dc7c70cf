"use strict";
// Goes through the reports that readers disagree on. What is decided are verdicts of the adjudicator's name.
(() => {
{% include "bar.js" %}
  const { batch, adjudicator, readers, cases } = JSON.parse(byId("agreement-data").textContent);
  const bar = document.querySelector(".bar");
  if (!cases.length) return;
  for (const part of document.querySelectorAll(".scripted")) part.hidden = false;

  const place = `agreement:${batch}`;
  const tell = (text) => {
    byId("bar-state").textContent = text;
  };
  const name = byId("adjudicator");
  const { kept, keep, change, save: saveAs } = keeper(place, () => ({ entries, name: name.value.trim() }), tell);
  name.value = kept.name || adjudicator;
  const entries = {};
  for (const { id, decided } of cases) {
    const before = decided ? asEntry({ ...decided, marks: [] }) : blank();
    const mine = kept.entries?.[id];
    entries[id] = mine && mine.at >= before.at ? mine : before;
  }
  const cards = new Map([...document.querySelectorAll(".dispute")].map((card) => [card.dataset.report, card]));
  let current = null;
  let shownAt = performance.now();
  const undone = [];

  const named = () => {
    const given = name.value.trim();
    if (given && !readers.includes(given.toLowerCase())) return given;
    tell(given ? "That is one of the readers, whose own verdict would be replaced: give another name." : "Give a short name first; it is asked once.");
    name.focus();
    return "";
  };
  const show = ({ id }) => {
    const card = cards.get(id);
    card.querySelector(".decision").textContent = entries[id].verdict ? wordsOf(entries[id]) : "";
    const comment = card.querySelector("textarea");
    if (comment.value !== entries[id].comment) comment.value = entries[id].comment;
    if (current?.id === id) card.setAttribute("aria-current", "true");
    else card.removeAttribute("aria-current");
  };
  const pressed = () => {
    for (const button of bar.querySelectorAll("[data-key]")) {
      const [verdict, cause] = VERDICTS[button.dataset.key] ?? [];
      const { verdict: own, cause: why } = entries[current.id];
      if (verdict) button.setAttribute("aria-pressed", String(verdict === own && cause === why));
    }
  };
  const go = (item, scroll = true) => {
    if (!item) return;
    const before = current;
    current = item;
    shownAt = performance.now();
    if (before) show(before);
    show(item);
    pressed();
    if (scroll) cards.get(item.id).scrollIntoView({ block: "nearest" });
  };
  const set = (item, more) => {
    entries[item.id] = { ...entries[item.id], ...more, at: new Date().toISOString() };
    change();
    show(item);
    pressed();
  };
  const isOpen = ({ id }) => !entries[id].verdict;
  const step = (by) => go(cases[Math.max(0, Math.min(cases.length - 1, cases.indexOf(current) + by))]);
  const decide = ([verdict, cause]) => {
    if (!named()) return;
    const item = current;
    undone.push({ item, entry: entries[item.id] });
    set(item, { verdict, cause, seconds: Math.round((performance.now() - shownAt) / 100) / 10 });
    const at = cases.indexOf(item);
    const next = cases.slice(at + 1).find(isOpen) ?? cases.slice(0, at).find(isOpen);
    go(next);
    tell(next ? `${cases.filter(isOpen).length} of ${cases.length} open` : "All are decided: save.");
  };
  const undo = () => {
    const last = undone.pop();
    if (!last) return tell("nothing to undo");
    go(last.item);
    set(last.item, last.entry);
    return tell("taken back");
  };
  const save = () => {
    const by = named();
    if (!by) return;
    const verdicts = cases.filter(({ id }) => entries[id].at).map(({ id, sha256 }) => asVerdict(id, sha256, entries[id], by));
    const file = asFile(batch, by, verdicts);
    saveAs(file.name, file.text);
  };
  const press = (key, down) => {
    if (!down) return undefined;
    if (VERDICTS[key]) return decide(VERDICTS[key]);
    if (key === "j") return step(1);
    if (key === "k") return step(-1);
    if (key === "u") return undo();
    if (key === "c") return cards.get(current.id).querySelector("textarea").focus();
    if (key === "o") return cards.get(current.id).querySelector("a")?.click() ?? tell("This report is not beside the page.");
    return save();
  };
  wireBar(bar, press, new Set("awrRjkuceo"));
  name.addEventListener("change", () => {
    keep();
    if (named()) name.blur();
  });
  for (const item of cases) {
    const card = cards.get(item.id);
    card.addEventListener("click", () => current !== item && go(item, false));
    const comment = card.querySelector("textarea");
    comment.addEventListener("focus", () => current !== item && go(item, false));
    comment.addEventListener("input", () => set(item, { comment: comment.value }));
  }
  cases.forEach(show);
  go(cases.find(isOpen) ?? cases[0], false);
})();
