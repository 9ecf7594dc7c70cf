  const legend = [...document.querySelectorAll(".map-legend li[data-code]")];
  const codeOf = new Map(data.classes.map(({ code, colour: [red, green, blue] }) => [(red << 16) | (green << 8) | blue, code]));
  const colourOf = new Map(data.classes.map(({ code, colour }) => [code, colour]));
  const shownName = (name) => name?.replaceAll("_", " ");
  const nameOf = new Map(data.classes.map(({ code, name }) => [code, name]));
  const levelOf = new Map(data.ramp.map(([red, green, blue], level) => [(red << 16) | (green << 8) | blue, (level + 0.5) / data.ramp.length]));
  let onlyClass = null;
  let mapFile = null;

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

  const classAt = (column, row) => {
    const level = mapFile?.levels[0];
    const [x, y] = [Math.floor(column), Math.floor(row)];
    const tile = level?.tiles.get(`${Math.floor(x / level.across)},${Math.floor(y / level.down)}`);
    if (tile?.numbers) return tile.numbers[(y % level.down) * level.across + (x % level.across)];
    const colour = pixelOf("classes", column, row);
    return colour === null ? null : codeOf.get(colour);
  };
  let visited = -1;
  /** What a key does to the map; true where it does something. */
  const viewMap = (key, down) => {
    if (!down) viewStage(key, down);
    else if (key === "0") showClass(onlyClass);
    else if (key >= "1" && key <= "9") legend[Number(key) - 1]?.querySelector("button").click();
    else if (key === "m") byId("fix-draw")?.click();
    else if (key === "g" && data.doubtful.length) {
      visited = (visited + 1) % data.doubtful.length;
      goTo(data.doubtful[visited].column, data.doubtful[visited].row);
    } else viewStage(key, down);
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
