import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { insert } from "./lib/insert.js";
import { colourSockets, watchTheme } from "./lib/sockets.js";
import { after, watch } from "./lib/values.js";
import { scheduleView, sizesView } from "./lib/views.js";

// Packs are served under the name of their folder, which differs between installations.
const PACK = new URL(".", import.meta.url).pathname.split("/").at(-2);
const PIPELINE = "Wuerstchen.InsertPipeline";
const PIPELINE_LABEL = "Insert Würstchen pipeline";
const MARGIN = 6; // px, left free around a view

const VIEWS = {
  WuerstchenEmptyLatent: sizesView,
  WuerstchenStageCSampler: () => scheduleView("stage-c"),
  WuerstchenStageBSampler: () => scheduleView("stage-b"),
  WuerstchenV1StageCSampler: () => scheduleView("stage-c"),
};

/** By node, what brings its view up to date. */
const redraws = new WeakMap();

/** @param {import("./lib/views.js").View} view */
function addView(node, view) {
  const height = () => view.height + 2 * MARGIN;
  const widget = node.addDOMWidget(view.name, "wuerstchen-view", view.element, {
    serialize: false, // not into prompts
    hideInPanel: true, // the element cannot be there and on the node
    margin: MARGIN,
    getMinHeight: height,
    getMaxHeight: height,
  });
  widget.serialize = false; // nor into workflows
  const redraw = () => {
    view.show(node);
    takePlace(view.element, node);
  };
  watch(node, view.inputs, redraw);
  after(node, "onRemoved", () => (view.element.dataset.leftBy = node.id));
  redraws.set(node, redraw);
  redraw();
}

/** Undo makes nodes anew, but a node drawn in HTML goes on showing the old one's element. */
function takePlace(element, node) {
  delete element.dataset.leftBy;
  if (element.isConnected) return;
  document.querySelector(`.wuerstchen-view[data-left-by="${node.id}"]`)?.replaceWith(element);
}

async function insertPipeline(centre) {
  const answer = await api.fetchApi(`/workflow_templates/${PACK}/text_to_image.json`);
  if (answer.ok) {
    insert(app.canvas, await answer.json(), centre);
  } else {
    const summary = "The server has no Würstchen pipeline to insert.";
    app.extensionManager.toast.add({ severity: "error", summary, life: 5000 });
  }
}

function visibleCentre() {
  const [left, top, width, height] = app.canvas.ds.visible_area;
  return [left + width / 2, top + height / 2];
}

function addStyle() {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL("wuerstchen.css", import.meta.url).href;
  link.addEventListener("load", () => colourSockets(app.canvas));
  document.head.append(link);
}

app.registerExtension({
  name: "Wuerstchen",

  commands: [
    {
      id: PIPELINE,
      label: PIPELINE_LABEL,
      icon: "pi pi-sitemap",
      function: () => insertPipeline(visibleCentre()),
    },
  ],
  menuCommands: [{ path: ["Extensions"], commands: [PIPELINE] }],

  getCanvasMenuItems(canvas) {
    const place = [...canvas.graph_mouse];
    return [{ content: PIPELINE_LABEL, callback: () => insertPipeline(place) }];
  },

  setup() {
    addStyle();
    watchTheme(() => colourSockets(app.canvas));
    // Values that come through wires change on other nodes.
    api.addEventListener("graphChanged", () => {
      for (const node of app.canvas.graph?.nodes ?? []) redraws.get(node)?.();
    });
  },

  nodeCreated(node) {
    const view = VIEWS[node.comfyClass];
    if (view) addView(node, view());
  },
});
