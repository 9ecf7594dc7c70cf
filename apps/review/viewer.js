// The viewer of a segmentation report: NiiVue over the page's own volumes, with the controls that the page holds.
// The page calls `openSegmentationViewer` after it has unpacked this bundle; nothing here fetches anything.
import { DRAG_MODE, MULTIPLANAR_TYPE, NVImage, Niivue, SHOW_RENDER } from "@niivue/niivue";

// How a slice is drawn. NiiVue's own contours are those of the surface in space, which fill a slice wherever the surface
// runs along it; these are of the slice alone: a pixel of a label is on its contour where, at the line's width to the
// left, right, top or bottom on the screen, there is another label or none. `overlay` holds each label's colour, and a
// transparent voxel where there is none; it is fetched as it is, without interpolation.
const SLICE_SHADER = `#version 300 es
precision highp int;
precision highp float;
uniform highp sampler3D volume;
uniform highp sampler3D overlay;
uniform float overlayOutlineWidth; // of contours in pixels; 0: filled
uniform float overlayAlphaShader; // opacity of either
in vec3 texPos;
out vec4 color;
vec4 label(vec3 place) {
  if (any(lessThan(place, vec3(0.0))) || any(greaterThanEqual(place, vec3(1.0)))) return vec4(0.0);
  vec4 found = texelFetch(overlay, ivec3(place * vec3(textureSize(overlay, 0))), 0);
  return found.a > 0.0 ? vec4(found.rgb, 1.0) : vec4(0.0);
}
void main() {
  color = vec4(texture(volume, texPos).rgb, 1.0);
  float reach = overlayOutlineWidth + 0.01; // no gap by rounding where a voxel's edge meets a pixel's centre
  vec3 across = dFdx(texPos) * reach;
  vec3 down = dFdy(texPos) * reach;
  vec4 here = label(texPos);
  bool drawn = overlayOutlineWidth == 0.0 || here != label(texPos - across) || here != label(texPos + across)
    || here != label(texPos - down) || here != label(texPos + down);
  if (drawn) color.rgb = mix(color.rgb, here.rgb, here.a * overlayAlphaShader);
}`;
const LINE = 1; // width of contours in CSS pixels

/**
 * Draw both volumes and bring the controls to life.
 *
 * @param {HTMLElement} panel holds the canvas, the controls and the read-out, found by their `data-part`.
 * @param {{scan: string, labels: string, unit: string, step: number, windows: [number, number][],
 *   structures: {code: number, name: string, color: number[], mm: number[] | null}[]}} data volumes as base64 of
 *   .nii.gz; of a structure its value in the label volume and a point inside it in scanner coordinates.
 * @returns {Promise<{jump: (code: number) => void}>}
 */
