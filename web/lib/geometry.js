// wuerstchen_core/geometry.py, for the line on the size node. A test holds the two together.

export const SMALLEST = 64; // px, of a request's side
export const LARGEST = 4096;
const CANVAS_STEP = 128; // px
const STAGE_C_CELLS = 3; // of one canvas step
const STAGE_B_CELLS = 32;

/**
 * What one side of the picture becomes on its way.
 *
 * @param {number} side of the picture in pixels
 * @returns {{canvas: number, stageC: number, stageB: number} | null} pixels and cells; null for a
 *   side that the nodes refuse
 */
export function sizesOf(side) {
  if (!Number.isInteger(side) || side < SMALLEST || side > LARGEST) return null;
  const steps = Math.ceil(side / CANVAS_STEP);
  return {
    canvas: steps * CANVAS_STEP,
    stageC: steps * STAGE_C_CELLS,
    stageB: steps * STAGE_B_CELLS,
  };
}
