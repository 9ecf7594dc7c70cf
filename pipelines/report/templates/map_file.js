
  // The map at full resolution, read from its GeoTIFF tile by tile as this program writes it: one band of 8 bits, tiled,
  // compressed by DEFLATE, with overviews. The browser itself inflates; nothing else is needed.
  const TILES = 96; // that are kept
  const inflated = async (bytes) => {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };
  const openMapFile = async (file) => {
    const part = async (start, length) => new DataView(await file.slice(start, start + length).arrayBuffer());
    const head = await part(0, 16);
    const version = head.byteLength < 8 || head.getUint16(0) !== 0x4949 ? 0 : head.getUint16(2, true);
    if (version !== 42 && version !== 43) throw new Error("is no GeoTIFF that can be read here");
    const big = version === 43;
    const whole = (view, at) => (big ? Number(view.getBigUint64(at, true)) : view.getUint32(at, true));
    const sizes = { 1: 1, 3: 2, 4: 4, 16: 8 };
    const numberAt = (view, type, at) =>
      type === 1 ? view.getUint8(at) : type === 3 ? view.getUint16(at, true) : type === 4 ? view.getUint32(at, true) : Number(view.getBigUint64(at, true));
    const readDirectory = async (start) => {
      const count = big ? whole(await part(start, 8), 0) : (await part(start, 2)).getUint16(0, true);
      if (count > 1000) throw new Error("is damaged");
      const [first, width, inline] = big ? [8, 20, 8] : [2, 12, 4];
      const entries = await part(start + first, count * width + inline);
      const tags = {};
      for (let entry = 0; entry < count; entry += 1) {
        const at = entry * width;
        const [tag, type] = [entries.getUint16(at, true), entries.getUint16(at + 2, true)];
        if (![254, 256, 257, 258, 259, 277, 317, 322, 323, 324, 325].includes(tag) || !sizes[type]) continue;
        const amount = whole(entries, at + 4);
        const length = amount * sizes[type];
        if (length > 1 << 26) throw new Error("is damaged");
        const here = at + (big ? 12 : 8);
        const view = length <= inline ? entries : await part(whole(entries, here), length);
        const from = length <= inline ? here : 0;
        tags[tag] = Array.from({ length: amount }, (_, number) => numberAt(view, type, from + number * sizes[type]));
      }
      return { tags, next: whole(entries, count * width) };
    };
    const levels = [];
    for (let next = whole(head, big ? 8 : 4), directories = 0; next && directories < 64; directories += 1) {
      const directory = await readDirectory(next);
      next = directory.next;
      const { 254: [kind] = [0], 256: [width], 257: [height], 258: [bits], 259: [compression], 277: [bands] = [1], 317: [predictor] = [1] } = directory.tags;
      const { 322: [across] = [0], 323: [down] = [0], 324: offsets, 325: lengths } = directory.tags;
      if (kind & 4) continue; // a mask
      if (bits !== 8 || bands !== 1 || !across || ![8, 32946].includes(compression) || predictor > 2) {
        throw new Error("is no map of classes as geovision writes it");
      }
      levels.push({ width, height, across, down, offsets, lengths, predictor, columns: Math.ceil(width / across), tiles: new Map() });
    }
    if (!levels.length || levels[0].width !== data.width || levels[0].height !== data.height) {
      throw new Error(`is a map of another size than ${data.width} × ${data.height}`);
    }
    return {
      levels,
      async tile(level, column, row) {
        const at = row * level.columns + column;
        if (!level.lengths[at]) return new Uint8Array(level.across * level.down).fill(255); // none of it is stored
        const view = await part(level.offsets[at], level.lengths[at]);
        const numbers = await inflated(view.buffer);
        if (numbers.length !== level.across * level.down) throw new Error("is damaged");
        if (level.predictor === 2) {
          for (let start = 0; start < numbers.length; start += level.across) {
            for (let place = start + 1; place < start + level.across; place += 1) numbers[place] += numbers[place - 1];
          }
        }
        return numbers;
      },
    };
  };
