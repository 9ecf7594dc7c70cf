  const VERDICTS = { a: ["accept", ""], w: ["needs_work", ""], r: ["reject", ""], R: ["reject", "scan"] };
  const NAMES = { accept: "accept", needs_work: "needs work", reject: "reject" };
  const VIEW_KEYS = new Set([" ", "f", "[", "]", "g", "d", "v", "m", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
  const PREFIX = "domain-vision:";
  const byId = (id) => document.getElementById(id);

  /** What a browser keeps between visits; where it keeps nothing, writing says so. */
  const storage = {
    read(key) {
      try {
        return JSON.parse(localStorage.getItem(PREFIX + key));
      } catch {
        return null;
      }
    },
    write(key, value) {
      try {
        localStorage.setItem(PREFIX + key, JSON.stringify(value));
        return true;
      } catch {
        return false;
      }
    },
  };

  const typing = (target) =>
    target instanceof Element && target.matches("textarea, select, input:not([type=checkbox], [type=radio], [type=range], [type=file])");

  /** The key of an event as the table of keys has it; empty in text fields and with keys that change others. */
  const keyOf = (event) => {
    if (typing(event.target) || event.ctrlKey || event.metaKey || event.altKey) return "";
    if (event.key === " " && event.target instanceof Element && event.target.matches("button, summary, input")) return "";
    return event.key;
  };

  const wordsOf = ({ verdict, cause }) => (cause ? "the scan is bad" : NAMES[verdict] ?? "open");

  const blank = () => ({ verdict: "", cause: "", comment: "", structures: {}, marks: [], points: {}, fixes: [], seconds: null, at: "" });

  /** Whether points of a map were answered or polygons drawn, which are saved without a verdict, too. */
  const answered = ({ points, fixes }) => Object.keys(points).length > 0 || fixes.length > 0;

  /** A verdict as files have it; one that was taken back is open. */
  const asVerdict = (id, sha256, entry, reviewer) => ({
    schema_version: 2,
    case: id.slice(0, -9),
    report: { id, sha256 },
    verdict: entry.verdict || "open",
    cause: entry.cause,
    comment: entry.comment.trim(),
    reviewer,
    created: entry.at || new Date().toISOString(),
    seconds: entry.seconds,
    structures: entry.structures,
    marks: entry.marks,
    ...(answered(entry) ? { points: entry.points, fixes: entry.fixes } : {}),
  });

  const asEntry = (verdict) => ({
    ...blank(),
    verdict: verdict.verdict in NAMES ? verdict.verdict : "",
    cause: verdict.cause === "scan" ? "scan" : "",
    comment: typeof verdict.comment === "string" ? verdict.comment : "",
    structures: verdict.structures && typeof verdict.structures === "object" ? verdict.structures : {},
    marks: Array.isArray(verdict.marks) ? verdict.marks : [],
    points: verdict.points && typeof verdict.points === "object" ? verdict.points : {},
    fixes: Array.isArray(verdict.fixes) ? verdict.fixes : [],
    seconds: typeof verdict.seconds === "number" ? verdict.seconds : null,
    at: typeof verdict.created === "string" ? new Date(verdict.created).toISOString() : "",
  });

  const asText = (content) => JSON.stringify(content, null, 2) + "\n";

  /** The file of a reader's verdicts on the reports of a batch, and what it is called. */
  const asFile = (batch, reader, verdicts) => ({
    name: `reviews-${batch.slice(0, 8)}-${reader.replace(/[^\p{L}\p{N}_-]/gu, "_")}.json`,
    text: asText({ schema_version: 2, batch, reviewer: reader, created: new Date().toISOString(), verdicts }),
  });

  const download = (name, text, type = "application/json") => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  };

  /** What a page's reader gives: the browser keeps it under `place`, and who leaves before it is saved is warned. */
  const keeper = (place, content, tell) => {
    const kept = storage.read(place) ?? {};
    let dirty = kept.dirty ?? false;
    const keep = () => {
      if (!storage.write(place, { ...content(), dirty })) tell("This browser keeps nothing: save before you leave.");
    };
    window.addEventListener("beforeunload", (event) => {
      if (dirty) event.preventDefault();
    });
    return {
      kept,
      keep,
      change() {
        dirty = true;
        keep();
      },
      save(name, text, type) {
        download(name, text, type);
        dirty = false;
        keep();
        tell(`Saved as ${name}; a later file counts.`);
      },
    };
  };

  /** Bring a bar to life: each button does what its key does, also where the bar has none; Escape leaves a text field. */
  const wireBar = (bar, press, keys, blocked = () => false) => {
    for (const button of bar.querySelectorAll("button[data-key]")) {
      button.addEventListener("click", () => {
        press(button.dataset.key, true);
        if (button.dataset.key === " ") setTimeout(() => press(" ", false), 1500);
      });
    }
    for (const kind of ["keydown", "keyup"]) {
      document.addEventListener(kind, (event) => {
        if (event.key === "Escape" && typing(event.target)) event.target.blur();
        const key = keyOf(event);
        if (!keys.has(key) || blocked(event)) return;
        event.preventDefault();
        if (!event.repeat) press(key, kind === "keydown");
      });
    }
  };

  /** Give a file that is chosen in a bar to what loads it; the same file can be chosen again. */
  const wireLoad = (load) => {
    byId("load").addEventListener("change", async ({ target }) => {
      if (target.files[0]) await load(target.files[0]);
      target.value = "";
    });
  };
