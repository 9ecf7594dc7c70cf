// The viewer of a segmentation report: NiiVue over the page's own volumes, with the controls that the page holds.
// The page calls `openSegmentationViewer` after it has unpacked this bundle; nothing here fetches anything.
import { DRAG_MODE, MULTIPLANAR_TYPE, NVImage, Niivue, SHOW_RENDER, SLICE_TYPE } from "@niivue/niivue";

// How a slice is drawn. NiiVue's own contours are those of the surface in space, which fill a slice wherever the surface
// runs along it; these are of the slice alone: a pixel of a label is on its contour where, at the line's width to the
// left, right, top or bottom on the screen, there is another label or none. `codes` holds the result in red, the
// reference in green and how certain the result is in blue, `palette` each code's colour and, as its alpha, whether it
// is visible: to show or hide structures changes these 1,024 bytes and no volume.
const SLICE_SHADER = `#version 300 es
precision highp int;
precision highp float;
precision highp usampler3D;
uniform highp sampler3D volume;
uniform usampler3D codes;
uniform highp sampler2D palette;
uniform int layer; // 0: result, 1: reference, 2: their difference, 3: result and its doubt
uniform float overlayOutlineWidth; // of contours in pixels; 0: filled
uniform float overlayAlphaShader; // opacity of either
in vec3 texPos;
out vec4 color;
vec4 entry(uint code) {
  vec4 known = texelFetch(palette, ivec2(int(code), 0), 0);
  return code > 0u && known.a > 0.5 ? vec4(known.rgb, float(code)) : vec4(0.0);
}
vec4 label(vec3 place) { // its colour, and a number in the place of alpha by which labels of one colour differ
  if (any(lessThan(place, vec3(0.0))) || any(greaterThanEqual(place, vec3(1.0)))) return vec4(0.0);
  uvec2 both = texelFetch(codes, ivec3(place * vec3(textureSize(codes, 0))), 0).rg;
  if (layer != 2) return entry(layer == 1 ? both.g : both.r);
  vec4 result = entry(both.r);
  vec4 reference = entry(both.g);
  if (result.a == reference.a) return vec4(0.0);
  if (reference.a == 0.0) return vec4(1.0, 0.33, 0.27, 1.0);
  return result.a == 0.0 ? vec4(0.34, 0.63, 1.0, 2.0) : vec4(1.0, 0.77, 0.24, 3.0);
}
void main() {
  color = vec4(texture(volume, texPos).rgb, 1.0);
  if (layer == 3 && all(greaterThanEqual(texPos, vec3(0.0))) && all(lessThan(texPos, vec3(1.0)))) {
    float doubt = 1.0 - float(texelFetch(codes, ivec3(texPos * vec3(textureSize(codes, 0))), 0).b) / 255.0;
    vec3 heat = mix(vec3(1.0, 0.85, 0.2), vec3(0.9, 0.1, 0.1), smoothstep(0.3, 0.6, doubt));
    color.rgb = mix(color.rgb, heat, 0.85 * smoothstep(0.15, 0.5, doubt));
  }
  float reach = overlayOutlineWidth + 0.01; // no gap by rounding where a voxel's edge meets a pixel's centre
  vec3 across = dFdx(texPos) * reach;
  vec3 down = dFdy(texPos) * reach;
  vec4 here = label(texPos);
  bool drawn = here.a > 0.0 && (overlayOutlineWidth == 0.0 || here != label(texPos - across)
    || here != label(texPos + across) || here != label(texPos - down) || here != label(texPos + down));
  if (drawn) color.rgb = mix(color.rgb, here.rgb, overlayAlphaShader);
}`;
const CODES_UNIT = 12; // texture units that NiiVue leaves alone
const PALETTE_UNIT = 13;
const LAYERS = ["result", "reference", "difference", "doubt"];
const LAYOUTS = { axial: SLICE_TYPE.AXIAL, coronal: SLICE_TYPE.CORONAL, sagittal: SLICE_TYPE.SAGITTAL };
const DRAGS = { zoom: DRAG_MODE.slicer3D, window: DRAG_MODE.windowing, measure: DRAG_MODE.measurement };
const LINE = 1; // width of contours in CSS pixels
const CROSSHAIR = 0.4; // its width in percent of the picture

