/**
 * The value that an input will have: its widget's, or that of a primitive node wired to it.
 *
 * @returns {unknown} undefined where a wire brings what only a run can tell
 */
export function valueOf(node, name) {
  const slot = node.inputs?.findIndex((input) => input.name === name) ?? -1;
  if (slot < 0 || !node.isInputConnected(slot)) return widgetOf(node, name)?.value;
  const source = node.getInputNode(slot);
  return source?.type?.startsWith("Primitive") ? source.widgets?.[0]?.value : undefined;
}

/** Calls `changed` whenever one of these inputs' widgets, or a wire, may have changed. */
export function watch(node, inputs, changed) {
  // A workflow sets up its nodes one after the other; look when all are there.
  for (const event of ["onConfigure", "onConnectionsChange"])
    after(node, event, () => queueMicrotask(changed));
  for (const name of inputs) {
    const widget = widgetOf(node, name);
    if (widget) after(widget, "callback", changed);
  }
}

/** Adds to a callback of the canvas without taking it from others. */
export function after(owner, callback, more) {
  const before = owner[callback];
  owner[callback] = function (...details) {
    const result = before?.apply(this, details);
    more();
    return result;
  };
}

function widgetOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name);
}
