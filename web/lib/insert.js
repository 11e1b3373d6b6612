const GAP = 80; // px between what is there and what comes, titles included

/**
 * Adds a workflow's nodes and links to what is on the canvas, as one step of its history.
 *
 * @param canvas the frontend's LGraphCanvas
 * @param workflow as the frontend saves it
 * @param {[number, number]} centre where its middle should be; it moves down to a free place
 */
export function insert(canvas, workflow, centre) {
  const { graph } = canvas;
  const old = boundsOf(workflow.nodes);
  const box = {
    ...old,
    left: Math.round(centre[0] - old.width / 2),
    top: Math.round(centre[1] - old.height / 2),
  };
  box.top = freeTop(box, graph.nodes.map(frameOf));
  canvas.emitBeforeChange();
  try {
    const added = new Map();
    for (const saved of workflow.nodes) {
      const [x, y] = saved.pos;
      const node = addNode(graph, saved, [x - old.left + box.left, y - old.top + box.top]);
      if (node) added.set(saved.id, { node, saved });
    }
    for (const [, from, output, to, input] of workflow.links)
      connect(added.get(from), output, added.get(to), input);
    canvas.selectItems([...added.values()].map(({ node }) => node));
  } finally {
    canvas.emitAfterChange();
  }
  canvas.animateToBounds([box.left, box.top, box.width, box.height]);
}

function addNode(graph, saved, pos) {
  const node = LiteGraph.createNode(saved.type); // null for a node that is not installed
  if (!node) return null;
  const { id, inputs, outputs, ...state } = structuredClone(saved); // the graph has its own ids
  node.pos = pos;
  graph.add(node);
  node.configure({ ...state, pos });
  return node;
}

/** By name: a slot's saved number may be another one on a node that has grown since. */
function connect(source, output, target, input) {
  if (!source || !target) return;
  const outputName = source.saved.outputs[output].name;
  source.node.connect(outputName, target.node, target.saved.inputs[input].name);
}

/** The smallest box around saved nodes. */
function boundsOf(nodes) {
  const left = Math.min(...nodes.map(({ pos }) => pos[0]));
  const top = Math.min(...nodes.map(({ pos }) => pos[1]));
  const right = Math.max(...nodes.map(({ pos, size }) => pos[0] + size[0]));
  const bottom = Math.max(...nodes.map(({ pos, size }) => pos[1] + size[1]));
  return { left, top, width: right - left, height: bottom - top };
}

function frameOf({ pos: [left, top], size: [width, height] }) {
  return { left, top, width, height };
}

/** The box's top once it has been moved down past all that it would cover. */
export function freeTop(box, taken) {
  let { top } = box;
  for (const frame of taken.toSorted((a, b) => a.top - b.top)) {
    const beside = frame.left >= box.left + box.width || box.left >= frame.left + frame.width;
    const apart = frame.top >= top + box.height + GAP || top >= frame.top + frame.height + GAP;
    if (!beside && !apart) top = frame.top + frame.height + GAP;
  }
  return top;
}
