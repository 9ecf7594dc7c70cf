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
