{% extends "review.js" %}
{% block extension %}
{

  // The map over its scene, points to answer, and polygons that correct it.
  const data = JSON.parse(byId("map-data").textContent);
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
{% include "map_places.js" %}
{% include "map_file.js" %}
  const stage = {
    kinds: ["scene", "classes", "confidence"],
    paints: (kind) => kind === "classes" && mapFile && paintTiles(),
    paintOver: (context_) => paintFixes(context_),
    tell: (column, row) => {
      if (pointing()) return [];
      const confidence = levelOf.get(pixelOf("confidence", column, row));
      const name = shownName(nameOf.get(classAt(column, row))) ?? "no data";
      return [name, ...(confidence ? [`confidence ${confidence.toFixed(2)}`] : [])];
    },
    hides: () => pointing(),
  };
{% include "map_stage.js" %}
{% include "map_view.js" %}
{% include "map_fixes.js" %}
{% include "map_points.js" %}
  extension.show = () => {
    showFixes();
    showPoints();
  };
  extension.view = (key, down) => answerByKey(key, down) || viewMap(key, down);
}
{% endblock %}
