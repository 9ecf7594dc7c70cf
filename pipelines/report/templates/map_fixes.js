
  // Fixes: polygons with the class that is there, in longitudes and latitudes, which are labels for a training.
  const drawButton = byId("fix-draw");
  let corners = null; // of the polygon that is being drawn, in pixels
  const setDrawing = (on) => {
    corners = on ? [] : null;
    drawButton?.setAttribute("aria-pressed", String(on));
    canvas.classList.toggle("drawing-fix", on);
    draw();
  };
  const closeFix = () => {
    if (corners?.length < 3) {
      byId("fix-state").textContent = "A polygon has three corners or more.";
      return;
    }
    const ring = corners.map(([column, row]) => degreesAt(column, row).map((part) => Number(part.toFixed(7))));
    changed({ fixes: [...entry.fixes, { class: byId("fix-class").value, ring }] });
    setDrawing(true);
  };
  const paintFixes = (pen) => {
    const line = (ring, colour, closed) => {
      if (!ring.length) return;
      pen.beginPath();
      for (const [column, row] of ring) pen.lineTo(...toScreen(column, row));
      if (closed) pen.closePath();
      pen.lineJoin = "round";
      for (const [width, style] of [[5, "#000"], [2.5, colour]]) {
        [pen.lineWidth, pen.strokeStyle] = [width, style];
        pen.stroke();
      }
    };
    const colourOfName = (name) => {
      const known = data.classes.find((each) => each.name === name);
      return known ? `rgb(${known.colour.join(" ")})` : "#fff";
    };
    for (const fix of data.degrees ? entry.fixes : []) {
      line(fix.ring.map(([longitude, latitude]) => pixelsAt(longitude, latitude)).filter(Boolean), colourOfName(fix.class), true);
    }
    if (corners) {
      line(corners, "#fff", false);
      for (const [column, row] of corners) {
        const [x, y] = toScreen(column, row);
        pen.fillStyle = "#fff";
        pen.fillRect(x - 3, y - 3, 6, 6);
      }
    }
  };
  let shownFixes = null;
  const showFixes = () => {
    const list = byId("fix-list");
    if (!list || shownFixes === entry.fixes) return;
    shownFixes = entry.fixes;
    list.replaceChildren(...entry.fixes.map((fix, number) => {
      const remove = make("button", { type: "button", "aria-label": `remove fix ${number + 1}` }, "remove");
      remove.addEventListener("click", () => changed({ fixes: entry.fixes.filter((_, other) => other !== number) }));
      return make("li", {}, `${shownName(fix.class)}, ${fix.ring.length} corners `, remove);
    }));
    byId("fix-save").disabled = !entry.fixes.length;
    byId("fix-save").hidden = framed;
    draw();
  };
  /** Fixes as GeoJSON: longitudes and latitudes (WGS 84), rings closed and counter-clockwise. */
  const asGeoJson = (fixes) => ({
    type: "FeatureCollection",
    features: fixes.map(({ class: name, ring }) => {
      const turn = ring.reduce((sum, [x, y], at) => {
        const [x2, y2] = ring[(at + 1) % ring.length];
        return sum + (x2 - x) * (y2 + y);
      }, 0);
      const around = turn > 0 ? [...ring].reverse() : ring;
      return { type: "Feature", properties: { class: name }, geometry: { type: "Polygon", coordinates: [[...around, around[0]]] } };
    }),
  });
  if (drawButton) {
    drawButton.addEventListener("click", () => setDrawing(!corners));
    byId("fix-save").addEventListener("click", () => {
      download(`${id}_fixes.geojson`, asText(asGeoJson(entry.fixes)));
      tell(`Saved as ${id}_fixes.geojson in the browser’s downloads.`);
    });
    canvas.addEventListener("click", (event) => {
      if (!corners || dragged || event.detail > 1) return;
      const [column, row] = toMap(event.offsetX, event.offsetY);
      corners.push([Math.max(0, Math.min(data.width, column)), Math.max(0, Math.min(data.height, row))]);
      byId("fix-state").textContent = `${corners.length} corners; Enter closes the polygon.`;
      draw();
    });
    canvas.addEventListener("dblclick", () => corners && closeFix());
    document.addEventListener("keydown", (event) => {
      if (!corners || typing(event.target) || (event.target instanceof Element && event.target.matches("button, select"))) return;
      if (event.key === "Enter") closeFix();
      else if (event.key === "Escape") setDrawing(false);
      else if (event.key === "Backspace") {
        corners.pop();
        draw();
      }
    });
  }
