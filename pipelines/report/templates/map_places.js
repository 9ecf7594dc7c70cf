
  // Where things are: pixels are counted from the scene's upper left corner.
  /** Longitude and latitude of a place in pixels; null off the earth. */
  const degreesAt = (column, row) => {
    if (!data.degrees) return null;
    const { columns, rows, longitudes, latitudes } = data.degrees;
    const node = (nodes, at) => {
      const step = nodes[1] - nodes[0];
      const first = Math.max(0, Math.min(nodes.length - 2, Math.floor(at / step)));
      return [first, at / step - first];
    };
    const [left, across] = node(columns, column);
    const [top, down] = node(rows, row);
    const between = (values) =>
      (values[top][left] * (1 - across) + values[top][left + 1] * across) * (1 - down) +
      (values[top + 1][left] * (1 - across) + values[top + 1][left + 1] * across) * down;
    return [between(longitudes), between(latitudes)];
  };
  /** The place in pixels of a longitude and a latitude, by Newton's method from the middle; null where there is none. */
  const pixelsAt = (longitude, latitude) => {
    let [column, row] = [data.width / 2, data.height / 2];
    for (let step = 0; step < 8; step += 1) {
      const [[x, y], [x1, y1], [x2, y2]] = [degreesAt(column, row), degreesAt(column + 1, row), degreesAt(column, row + 1)];
      const [a, b, c, d] = [x1 - x, x2 - x, y1 - y, y2 - y];
      const determinant = a * d - b * c;
      if (!determinant) return null;
      const [dx, dy] = [longitude - x, latitude - y];
      column += (d * dx - b * dy) / determinant;
      row += (a * dy - c * dx) / determinant;
    }
    return [column, row];
  };
  const wrapped = (longitude) => ((((longitude + 180) % 360) + 360) % 360) - 180;
  const coordinates = (column, row) => {
    const parts = [];
    const degrees = degreesAt(column, row);
    if (degrees) parts.push(`${degrees[1].toFixed(6)}, ${wrapped(degrees[0]).toFixed(6)}`);
    if (data.crs) {
      const [a, b, c, d, e, f] = data.transform;
      const digits = Math.abs(a) < 0.1 ? 6 : 1;
      parts.push(`${(a * column + b * row + c).toFixed(digits)}, ${(d * column + e * row + f).toFixed(digits)} (${data.crs})`);
    }
    return [...parts, `row ${Math.floor(row)}, column ${Math.floor(column)}`].join(" · ");
  };
