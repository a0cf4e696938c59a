// The few icons of the page, 24 x 24, drawn in the colour of the text around them.

const PATHS = {
  menu: "M4 7h16M4 12h16M4 17h16",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  image: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15 9.5v.01",
  close: "M6 6l12 12M18 6L6 18",
  previous: "M14 6l-6 6 6 6",
  next: "M10 6l6 6-6 6",
  down: "M12 5v14M6 13l6 6 6-6",
  colours: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
};
const SVG = "http://www.w3.org/2000/svg";

/** Hidden from screen readers: the button around it has the name. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", class: `icon icon-${name}`, "aria-hidden": "true" })) {
    svg.setAttribute(key, value);
  }
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}
