"use strict";
// Opens the viewer on request and saves the verdict. Where it does not run, the page is as complete as on paper.
(() => {
  const byId = (id) => document.getElementById(id);
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
      const viewer = await openSegmentationViewer(panel, {
        ...data, scan: base64("viewer-scan"), labels: base64("viewer-labels"),
        reference: byId("viewer-reference") ? base64("viewer-reference") : null,
      });
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

  if (window.self !== window.top) { // in a frame, whose sandbox allows neither forms nor downloads
    for (const part of document.querySelectorAll("form.verdict")) part.hidden = true;
    for (const part of document.querySelectorAll(".framed")) part.hidden = false;
  }

  document.querySelector("form.verdict")?.addEventListener("submit", (event) => {
    event.preventDefault();
    const form = event.currentTarget;
    const given = new FormData(form);
    const verdict = {
      schema_version: 1,
      case: form.dataset.case,
      report: { id: form.dataset.report, sha256: form.dataset.sha256 },
      verdict: given.get("verdict"),
      comment: given.get("comment").trim(),
      reviewer: given.get("reviewer").trim(),
      created: new Date().toISOString(),
    };
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(verdict, null, 2) + "\n"], { type: "application/json" }));
    link.download = `${form.dataset.report}_review.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    byId("verdict-state").textContent = `Saved as ${link.download} in the browser’s downloads; a later one counts.`;
  });
})();
