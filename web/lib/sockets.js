const SOCKETS = [
  "WUERSTCHEN_STAGE_C",
  "WUERSTCHEN_STAGE_B",
  "WUERSTCHEN_STAGE_A",
  "WUERSTCHEN_TEXT_ENCODER",
  "WUERSTCHEN_IMAGE_ENCODER",
  "WUERSTCHEN_V1_STAGE_C",
  "WUERSTCHEN_V1_STAGE_B",
  "WUERSTCHEN_V1_IMAGE_ENCODER",
];

/**
 * Gives the canvas the colours that the style sheet has for our sockets and their links. Nodes
 * drawn in HTML read the style sheet themselves.
 */
export function colourSockets(canvas) {
  const styles = getComputedStyle(document.documentElement);
  for (const socket of SOCKETS) {
    const colour = styles.getPropertyValue(`--color-datatype-${socket}`).trim();
    if (!colour) continue; // not loaded yet
    canvas.default_connection_color_byType[socket] = colour;
    canvas.constructor.link_type_colors[socket] = colour;
  }
  canvas.setDirty(true, true);
}

/** Calls `changed` after the canvas has taken on a theme, which takes our colours off it. */
export function watchTheme(changed) {
  // The page's root carries the theme; nothing else tells of it.
  new MutationObserver(changed).observe(document.documentElement, { attributes: true });
}
