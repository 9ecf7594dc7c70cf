
  // Pictures of one size on one another: the first of `stage.kinds` below, the chosen one over it, with a swipe and flicker.
  // `stage` says what is particular: `paints(kind)` and `paintOver(context)` draw more, `tell(column, row)` names what is at
  // a place, and `hides()` says whether the picture below is all that may be seen.
  const canvas = document.querySelector(".map-stage canvas");
  const context = canvas.getContext("2d");
  const swipe = byId("map-swipe");
  const strength = byId("map-opacity");
  const layers = [...document.querySelectorAll("[name=map-layer]")];
  const place = { x: data.width / 2, y: data.height / 2, zoom: 0 }; // the pixel in the middle, and screen pixels in its width
  const zooms = () => [place.zoom, place.zoom * data.aspect]; // screen pixels in the width and the height of one
  const drawn = {}; // by layer: what is drawn, and its pixels
  let fitted = true; // whether the whole map is shown, however large the canvas is
  let hidden = false; // while the scene alone is shown
  document.body.classList.add("map-live");

  const loadPicture = (kind) =>
    new Promise((done) => {
      const image = new Image();
      image.addEventListener("load", () => {
        const copy = make("canvas", { width: image.naturalWidth, height: image.naturalHeight });
        copy.getContext("2d", { willReadFrequently: true }).drawImage(image, 0, 0);
        drawn[kind] = { image, copy, pixels: kind === stage.kinds[0] ? null : copy.getContext("2d").getImageData(0, 0, copy.width, copy.height) };
        done();
        draw();
      });
      image.src = byId(`map-${kind}`).getAttribute("href");
    });
  const loaded = Promise.all(stage.kinds.map(loadPicture));

  const size = () => [canvas.clientWidth, canvas.clientHeight];
  const least = () => Math.min(size()[0] / data.width, size()[1] / (data.height * data.aspect));
  const whole = () => {
    Object.assign(place, { x: data.width / 2, y: data.height / 2, zoom: least() });
    fitted = true;
  };
  const toScreen = (x, y) => [size()[0] / 2 + (x - place.x) * zooms()[0], size()[1] / 2 + (y - place.y) * zooms()[1]];
  const toMap = (x, y) => [place.x + (x - size()[0] / 2) / zooms()[0], place.y + (y - size()[1] / 2) / zooms()[1]];
  const closer = (factor, x = size()[0] / 2, y = size()[1] / 2) => {
    const [column, row] = toMap(x, y);
    place.zoom = Math.max(least() / 2, Math.min(64, place.zoom * factor));
    place.x = column - (x - size()[0] / 2) / zooms()[0];
    place.y = row - (y - size()[1] / 2) / zooms()[1];
    moved();
  };
  const shift = (across, down) => {
    place.x += across / zooms()[0];
    place.y += down / zooms()[1];
  };
  const moved = () => {
    fitted = false;
    place.x = Math.max(0, Math.min(data.width, place.x));
    place.y = Math.max(0, Math.min(data.height, place.y));
    draw();
  };
  const goTo = (column, row) => {
    Object.assign(place, { x: column + 0.5, y: row + 0.5, zoom: Math.max(place.zoom, Math.min(6, size()[0] / 160)) });
    byId("first").scrollIntoView();
    moved();
  };
  const layer = () => layers.find((each) => each.checked)?.value;

  let waiting = 0;
  const draw = () => {
    waiting ||= requestAnimationFrame(() => {
      waiting = 0;
      paint();
    });
  };
  const paint = () => {
    const [width, height] = size();
    if (!width) return;
    if (fitted) whole();
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    }
    const onMap = () => {
      const [left, top] = toScreen(0, 0);
      context.setTransform(ratio * zooms()[0], 0, 0, ratio * zooms()[1], ratio * left, ratio * top);
    };
    const lay = (image, own) => {
      context.imageSmoothingEnabled = place.zoom * (data.width / own) < 1;
      context.drawImage(image, 0, 0, data.width, data.height);
    };
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    onMap();
    const under = drawn[stage.kinds[0]];
    if (under) lay(under.image, under.copy.width);
    const chosen = layer();
    const border = (swipe.value / 100) * width;
    if (chosen && drawn[chosen] && !hidden) {
      context.save();
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.beginPath();
      context.rect(border, 0, width - border, height);
      context.clip();
      onMap();
      context.globalAlpha = strength.value / 100;
      if (!stage.paints(chosen)) lay(drawn[chosen].copy, drawn[chosen].copy.width);
      context.restore();
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (border && !hidden) {
      context.fillStyle = "#000a";
      context.fillRect(border - 2, 0, 4, height);
      context.fillStyle = "#fff";
      context.fillRect(border - 1, 0, 2, height);
    }
    stage.paintOver(context);
    showBar();
  };


  /** The colour that a picture has at a pixel, as a number. */
  const pixelOf = (kind, column, row) => {
    const { pixels } = drawn[kind] ?? {};
    if (!pixels) return null;
    const at = 4 * (Math.floor((row / data.height) * pixels.height) * pixels.width + Math.floor((column / data.width) * pixels.width));
    return pixels.data[at + 3] ? (pixels.data[at] << 16) | (pixels.data[at + 1] << 8) | pixels.data[at + 2] : null;
  };
  const pointer = document.querySelector(".map-pointer");
  const tellPlace = (x, y) => {
    const [column, row] = toMap(x, y);
    const outside = column < 0 || row < 0 || column >= data.width || row >= data.height;
    pointer.textContent = outside ? "\u00a0" : [coordinates(column, row), ...stage.tell(column, row)].join(" · ");
  };
  const scaleBar = document.querySelector(".map-bar");
  const showBar = () => {
    if (!data.metres) return;
    const longest = ((size()[0] / 4) * data.metres) / place.zoom;
    const power = 10 ** Math.floor(Math.log10(longest));
    const metres = [5, 2, 1].find((step) => step * power <= longest) * power;
    scaleBar.hidden = false;
    scaleBar.querySelector("span").textContent = metres >= 1000 ? `${metres / 1000} km` : `${metres} m`;
    scaleBar.querySelector("i").style.width = `${(metres / data.metres) * place.zoom}px`;
  };

  // Fingers, mouse and keys. One finger that goes up or down scrolls the page; two move the map.
  const fingers = new Map();
  let dragged = false;
  const spread = () => {
    const [[x, y], [x2, y2]] = [...fingers.values()];
    return [Math.hypot(x2 - x, y2 - y), (x + x2) / 2, (y + y2) / 2];
  };
  canvas.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
    dragged = false;
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    tellPlace(event.offsetX, event.offsetY);
    if (!fingers.has(event.pointerId)) return;
    const [before, was] = [fingers.size === 2 ? spread() : null, fingers.get(event.pointerId)];
    fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
    if (Math.hypot(event.offsetX - was[0], event.offsetY - was[1]) > 2) dragged = true;
    if (fingers.size === 1) {
      shift(was[0] - event.offsetX, was[1] - event.offsetY);
      moved();
    } else if (before) {
      const after = spread();
      shift(before[1] - after[1], before[2] - after[2]);
      closer(after[0] / (before[0] || 1), after[1], after[2]);
    }
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, ({ pointerId }) => fingers.delete(pointerId));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    closer(event.deltaY < 0 ? 1.25 : 0.8, event.offsetX, event.offsetY);
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (steps) {
      event.preventDefault();
      shift(60 * steps[0], 60 * steps[1]);
      moved();
      tellPlace(size()[0] / 2, size()[1] / 2);
    }
    if (event.key === "+" || event.key === "=") closer(1.5);
    if (event.key === "-") closer(1 / 1.5);
  });
  byId("map-closer").addEventListener("click", () => closer(1.5));
  byId("map-farther").addEventListener("click", () => closer(1 / 1.5));
  byId("map-whole").addEventListener("click", () => {
    whole();
    draw();
  });
  for (const control of [swipe, strength, ...layers]) control.addEventListener("input", draw);
  new ResizeObserver(draw).observe(canvas);

  let flickering = 0;
  const flicker = byId("map-flicker");
  const setFlicker = (on) => {
    clearInterval(flickering);
    flickering = on ? setInterval(() => setHidden(!hidden), 700) : 0;
    flicker.setAttribute("aria-pressed", String(on));
    if (!on) setHidden(false);
  };
  const setHidden = (on) => {
    hidden = on || stage.hides();
    draw();
  };
  flicker.addEventListener("click", () => setFlicker(!flickering));

  /** What a key does to any such picture. */
  const viewStage = (key, down) => {
    if (key === " ") setHidden(down);
    else if (!down) return;
    else if (key === "f") setFlicker(!flickering);
    else if (key === "d") {
      layers[(layers.findIndex((each) => each.checked) + 1) % layers.length].checked = true;
      draw();
    } else if (key === "v") byId("first").scrollIntoView();
    else if (key === "[" || key === "]") {
      strength.value = Number(strength.value) + (key === "[" ? -10 : 10);
      draw();
    }
  };
