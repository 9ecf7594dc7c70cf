
  const canvas = document.querySelector(".map-stage canvas");
  const context = canvas.getContext("2d");
  const swipe = byId("map-swipe");
  const strength = byId("map-opacity");
  const layers = [...document.querySelectorAll("[name=map-layer]")];
  const legend = [...document.querySelectorAll(".map-legend li[data-code]")];
  const codeOf = new Map(data.classes.map(({ code, colour: [red, green, blue] }) => [(red << 16) | (green << 8) | blue, code]));
  const colourOf = new Map(data.classes.map(({ code, colour }) => [code, colour]));
  const shownName = (name) => name?.replaceAll("_", " ");
  const nameOf = new Map(data.classes.map(({ code, name }) => [code, name]));
  const levelOf = new Map(data.ramp.map(([red, green, blue], level) => [(red << 16) | (green << 8) | blue, (level + 0.5) / data.ramp.length]));
  const place = { x: data.width / 2, y: data.height / 2, zoom: 0 }; // the pixel in the middle, and screen pixels in its width
  const zooms = () => [place.zoom, place.zoom * data.aspect]; // screen pixels in the width and the height of one
  const drawn = {}; // by layer: what is drawn, and its pixels
  let fitted = true; // whether the whole map is shown, however large the canvas is
  let onlyClass = null;
  let hidden = false; // while the scene alone is shown
  let mapFile = null;
  document.body.classList.add("map-live");

  const loadPicture = (kind) =>
    new Promise((done) => {
      const image = new Image();
      image.addEventListener("load", () => {
        const copy = make("canvas", { width: image.naturalWidth, height: image.naturalHeight });
        copy.getContext("2d", { willReadFrequently: true }).drawImage(image, 0, 0);
        drawn[kind] = { image, copy, pixels: kind === "scene" ? null : copy.getContext("2d").getImageData(0, 0, copy.width, copy.height) };
        done();
        draw();
      });
      image.src = byId(`map-${kind}`).getAttribute("href");
    });
  const loaded = Promise.all(["scene", "classes", "confidence"].map(loadPicture));

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
    if (drawn.scene) lay(drawn.scene.image, drawn.scene.copy.width);
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
      if (!(chosen === "classes" && mapFile && paintTiles())) lay(drawn[chosen].copy, drawn[chosen].copy.width);
      context.restore();
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (border && !hidden) {
      context.fillStyle = "#000a";
      context.fillRect(border - 2, 0, 4, height);
      context.fillStyle = "#fff";
      context.fillRect(border - 1, 0, 2, height);
    }
    paintFixes(context);
    showBar();
  };

  /** Draw the tiles of the map's file in the coarsest overview that is fine enough; false until all of them are there. */
  const paintTiles = () => {
    const wanted = [...mapFile.levels].reverse().find((each) => (each.width / data.width) >= Math.min(1, place.zoom)) ?? mapFile.levels[0];
    const factor = data.width / wanted.width;
    const [width, height] = size();
    const corner = (x, y) => toMap(x, y).map((part, axis) => Math.max(0, Math.min([wanted.width, wanted.height][axis] - 1, part / factor)));
    const [[left, top], [right, bottom]] = [corner(0, 0), corner(width, height)];
    const ready = [];
    let complete = true;
    for (let row = Math.floor(top / wanted.down); row <= Math.floor(bottom / wanted.down); row += 1) {
      for (let column = Math.floor(left / wanted.across); column <= Math.floor(right / wanted.across); column += 1) {
        const tile = wanted.tiles.get(`${column},${row}`);
        if (!tile) fetchTile(wanted, column, row);
        if (tile?.picture) ready.push([tile.picture, column, row]);
        else complete = false;
      }
    }
    if (!complete) return false;
    context.imageSmoothingEnabled = place.zoom * factor < 1;
    for (const [picture, column, row] of ready) {
      const [across, down] = [Math.min(wanted.across, wanted.width - column * wanted.across), Math.min(wanted.down, wanted.height - row * wanted.down)];
      context.drawImage(picture, 0, 0, across, down, column * wanted.across * factor, row * wanted.down * factor, across * factor, down * factor);
    }
    return true;
  };
  const fetchTile = async (level, column, row) => {
    const key = `${column},${row}`;
    const tile = { numbers: null, picture: null };
    level.tiles.set(key, tile);
    if (level.tiles.size > TILES) level.tiles.delete(level.tiles.keys().next().value);
    try {
      tile.numbers = await mapFile.tile(level, column, row);
      tile.picture = tilePicture(level, tile.numbers);
      draw();
    } catch (problem) {
      mapFile = null;
      byId("map-file-state").textContent = `The file cannot be read: ${problem.message}.`;
    }
  };
  const tilePicture = (level, numbers) => {
    const picture = make("canvas", { width: level.across, height: level.down });
    const image = new ImageData(level.across, level.down);
    for (let at = 0; at < numbers.length; at += 1) {
      const colour = colourOf.get(numbers[at]);
      if (!colour || (onlyClass !== null && numbers[at] !== onlyClass)) continue;
      image.data.set([...colour, 255], 4 * at);
    }
    picture.getContext("2d").putImageData(image, 0, 0);
    return picture;
  };
  byId("map-file").addEventListener("change", async ({ target }) => {
    const [file] = target.files;
    if (!file) return;
    const state = byId("map-file-state");
    try {
      mapFile = await openMapFile(file);
      state.textContent = "The map is shown at full resolution.";
    } catch (problem) {
      mapFile = null;
      state.textContent = `The file ${problem.message}.`;
    }
    draw();
  });

  /** Show one class alone, or all again. */
  const showClass = (code) => {
    onlyClass = code === onlyClass ? null : code;
    for (const item of legend) {
      const alone = Number(item.dataset.code) === onlyClass;
      item.classList.toggle("alone", alone);
      item.querySelector("button").setAttribute("aria-pressed", String(alone));
    }
    const { copy, pixels } = drawn.classes ?? {};
    if (!copy) return;
    const shown = new ImageData(new Uint8ClampedArray(pixels.data), pixels.width);
    if (onlyClass !== null) {
      for (let at = 0; at < shown.data.length; at += 4) {
        const code_ = codeOf.get((shown.data[at] << 16) | (shown.data[at + 1] << 8) | shown.data[at + 2]);
        if (code_ !== onlyClass) shown.data[at + 3] = 0;
      }
    }
    copy.getContext("2d").putImageData(shown, 0, 0);
    for (const level of mapFile?.levels ?? []) {
      for (const tile of level.tiles.values()) if (tile.numbers) tile.picture = tilePicture(level, tile.numbers);
    }
    for (const each of layers) each.checked = each.value === "classes";
    draw();
  };
  for (const item of legend) {
    const button = make("button", { type: "button", class: "jump", "aria-pressed": "false", title: "this class alone" });
    const name = item.querySelector(".structure");
    name.replaceWith(button);
    button.append(name);
    button.addEventListener("click", () => showClass(Number(item.dataset.code)));
  }

  /** What the pictures, or the map's file, have at a pixel. */
  const pixelOf = (kind, column, row) => {
    const { pixels } = drawn[kind] ?? {};
    if (!pixels) return null;
    const at = 4 * (Math.floor((row / data.height) * pixels.height) * pixels.width + Math.floor((column / data.width) * pixels.width));
    return pixels.data[at + 3] ? (pixels.data[at] << 16) | (pixels.data[at + 1] << 8) | pixels.data[at + 2] : null;
  };
  const classAt = (column, row) => {
    const level = mapFile?.levels[0];
    const [x, y] = [Math.floor(column), Math.floor(row)];
    const tile = level?.tiles.get(`${Math.floor(x / level.across)},${Math.floor(y / level.down)}`);
    if (tile?.numbers) return tile.numbers[(y % level.down) * level.across + (x % level.across)];
    const colour = pixelOf("classes", column, row);
    return colour === null ? null : codeOf.get(colour);
  };
  const pointer = document.querySelector(".map-pointer");
  const tellPlace = (x, y) => {
    const [column, row] = toMap(x, y);
    if (column < 0 || row < 0 || column >= data.width || row >= data.height) {
      pointer.textContent = "\u00a0";
      return;
    }
    const confidence = levelOf.get(pixelOf("confidence", column, row));
    const about = pointing() ? [] : [shownName(nameOf.get(classAt(column, row))) ?? "no data", ...(confidence ? [`confidence ${confidence.toFixed(2)}`] : [])];
    pointer.textContent = [coordinates(column, row), ...about].join(" · ");
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
    hidden = on || pointing();
    draw();
  };
  flicker.addEventListener("click", () => setFlicker(!flickering));

  let visited = -1;
  /** What a key does to the map; true where it does something. */
  const viewMap = (key, down) => {
    if (key === " ") setHidden(down);
    else if (!down) return true;
    else if (key === "0") showClass(onlyClass);
    else if (key >= "1" && key <= "9") legend[Number(key) - 1]?.querySelector("button").click();
    else if (key === "f") setFlicker(!flickering);
    else if (key === "d") {
      layers[(layers.findIndex((each) => each.checked) + 1) % layers.length].checked = true;
      draw();
    } else if (key === "v") byId("first").scrollIntoView();
    else if (key === "m") byId("fix-draw")?.click();
    else if (key === "g" && data.doubtful.length) {
      visited = (visited + 1) % data.doubtful.length;
      goTo(data.doubtful[visited].column, data.doubtful[visited].row);
    } else if (key === "[" || key === "]") {
      strength.value = Number(strength.value) + (key === "[" ? -10 : 10);
      draw();
    }
    return true;
  };

  // Coordinates to copy, and places to go to.
  for (const item of document.querySelectorAll(".chips li")) {
    const text = item.querySelector("code");
    item.querySelector(".go").addEventListener("click", () => goTo(Number(item.dataset.column), Number(item.dataset.row)));
    item.querySelector(".copy").addEventListener("click", async ({ target }) => {
      getSelection().selectAllChildren(text);
      let copied = true;
      try {
        await navigator.clipboard.writeText(text.textContent);
      } catch {
        copied = document.execCommand("copy"); // pages in frames may not reach the clipboard otherwise
      }
      target.textContent = copied ? "copied" : "marked: Ctrl C";
      setTimeout(() => {
        target.textContent = "copy";
      }, 2000);
    });
  }
