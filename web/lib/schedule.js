// wuerstchen_core/schedule.py, for the plot on the samplers. A test holds the two together.

/** @type {Record<string, number>} the share of the steps that go from time 1 to 2/3 */
const SHARES = { default: 19 / 29, notebook: 20 / 30 };
const KNEE = 2 / 3;

/**
 * The times that a sampler walks down: `steps` + 1 descending numbers that end at 0.
 *
 * @param {string} scheduler
 * @param {number} steps calls of the model
 * @param {number} denoise how much of the way to walk: the list is the end of a longer one
 * @returns {number[] | null} empty for denoise 0; null for settings that the nodes refuse
 */
export function times(scheduler, steps, denoise) {
  if (!Number.isInteger(steps) || steps < 1 || !(denoise >= 0 && denoise <= 1)) return null;
  if (scheduler !== "uniform" && !Object.hasOwn(SHARES, scheduler)) return null;
  if (denoise === 0) return [];
  const total = Math.max(steps, Math.trunc(steps / denoise));
  const knee = kneeStep(scheduler, total);
  return Array.from({ length: steps + 1 }, (_, i) => timeAfter(total - steps + i, total, knee));
}

/** After how many of all steps the time is 2/3; 0 where they lie evenly. */
function kneeStep(scheduler, total) {
  if (scheduler === "uniform") return 0;
  return Math.min(Math.max(Math.round(total * SHARES[scheduler]), 1), total - 1);
}

function timeAfter(step, total, knee) {
  if (knee === 0) return (total - step) / total;
  if (step <= knee) return 1 - ((1 - KNEE) * step) / knee;
  return (KNEE * (total - step)) / (total - knee);
}
