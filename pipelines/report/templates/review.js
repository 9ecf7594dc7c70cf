"use strict";
// Opens the viewer on request, switches what lies over pictures, and keeps the verdict, or tells the shell that the page is
// in. Where it does not run, the page is as complete as on paper.
(() => {
{% include "bar.js" %}
  for (const part of document.querySelectorAll(".scripted")) part.hidden = false;
  for (const part of document.querySelectorAll(".unscripted")) part.hidden = true;

  const base64 = (id) => byId(id).textContent.split(",", 2)[1];
  const unpacked = async (id) => {
    const packed = Uint8Array.from(atob(base64(id)), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };

  let opened; // one promise for all who ask
  const open = () => (opened ??= openViewer());
  const openViewer = async () => {
    const button = byId("open-viewer");
    const state = byId("viewer-state");
    button.disabled = true;
    state.textContent = "Opening …";
    try {
      if (!document.createElement("canvas").getContext("webgl2")) throw new Error("this browser offers no WebGL 2");
      const program = document.createElement("script");
      program.textContent = await unpacked("viewer-program"); // the page's policy knows its hash
      document.head.append(program);
      const data = JSON.parse(byId("viewer-data").textContent);
      const panel = byId("viewer-panel");
      panel.hidden = false;
      const started = await openSegmentationViewer(panel, {
        ...data, scan: base64("viewer-scan"), labels: base64("viewer-labels"),
        reference: byId("viewer-reference") ? base64("viewer-reference") : null,
        certainty: byId("viewer-certainty") ? base64("viewer-certainty") : null,
      });
      const codesOf = (name) => data.structures.filter((each) => each.name === name).map((each) => each.code);
      const viewer = { ...started, codesOf };
      button.parentElement.hidden = true;
      panel.querySelector("canvas").focus({ preventScroll: true });
      return viewer;
    } catch (problem) {
      byId("viewer-panel").hidden = true;
      state.textContent = `The viewer cannot be opened: ${problem.message}. The pictures below are complete.`;
      return null;
    }
  };

  /** Turn the names of structures in the tables into buttons that go there. */
  const linkTables = () => {
    const codes = new Map();
    for (const { code, name, mm } of JSON.parse(byId("viewer-data").textContent).structures) {
      if (mm && !codes.has(name)) codes.set(name, code);
    }
    for (const cell of document.querySelectorAll("#checks th[scope=row], #volumes th[scope=row], #reference th[scope=row]")) {
      const code = codes.get(cell.textContent.trim());
      if (code === undefined) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "jump";
      button.title = "show in the viewer";
      button.append(...cell.childNodes);
      button.addEventListener("click", async () => {
        const viewer = await open();
        viewer?.jump(code);
        byId("viewer").scrollIntoView();
      });
      cell.append(button);
    }
  };

  if (byId("viewer-data")) {
    byId("open-viewer").addEventListener("click", open);
    linkTables();
  }

  const content = byId("content");
  const form = document.querySelector("form.verdict");
  const bar = document.querySelector(".bar");
  if (!form) return;
  const { report: id, sha256 } = form.dataset;
  const framed = window.self !== window.top;
  const place = `report:${id}:${sha256}`;
  let entry = { ...blank(), ...(framed ? {} : storage.read(place)?.entry) };
  let saved = framed || (storage.read(place)?.saved ?? true);
  let inShell = false;
  let alone = 0;
  let marking = false;
  const started = Date.now();

  const post = (type, more) => parent.postMessage({ domainVision: 1, type, id, sha256, ...more }, "*"); // a file's origin has no name
  const tell = (text) => {
    byId("verdict-state").textContent = text;
    byId("bar-state").textContent = text;
  };

  // What the reader gives: the page's own, or the shell's.
  const judged = [...document.querySelectorAll(".judged li[data-code]")];
  const extension = { view: () => false, show: () => {} }; // of pages that show something else than slices
  const show = () => {
    extension.show();
    for (const radio of form.elements.verdict) radio.checked = radio.value === entry.verdict;
    if (form.elements.cause) form.elements.cause.checked = entry.cause === "scan";
    if (form.elements.comment.value !== entry.comment) form.elements.comment.value = entry.comment;
    for (const button of bar.querySelectorAll("[data-key]")) {
      const [verdict, cause] = VERDICTS[button.dataset.key] ?? [];
      if (verdict) button.setAttribute("aria-pressed", String(verdict === entry.verdict && cause === entry.cause));
    }
    for (const item of judged) item.querySelector(".judge").textContent = entry.structures[item.dataset.name] ?? "–";
    for (const dot of document.querySelectorAll(".mark")) dot.remove();
    for (const figure of document.querySelectorAll("figure[data-plane]")) {
      const marks = entry.marks.filter((mark) => mark.plane === figure.dataset.plane && mark.position === figure.dataset.position);
      marks.forEach((mark) => draw(figure, mark));
    }
  };
  const draw = (figure, mark) => {
    const drawing = figure.querySelector(".drawing");
    const { width, height } = drawing.viewBox.baseVal;
    const dot = document.createElementNS(drawing.namespaceURI, "g");
    dot.setAttribute("class", "mark");
    const parts = { circle: { cx: mark.x * width, cy: mark.y * height, r: 7 }, text: { x: mark.x * width + 10, y: mark.y * height + 5 } };
    for (const [name, attributes] of Object.entries(parts)) {
      const part = document.createElementNS(drawing.namespaceURI, name);
      for (const [key, value] of Object.entries(attributes)) part.setAttribute(key, value);
      if (name === "text") part.textContent = mark.word;
      dot.append(part);
    }
    drawing.append(dot);
  };
  const changed = (more) => {
    entry = { ...entry, ...more, at: new Date().toISOString() };
    saved = false;
    if (inShell) post("entry", { structures: entry.structures, marks: entry.marks, points: entry.points, fixes: entry.fixes });
    else if (!storage.write(place, { entry, saved })) tell("This browser keeps nothing: save before you leave.");
    show();
  };
  const save = () => {
    const reader = form.elements.reviewer.value.trim();
    if (!entry.verdict && !answered(entry)) return tell("Give a verdict first.");
    if (!reader) {
      tell("Give a short name first; it is asked once.");
      return form.elements.reviewer.focus();
    }
    storage.write("reader", reader);
    const name = `${id}_review.json`;
    download(name, asText(asVerdict(id, sha256, entry, reader)));
    saved = true;
    storage.write(place, { entry, saved });
    tell(`Saved as ${name} in the browser’s downloads; a later one counts.`);
  };
  const seconds = () => Math.round((Date.now() - started) / 100) / 10;

  for (const radio of form.elements.verdict) {
    radio.addEventListener("change", () => changed({ verdict: radio.value, cause: "", seconds: seconds() }));
  }
  form.elements.cause?.addEventListener("change", ({ target }) => {
    changed(target.checked ? { verdict: "reject", cause: "scan", seconds: seconds() } : { cause: "" });
  });
  form.elements.comment.addEventListener("input", ({ target }) => changed({ comment: target.value }));
  form.elements.reviewer.value = storage.read("reader") ?? "";
  form.elements.reviewer.addEventListener("change", ({ target }) => storage.write("reader", target.value.trim()));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    save();
  });
  window.addEventListener("beforeunload", (event) => {
    if (!framed && !saved) event.preventDefault();
  });

  // What lies over the pictures.
  const only = (number) => {
    alone = number === alone ? 0 : number;
    judged.forEach((item, index) => {
      const shown = !alone || index === alone - 1;
      item.classList.toggle("alone", alone !== 0 && shown);
      for (const line of document.querySelectorAll(`.layer:not(.difference) path[data-code="${item.dataset.code}"]`)) {
        line.setAttribute("visibility", shown ? "inherit" : "hidden");
      }
    });
    const chosen = judged[alone - 1]?.dataset.code;
    if (opened) opened.then((viewer) => viewer?.show(chosen === undefined ? null : viewer.codesOf(judged[alone - 1].dataset.name)));
  };
  judged.forEach((item, index) => {
    item.querySelector(".structure").addEventListener("click", () => only(index + 1));
    item.querySelector(".judge").addEventListener("click", () => {
      const order = [undefined, "ok", "fix", "wrong"];
      const next = order[(order.indexOf(entry.structures[item.dataset.name]) + 1) % order.length];
      const structures = { ...entry.structures };
      if (next) structures[item.dataset.name] = next;
      else delete structures[item.dataset.name];
      changed({ structures });
    });
  });
  const opacity = byId("show-opacity");
  const setOpacity = () => content.style.setProperty("--opacity", Number(opacity.value) / 100);
  opacity?.addEventListener("input", setOpacity);
  const view = (key, down) => {
    if (extension.view(key, down)) return undefined;
    if (key === " ") return content.classList.toggle("plain", down);
    if (!down) return undefined;
    if (key >= "0" && key <= "9") return only(key === "0" ? 0 : Number(key));
    if (key === "f") return byId("show-fill")?.click();
    if (key === "m") {
      marking = true;
      return tell("Click the place in a picture.");
    }
    if (key === "v") {
      byId("viewer")?.scrollIntoView();
      return byId("viewer-data") && open();
    }
    if (key === "d") {
      const layers = [...document.querySelectorAll("[name=layer]")];
      return layers[(layers.findIndex((layer) => layer.checked) + 1) % layers.length]?.click();
    }
    if (key === "g") {
      const windows = document.querySelector("[data-part=window]");
      if (!windows) return undefined;
      windows.selectedIndex = (windows.selectedIndex + 1) % windows.options.length;
      return windows.dispatchEvent(new Event("change"));
    }
    if (opacity) opacity.value = Number(opacity.value) + (key === "[" ? -10 : 10);
    return opacity && setOpacity();
  };
  for (const figure of document.querySelectorAll("figure[data-plane]")) {
    const drawing = figure.querySelector(".drawing");
    drawing.addEventListener("click", (event) => {
      if (!marking) return figure.classList.toggle("enlarged");
      marking = false;
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(drawing.getScreenCTM().inverse());
      const { width, height } = drawing.viewBox.baseVal;
      const field = document.createElement("input");
      field.className = "word";
      field.maxLength = 200;
      field.setAttribute("aria-label", "Word at the mark");
      field.addEventListener("keydown", ({ key }) => {
        if (key === "Enter" && field.value.trim()) {
          const mark = { plane: figure.dataset.plane, position: figure.dataset.position, word: field.value.trim() };
          const inside = (part) => Math.round(Math.min(1, Math.max(0, part)) * 1000) / 1000;
          const [x, y] = [inside(point.x / width), inside(point.y / height)];
          const at = figure.dataset.mm.split(" ").map(Number); // corner, side to the right, side down
          const mm = [0, 1, 2].map((axis) => Math.round((at[axis] + x * at[axis + 3] + y * at[axis + 6]) * 10) / 10);
          changed({ marks: [...entry.marks, { ...mark, x, y, mm }] });
        }
        if (key === "Enter" || key === "Escape") field.remove();
      });
      figure.append(field);
      return field.focus();
    });
  }

  const press = (key, down) => {
    if (VIEW_KEYS.has(key)) return view(key, down);
    if (!down) return undefined;
    if (inShell) return post("key", { key });
    if (framed) return undefined;
    if (VERDICTS[key] && bar.querySelector(`[data-key="${key}"]`)) {
      const [verdict, cause] = VERDICTS[key];
      changed({ verdict, cause, seconds: seconds() });
      return tell(`${wordsOf(entry)}; not saved yet`);
    }
    if (key === "u") {
      changed({ verdict: "", cause: "" });
      return tell("taken back");
    }
    if (key === "c") {
      byId("verdict").scrollIntoView();
      return form.elements.comment.focus();
    }
    if (key === "e") return save();
    if (key === "?") return byId("keys").showModal();
    return undefined;
  };
  document.addEventListener("keydown", ({ key }) => {
    if (key === "Escape") for (const figure of document.querySelectorAll(".enlarged")) figure.classList.remove("enlarged");
  });
  const ownSpace = ({ key, target }) => key === " " && target instanceof Element && target.matches("canvas, [type=radio]");
  wireBar(bar, press, new Set([..."awrRucejk?t", ...VIEW_KEYS]), ownSpace);
{% block extension %}{% endblock %}

  if (framed) { // in MLflow's frame, whose sandbox allows neither forms nor downloads; or in a batch's shell, which answers
    bar.hidden = true;
    form.hidden = true;
    for (const part of document.querySelectorAll(".framed")) part.hidden = false;
    window.addEventListener("message", ({ source, data }) => {
      if (source !== parent || data?.domainVision !== 1 || data.id !== id || data.sha256 !== sha256) return;
      if (data.type === "entry") {
        inShell = true;
        document.body.classList.add("in-shell");
        for (const part of document.querySelectorAll(".framed")) part.hidden = true;
        entry = { ...blank(), ...data.entry };
        show();
      }
      if (data.type === "key" && VIEW_KEYS.has(data.key)) view(data.key, data.down === true);
    });
    post("ready");
  }
  show();
})();