/**
 * Draw both volumes and bring the controls to life.
 *
 * @param {HTMLElement} panel holds the canvas, the controls and the read-out, found by their `data-part`.
 * @param {{scan: string, labels: string, reference: string | null, certainty: string | null, unit: string,
 *   step: number, windows: [number, number][], structures: {code: number, name: string, color: number[],
 *   mm: number[] | null}[]}} data volumes as base64 of .nii.gz; of a structure its value in the label volume and a point inside it in scanner coordinates.
 * @returns {Promise<{jump: (code: number) => void, show: (codes: number[] | null) => void}>}
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
    crosshairWidth: CROSSHAIR,
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
  const [labels, reference, certainty] = await Promise.all(
    [data.labels, data.reference, data.certainty].map(
      (base64) => base64 && NVImage.loadFromBase64({ base64, name: "labels.nii.gz" }),
    ),
  );
  labels.setColormapLabel(colormap(data.structures));
  const codes = labels.img.slice();
  const slices = sliceLayers(nv, [labels, reference, certainty], data.structures); // before a slice is drawn
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

  const surface = part("surface");
  const boxes = [...panel.querySelectorAll("input[data-code]")];
  const inSpace = () => surface.getAttribute("aria-pressed") === "true";
  let stale = false; // whether the surface shows other structures than the slices
  /** Show on the surface what the slices show; this fills a texture, and waits until there is a surface. */
  const refill = () => {
    if (!inSpace() || !stale) return;
    const kept = new Uint8Array(256);
    const none = part("style").value === "none";
    for (const box of boxes) kept[box.dataset.code] = box.checked && !none ? Number(box.dataset.code) : 0;
    labels.img = codes.map((code) => kept[code]);
    nv.updateGLVolume();
    stale = false;
  };
  const restyle = () => {
    const style = part("style").value;
    nv.overlayOutlineWidth = style === "contours" ? Math.max(1, Math.round(LINE * devicePixelRatio)) : 0;
    nv.overlayAlphaShader = style === "none" ? 0 : Number(part("opacity").value) / 100;
    nv.drawScene();
  };
  const relabel = () => {
    stale = true;
    slices.setVisible(boxes.filter((box) => box.checked).map((box) => Number(box.dataset.code)));
    refill();
    nv.drawScene();
  };
  part("window").addEventListener("change", ({ target }) => {
    [scan.cal_min, scan.cal_max] = data.windows[target.value];
    nv.updateGLVolume();
  });
  part("style").addEventListener("change", () => {
    restyle();
    stale = true;
    refill();
  });
  part("opacity").addEventListener("input", restyle);
  part("layer")?.addEventListener("change", ({ target }) => {
    slices.setLayer(target.value);
    nv.drawScene();
  });
  part("layout").addEventListener("change", ({ target }) => {
    const large = LAYOUTS[target.value];
    nv.opts.heroImageFraction = large === undefined ? 0 : 0.66;
    if (large !== undefined) nv.opts.heroSliceType = large;
    nv.drawScene();
  });
  part("drag").addEventListener("change", ({ target }) => {
    nv.opts.dragMode = DRAGS[target.value];
  });
  part("crosshair").addEventListener("change", ({ target }) => {
    nv.setCrosshairWidth(target.checked ? CROSSHAIR : 0);
  });
  const show = (wanted) => {
    for (const box of boxes) box.checked = wanted === null || wanted.includes(Number(box.dataset.code));
    relabel();
  };
  for (const box of boxes) box.addEventListener("change", relabel);
  part("all").addEventListener("change", ({ target }) => show(target.checked ? null : []));
  part("surface").addEventListener("click", ({ currentTarget }) => {
    const shown = currentTarget.getAttribute("aria-pressed") !== "true";
    currentTarget.setAttribute("aria-pressed", String(shown));
    nv.opts.multiplanarShowRender = shown ? SHOW_RENDER.ALWAYS : SHOW_RENDER.NEVER;
    refill();
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
  return { jump, show };
};

/** What the slices' shader knows of labels: a texture of codes, filled once, and a palette with what is visible. */
function sliceLayers(nv, images, structures) {
  const { gl } = nv;
  const { program } = nv.customSliceShader;
  const [width, height, depth] = images[0].dimsRAS.slice(1, 4);
  const texels = new Uint8Array(4 * width * height * depth);
  images.forEach((image, channel) => {
    if (image) inRas(image).forEach((value, voxel) => (texels[4 * voxel + channel] = value));
  });
  const colours = new Uint8Array(4 * 256);
  for (const { code, color } of structures) colours.set([...color, 255], 4 * code);
  const uniform = (name) => gl.getUniformLocation(program, name);
  const plain = (target, unit) => {
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(target, gl.createTexture());
    for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(target, side, gl.NEAREST);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  };
  plain(gl.TEXTURE_3D, CODES_UNIT);
  gl.texStorage3D(gl.TEXTURE_3D, 1, gl.RGBA8UI, width, height, depth);
  gl.texSubImage3D(gl.TEXTURE_3D, 0, 0, 0, 0, width, height, depth, gl.RGBA_INTEGER, gl.UNSIGNED_BYTE, texels);
  plain(gl.TEXTURE_2D, PALETTE_UNIT);
  gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA8, 256, 1);
  gl.useProgram(program);
  gl.uniform1i(uniform("codes"), CODES_UNIT);
  gl.uniform1i(uniform("palette"), PALETTE_UNIT);
  const setVisible = (codes) => {
    for (let code = 0; code < 256; code++) colours[4 * code + 3] = codes.includes(code) ? 255 : 0;
    gl.activeTexture(gl.TEXTURE0 + PALETTE_UNIT);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, 256, 1, gl.RGBA, gl.UNSIGNED_BYTE, colours);
    gl.activeTexture(gl.TEXTURE0);
  };
  setVisible(structures.map(({ code }) => code));
  const setLayer = (name) => {
    gl.useProgram(program);
    gl.uniform1i(uniform("layer"), LAYERS.indexOf(name));
  };
  return { setVisible, setLayer };
}

