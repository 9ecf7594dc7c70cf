
  // Points: one key a class. While they are answered the map is hidden.
  const panel = byId("point-panel");
  const items = [...document.querySelectorAll("#point-list li")];
  const answers = [...document.querySelectorAll(".answers button")];
  const POINT_KEYS = [..."123456789bdhilnoqstxyz"];
  const keyed = new Map(); // what each key answers
  answers.forEach((button, number) => {
    const key = number === answers.length - 1 ? "0" : POINT_KEYS[number];
    button.querySelector("kbd").textContent = key ?? "";
    if (key) keyed.set(key, button);
    button.addEventListener("click", () => answer(button.dataset.answer));
  });
  let point = -1; // the one that is asked for
  const answeredAt = []; // points in the order of their answers
  const pointing = () => panel !== null && !panel.hidden;
  const numberOf = (item) => item.dataset.number;
  const showPoint = (number) => {
    point = Math.max(0, Math.min(items.length - 1, number));
    const [item, { row, column, top, left, height, width }] = [items[point], data.points[point]];
    const chip = panel.querySelector("svg");
    const image = chip.querySelector("image");
    chip.setAttribute("viewBox", `0 0 ${width} ${height * data.aspect}`);
    image.setAttribute("href", item.querySelector("image").getAttribute("href"));
    image.setAttribute("width", width);
    image.setAttribute("height", height * data.aspect);
    const [x, y] = [column - left, row - top];
    for (const line of chip.querySelectorAll("path")) {
      line.setAttribute("transform", `scale(1 ${data.aspect})`);
      line.setAttribute("d", `M${x - 0.5} ${y - 0.5}h2v2h-2zM${x - 4} ${y + 0.5}h2.5M${x + 2.5} ${y + 0.5}h2.5M${x + 0.5} ${y - 4}v2.5M${x + 0.5} ${y + 2.5}v2.5`);
    }
    byId("point-title").querySelector("b").textContent = `Point ${numberOf(item)}: ${item.querySelector("code").textContent}`;
    showPoints();
  };
  const showPoints = () => {
    if (!panel) return;
    const given = items.filter((item) => entry.points[numberOf(item)]).length;
    byId("point-progress").textContent = `${given} of ${items.length} answered`;
    for (const item of items) item.querySelector(".given").textContent = shownName(entry.points[numberOf(item)]) ?? "";
    const own = point < 0 ? undefined : entry.points[numberOf(items[point])];
    for (const button of answers) button.setAttribute("aria-pressed", String(button.dataset.answer === own));
  };
  const setPointing = (on) => {
    panel.hidden = !on;
    if (on) {
      setFlicker(false);
      const open = items.findIndex((item) => !entry.points[numberOf(item)]);
      showPoint(open < 0 ? 0 : open);
      byId("points").scrollIntoView();
    }
    setHidden(false);
  };
  const answer = (text) => {
    answeredAt.push(point);
    changed({ points: { ...entry.points, [numberOf(items[point])]: text } });
    const rest = [...items.keys()].filter((number) => !entry.points[numberOf(items[number])]);
    const next = rest.find((number) => number > point) ?? rest[0];
    if (next === undefined) {
      showPoints();
      tell("All points are answered: save.");
    } else showPoint(next);
  };
  /** Whether a key answered a point. */
  const answerByKey = (key, down) => {
    if (!pointing() || !keyed.has(key)) return false;
    if (down) keyed.get(key).click();
    return true;
  };
  if (panel) {
    byId("point-start").addEventListener("click", () => setPointing(panel.hidden));
    byId("point-stop").addEventListener("click", () => setPointing(false));
    byId("point-back").addEventListener("click", () => showPoint(point - 1));
    byId("point-next").addEventListener("click", () => showPoint(point + 1));
    byId("point-go").addEventListener("click", () => goTo(data.points[point].column, data.points[point].row));
    items.forEach((item, number) => item.querySelector("svg").addEventListener("click", () => {
      if (!pointing()) setPointing(true);
      showPoint(number);
    }));
    document.addEventListener("keydown", (event) => { // before the keys of verdicts
      const key = keyOf(event);
      const moves = { ArrowLeft: () => showPoint(point - 1), ArrowRight: () => showPoint(point + 1), Escape: () => setPointing(false) };
      const taken = () => {
        if (key === "p") return setPointing(panel.hidden);
        if (!pointing() || event.target === canvas) return false;
        if (moves[key]) return moves[key]();
        if (key === "u" && answeredAt.length) {
          const last = answeredAt.pop();
          const { [numberOf(items[last])]: _, ...points } = entry.points;
          changed({ points });
          return showPoint(last);
        }
        return !event.repeat && answerByKey(key, true);
      };
      if (!key || taken() === false) return;
      event.preventDefault();
      event.stopImmediatePropagation();
    }, true);
  }
