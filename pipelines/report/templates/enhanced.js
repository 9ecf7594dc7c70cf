"use strict";
// Before and after on one another, and the numbers at a place of both. Without it the pictures stand side by side.
(() => {
  const byId = (id) => document.getElementById(id);
  for (const part of document.querySelectorAll(".scripted")) part.hidden = false;
  for (const part of document.querySelectorAll(".unscripted")) part.hidden = true;
  const data = JSON.parse(byId("enhanced-data").textContent);
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
{% include "map_places.js" %}
  const SVG = "http://www.w3.org/2000/svg";
  const NONE = 65535;
  let chosen = null; // row and column of the sample whose numbers are shown
  const stage = {
    kinds: ["before", "after", "difference"],
    paints: () => false,
    paintOver: (context_) => {
      if (!chosen) return;
      const [x, y] = toScreen(samples.columns[chosen[1]] + 0.5, samples.rows[chosen[0]] + 0.5);
      for (const [width, colour] of [[4, "#000"], [1.75, "#ffe45c"]]) {
        Object.assign(context_, { lineWidth: width, strokeStyle: colour });
        context_.beginPath();
        context_.arc(x, y, 7, 0, 2 * Math.PI);
        context_.stroke();
      }
    },
    tell: () => [],
    hides: () => false,
  };
  const { samples } = data;
{% include "map_stage.js" %}

  // The numbers at a place: quantised, a row of bands for each sample.
  const numbers = (text) => new Uint16Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
  const series = [["before", numbers(samples.before)], ["after", numbers(samples.after)]];
  const nearest = (places, at) => places.reduce((best, place_, number) => (Math.abs(place_ + 0.5 - at) < Math.abs(places[best] + 0.5 - at) ? number : best), 0);
  const valuesAt = (all, [row, column]) => {
    const count = samples.names.length;
    const start = (row * samples.columns.length + column) * count;
    return [...all.subarray(start, start + count)].map((value) => (value === NONE ? null : samples.low + ((samples.high - samples.low) * value) / (NONE - 1)));
  };
  const line = byId("enhanced-curve");
  const [left, top, wide, high] = [8, 10, 300, 130];
  const drawn_ = (tag, attributes, text) => {
    const part = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) part.setAttribute(name, value);
    if (text) part.textContent = text;
    line.append(part);
  };
  const choose = (row, column) => {
    if (row < 0 || column < 0 || row >= data.height || column >= data.width) return;
    chosen = [nearest(samples.rows, row), nearest(samples.columns, column)];
    const rows = series.map(([name, all]) => [name, valuesAt(all, chosen)]);
    const known = rows.flatMap(([, values]) => values.filter((value) => value !== null));
    const [low, high_] = known.length ? [Math.min(...known), Math.max(...known)] : [0, 1];
    const place_ = (value, number) => [left + (wide * number) / Math.max(1, samples.names.length - 1), top + high * (1 - (value - low) / (high_ - low || 1))];
    line.replaceChildren();
    for (const [name, values] of rows) {
      const points = values.map((value, number) => (value === null ? null : place_(value, number))).filter(Boolean);
      drawn_("polyline", { class: `curve ${name}`, points: points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ") });
      if (samples.names.length <= 16) for (const [x, y] of points) drawn_("circle", { class: `curve ${name}`, cx: x, cy: y, r: 2.5 });
    }
    const every = Math.ceil(samples.names.length / 16); // in the table
    const apart = Math.ceil(samples.names.length / (samples.names.length > 16 ? 6 : 16)); // below the curve
    samples.names.forEach((name, number) => {
      if (number % apart === 0) drawn_("text", { x: place_(0, number)[0], y: top + high + 14, "text-anchor": "middle" }, name);
    });
    byId("enhanced-place").textContent = coordinates(samples.columns[chosen[1]], samples.rows[chosen[0]]);
    const digits = Math.max(0, 3 - Math.floor(Math.log10(Math.max(Math.abs(low), Math.abs(high_), 1e-9))));
    const text = (value) => (value === null ? "no data" : value.toFixed(Math.min(digits, 6)));
    byId("enhanced-numbers").replaceChildren(
      ...samples.names.flatMap((name, number) =>
        number % every ? [] : [make("tr", {}, make("th", { scope: "row" }, name), ...rows.map(([, values]) => make("td", { class: "number" }, text(values[number]))))],
      ),
    );
    draw();
  };
  let pressed = null;
  canvas.addEventListener("pointerdown", ({ offsetX, offsetY }) => {
    pressed = [offsetX, offsetY];
  });
  canvas.addEventListener("pointerup", ({ offsetX, offsetY }) => {
    if (!pressed || Math.hypot(offsetX - pressed[0], offsetY - pressed[1]) > 3) return;
    const [column, row] = toMap(offsetX, offsetY);
    choose(row, column);
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && !event.target.matches("button, summary, a")) event.preventDefault();
    if (event.key === "Enter" && event.target === canvas) choose(place.y, place.x);
    if (!(event.key === " " && event.target.matches("button, summary, a"))) viewStage(event.key, true);
  });
  document.addEventListener("keyup", (event) => {
    if (event.key === " ") viewStage(event.key, false);
  });
  for (const item of document.querySelectorAll(".chips li")) {
    const go = item.querySelector(".go");
    go?.addEventListener("click", () => {
      choose(Number(item.dataset.row), Number(item.dataset.column));
      goTo(Number(item.dataset.column), Number(item.dataset.row));
    });
  }
  choose(data.height / 2, data.width / 2);
})();