/** Voxels of an image in the order of its texture. */
function inRas({ img, dimsRAS, img2RASstart: start, img2RASstep: step }) {
  const [width, height, depth] = dimsRAS.slice(1, 4);
  const ordered = new Uint8Array(width * height * depth);
  let place = 0;
  for (let z = 0; z < depth; z++) {
    for (let y = 0; y < height; y++) {
      const row = start[0] + start[1] + y * step[1] + start[2] + z * step[2];
      for (let x = 0; x < width; x++) ordered[place++] = img[row + x * step[0]];
    }
  }
  return ordered;
}

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

/** Labels' colours as NiiVue takes them. */
function colormap(structures) {
  const channel = (index) => [0, ...structures.map(({ color }) => color[index])];
  const opaque = [0, ...structures.map(() => 255)];
  return { R: channel(0), G: channel(1), B: channel(2), A: opaque, I: [0, ...structures.map(({ code }) => code)] };
}

function position(mm) {
  const letters = ["RL", "AP", "SI"];
  return letters.map((pair, axis) => `${pair[mm[axis] < 0 ? 1 : 0]} ${Math.abs(mm[axis]).toFixed(1)}`).join(", ") + " mm";
}

function rounded(value, step) {
  return value.toFixed(Math.min(6, Math.max(0, Math.ceil(-Math.log10(step)))));
}