globalThis.openSegmentationViewer = async (panel, data) => {
  const part = (name) => panel.querySelector(`[data-part="${name}"]`);
  const canvas = part("canvas");
  const nv = new Niivue({
    logLevel: "error",
    loadingText: "",
    isRadiologicalConvention: true,
    sagittalNoseLeft: true,
    multiplanarLayout: MULTIPLANAR_TYPE.GRID,
    multiplanarShowRender: SHOW_RENDER.NEVER,
    multiplanarPadPixels: 4,
    crosshairColor: [0.94, 0.64, 0.01, 0.9],
    crosshairWidth: 0.4,
    crosshairWidthUnit: "percent",
    crosshairGap: 4,
    dragMode: DRAG_MODE.slicer3D, // of the right button: zoom
    fontColor: [1, 1, 1, 1],
    dragAndDropEnabled: false,
    scrollRequiresFocus: true,
  });
  followKeys(canvas, nv);
  canvas.addEventListener("dblclick", (event) => {
    event.stopImmediatePropagation(); // NiiVue would choose a window of its own
    nv.setPan2Dxyzmm([0, 0, 0, 1]);
  });
  await nv.attachToCanvas(canvas);
  nv.setCustomSliceShader(SLICE_SHADER);

  const [low, high] = data.windows[0];
  const scan = await NVImage.loadFromBase64({ base64: data.scan, name: "scan.nii.gz", cal_min: low, cal_max: high });
  const labels = await NVImage.loadFromBase64({ base64: data.labels, name: "labels.nii.gz" });
  labels.setColormapLabel(colormap(data.structures));
  const codes = labels.img.slice(); // what hidden structures are shown again from
  nv.addVolume(scan);
  nv.addVolume(labels);

  const names = new Map(data.structures.map(({ code, name }) => [code, name]));
  nv.onLocationChange = ({ values }) => {
    const [shown, overlay] = values;
    const visible = labels.img;
    labels.img = codes;
    const code = labels.getValue(...overlay.vox.slice(0, 3));
    labels.img = visible;
    const unit = data.unit ? ` ${data.unit}` : "";
    part("position").textContent = position(shown.mm);
    part("value").textContent = `${rounded(shown.value, data.step)}${unit}`;
    part("structure").textContent = names.get(code) ?? "none";
  };

  const restyle = () => {
    const style = part("style").value;
    nv.overlayOutlineWidth = style === "contours" ? Math.max(1, Math.round(LINE * devicePixelRatio)) : 0;
    nv.overlayAlphaShader = style === "none" ? 0 : Number(part("opacity").value) / 100;
    const opacity = Number(style !== "none"); // of the layer, which the 3-D surface shows, too
    if (labels.opacity === opacity) nv.drawScene();
    else nv.setOpacity(1, opacity); // fills a texture again, which takes longer
  };
  const boxes = [...panel.querySelectorAll("input[data-code]")];
  const relabel = () => {
    const kept = new Uint8Array(256);
    for (const box of boxes) kept[box.dataset.code] = box.checked ? Number(box.dataset.code) : 0;
    labels.img = codes.map((code) => kept[code]);
    nv.updateGLVolume();
  };
  part("window").addEventListener("change", ({ target }) => {
    [scan.cal_min, scan.cal_max] = data.windows[target.value];
    nv.updateGLVolume();
  });
  part("style").addEventListener("change", restyle);
  part("opacity").addEventListener("input", restyle);
  for (const box of boxes) box.addEventListener("change", relabel);
  part("all").addEventListener("change", ({ target }) => {
    for (const box of boxes) box.checked = target.checked;
    relabel();
  });
  part("surface").addEventListener("click", ({ currentTarget }) => {
    const shown = currentTarget.getAttribute("aria-pressed") !== "true";
    currentTarget.setAttribute("aria-pressed", String(shown));
    nv.opts.multiplanarShowRender = shown ? SHOW_RENDER.ALWAYS : SHOW_RENDER.NEVER;
    nv.drawScene();
  });

  const jump = (code) => {
    const found = data.structures.find((structure) => structure.code === code);
    if (!found?.mm) return;
    nv.scene.crosshairPos = nv.mm2frac(found.mm, 0, true);
    nv.createOnLocationChange();
    nv.drawScene();
  };
  for (const button of panel.querySelectorAll("button[data-code]")) {
    button.addEventListener("click", () => jump(Number(button.dataset.code)));
  }
  restyle();
  nv.createOnLocationChange();
  return { jump };
};

/** Arrows move along the screen's axes of the axial panel, page keys through its slices; with Shift in strides. */
function followKeys(canvas, nv) {
  const steps = {
    ArrowLeft: [1, 0, 0], // radiological: the patient's right is on the left
    ArrowRight: [-1, 0, 0],
    ArrowUp: [0, 1, 0],
    ArrowDown: [0, -1, 0],
    PageUp: [0, 0, 1],
    PageDown: [0, 0, -1],
  };
  for (const kind of ["keydown", "keyup"]) {
    canvas.addEventListener(kind, (event) => {
      event.stopImmediatePropagation(); // NiiVue's own keys depend on where the mouse is
      const step = steps[event.key];
      if (!step) return;
      event.preventDefault();
      if (kind === "keydown") nv.moveCrosshairInVox(...step.map((move) => move * (event.shiftKey ? 5 : 1)));
    });
  }
}

/** Labels' colours as NiiVue takes them. No two are the same, as the slices' shader knows labels by their colours. */
function colormap(structures) {
  const table = { R: [0], G: [0], B: [0], A: [0], I: [0] };
  const taken = new Set();
  for (const { code, color } of structures) {
    const [red, green, other] = color;
    let blue = other;
    while (taken.has(`${red} ${green} ${blue}`)) blue = (blue + 1) % 256;
    taken.add(`${red} ${green} ${blue}`);
    [table.R, table.G, table.B].forEach((channel, index) => channel.push([red, green, blue][index]));
    table.A.push(255);
    table.I.push(code);
  }
  return table;
}

function position(mm) {
  const letters = ["RL", "AP", "SI"];
  return letters.map((pair, axis) => `${pair[mm[axis] < 0 ? 1 : 0]} ${Math.abs(mm[axis]).toFixed(1)}`).join(", ") + " mm";
}

function rounded(value, step) {
  return value.toFixed(Math.min(6, Math.max(0, Math.ceil(-Math.log10(step)))));
}
