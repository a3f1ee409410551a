// Draws a document of Bokeh, keeps it like the widget's state, and gives it the colours of the page.

function getBokeh(model) {
  const version = model.get("version");
  const there = globalThis.Bokeh;
  if (there && there.version === version) return Promise.resolve(there);
  if (there && there[version]) return Promise.resolve(there[version]); // several live side by side
  const loading = (globalThis.__dispyBokeh ||= {});
  loading[version] ||= (async () => {
    const reference = model.get("loader");
    const carrier =
      typeof reference === "string"
        ? await model.widget_manager.get_model(reference.slice("IPY_MODEL_".length))
        : reference;
    (0, eval)(carrier.get("js")); // a classic script, which cannot be imported
    const loaded = globalThis.Bokeh;
    return loaded.version === version ? loaded : loaded[version];
  })();
  loading[version].catch(() => delete loading[version]);
  return loading[version];
}

const known = (value) => (value === null ? NaN : value); // JSON has no NaN

// what the state says of each source: what was sent as a whole, and the rows that follow
function columnsOf(model) {
  const wholes = model.get("data");
  const tails = model.get("tail");
  const result = {};
  for (const id of new Set([...Object.keys(wholes), ...Object.keys(tails)])) {
    const whole = wholes[id] || {};
    const tail = tails[id] || {};
    result[id] = {};
    for (const name of new Set([...Object.keys(whole), ...Object.keys(tail)])) {
      result[id][name] = [...(whole[name] || []), ...(tail[name] || [])].map(known);
    }
  }
  for (const [id, columns] of Object.entries(model.get("live"))) {
    result[id] = Object.fromEntries(
      Object.entries(columns).map(([name, values]) => [name, values.map(known)]),
    );
  }
  return result;
}

function setColumns(source, columns) {
  const rows = Object.values(columns)[0]?.length ?? 0;
  const data = { ...columns };
  for (const name of source.data instanceof Map ? source.data.keys() : Object.keys(source.data)) {
    data[name] ??= new Array(rows).fill(NaN); // a line that nothing is known of
  }
  source.data = data;
}

// colours of the page

function computed(element, color) {
  const probe = document.createElement("span");
  probe.style.color = color;
  probe.style.display = "none";
  element.appendChild(probe);
  const result = getComputedStyle(probe).color;
  probe.remove();
  return result;
}

function luminance(color) {
  const parts = (color.match(/[\d.]+/g) || []).map(Number);
  if (parts.length < 3 || (parts.length > 3 && parts[3] === 0)) return null;
  return (0.299 * parts[0] + 0.587 * parts[1] + 0.114 * parts[2]) / 255;
}

// what is seen behind an element
function groundOf(element) {
  for (let at = element; at; at = at.parentElement) {
    const color = getComputedStyle(at).backgroundColor;
    if (luminance(color) !== null) return color;
  }
  return "rgb(255, 255, 255)";
}

function pageColors(element) {
  const ground = groundOf(element);
  const light = document.body.dataset.jpThemeLight; // JupyterLab and Notebook
  const dark = light ? light === "false" : luminance(ground) < 0.5;
  const [text, line] = dark ? ["#e0e0e0", "#444444"] : ["#212121", "#dddddd"];
  const pick = (names, other) =>
    computed(element, names.reduceRight((rest, name) => `var(${name}, ${rest})`, other));
  return {
    ground,
    text: pick(["--jp-ui-font-color1", "--vscode-editor-foreground"], text),
    line: pick(["--jp-border-color2", "--vscode-editorIndentGuide-background"], line),
  };
}

function paint(models, colors) {
  for (const each of models) {
    if (each.type === "Plot") {
      // the border stays clear: half a pixel of its old color would remain at the edges; the inner
      // part must be filled, or the outline is drawn around something else
      each.setv({
        background_fill_color: colors.ground,
        border_fill_color: null,
        outline_line_color: colors.line,
      });
    } else if (each.type === "Title") {
      each.text_color = colors.text;
    } else if (each.type.endsWith("Axis")) {
      each.setv({
        major_label_text_color: colors.text,
        axis_label_text_color: colors.text,
        axis_line_color: colors.line,
        major_tick_line_color: colors.line,
        minor_tick_line_color: null,
      });
    } else if (each.type === "Grid") {
      each.setv({ grid_line_color: colors.line, grid_line_alpha: 0.6 });
    }
  }
}

function whenThemeChanges(act) {
  const observer = new MutationObserver(act);
  const attributes = ["data-jp-theme-name", "data-jp-theme-light", "data-vscode-theme-id", "class", "style"];
  for (const element of [document.body, document.documentElement]) {
    observer.observe(element, { attributes: true, attributeFilter: attributes });
  }
  return () => observer.disconnect();
}

// the legend: buttons that hide and show what they name

const SVG = "http://www.w3.org/2000/svg";
const HATCHES = { x: "M1 2 L9 10 M9 2 L1 10 M11 2 L19 10 M19 2 L11 10", "/": "M1 10 L9 2 M9 10 L17 2", ".": "M4 6h2 M9 6h2 M14 6h2" };

function shape(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function sample(item) {
  const svg = shape("svg", { width: 20, height: 12, "aria-hidden": "true" });
  if (item.hatch === undefined) {
    const dash = item.dash.join(" ");
    svg.append(shape("line", { x1: 0, y1: 6, x2: 20, y2: 6, stroke: item.color, "stroke-width": 2.5, "stroke-dasharray": dash }));
  } else {
    svg.append(shape("rect", { x: 0, y: 2, width: 20, height: 8, fill: item.color }));
    svg.append(shape("path", { d: HATCHES[item.hatch] || "", stroke: "#000", "stroke-opacity": 0.6 }));
  }
  return svg;
}

function legendOf(groups, hidden, toggle) {
  return groups.map((group) => {
    const row = document.createElement("div");
    row.setAttribute("role", "group");
    row.setAttribute("aria-label", group.title);
    row.style.cssText = "display:flex;flex-wrap:wrap;gap:0 2px;align-items:center;min-height:22px";
    for (const item of group.items) row.append(legendItem(item, hidden, toggle));
    return row;
  });
}

function legendItem(item, hidden, toggle) {
  const acts = item.ids.length > 0;
  const element = document.createElement(acts ? "button" : "span");
  element.style.cssText =
    "display:inline-flex;align-items:center;gap:5px;padding:1px 6px;border:0;background:none;" +
    "color:inherit;font:inherit;border-radius:3px";
  element.append(sample(item), document.createTextNode(item.name));
  if (acts) {
    const isHidden = hidden.has(item.key);
    element.type = "button";
    element.title = isHidden ? "show" : "hide";
    element.setAttribute("aria-pressed", String(!isHidden));
    element.dataset.key = item.key;
    element.style.cursor = "pointer";
    element.style.opacity = isHidden ? 0.45 : 1;
    element.style.textDecoration = isHidden ? "line-through" : "none";
    element.addEventListener("click", () => toggle(item.key));
  }
  return element;
}

// the view

function skeleton(el) {
  const make = (style) => {
    const element = document.createElement("div");
    element.style.cssText = style;
    return element;
  };
  const parts = {
    box: make("width:100%;min-width:0;font-family:var(--jp-ui-font-family,sans-serif);font-size:12px"),
    note: make("padding:2px 6px;border-left:3px solid #D55E00;margin:2px 0;white-space:pre-wrap"),
    chart: make("width:100%;min-width:0"),
    legend: make("padding:0 4px"),
  };
  parts.box.className = "dispy-chart";
  parts.note.setAttribute("role", "status");
  parts.chart.setAttribute("role", "img");
  parts.chart.tabIndex = 0;
  parts.box.append(parts.note, parts.chart, parts.legend);
  el.append(parts.box);
  return parts;
}

async function embed(model, host) {
  const bokeh = await getBokeh(model);
  const { root, json } = model.get("bundle");
  const views = await bokeh.embed.embed_item({ doc: json, root_id: root }, host);
  const [view] = [...views];
  return { bokeh, view, doc: view.model.document };
}

async function render({ model, el }) {
  const parts = skeleton(el);
  const say = () => {
    parts.chart.setAttribute("aria-label", model.get("words"));
    parts.note.textContent = model.get("note");
    parts.note.style.display = model.get("note") ? "block" : "none";
  };
  say();
  revive(model);
  let chart;
  try {
    chart = await embed(model, parts.chart);
  } catch (error) {
    const tell = () => (parts.chart.textContent = `${model.get("words")}\n(no chart can be drawn here: ${error})`);
    parts.chart.style.whiteSpace = "pre-wrap";
    model.on("change:words", tell);
    tell();
    return () => model.off("change:words", tell);
  }
  return live(model, parts, chart, say);
}

function live(model, parts, { bokeh, view, doc }, say) {
  const hidden = new Set(); // keys of what this reader does not want to see
  let legend = "";

  const show = () => {
    const items = model.get("legend").flatMap((group) => group.items);
    for (const item of items) {
      for (const id of item.ids) {
        const each = doc.get_model_by_id(id);
        if (each) each.visible = !hidden.has(item.key);
      }
    }
  };
  const toggle = (key) => {
    if (!hidden.delete(key)) hidden.add(key);
    legend = "";
    apply();
  };
  const drawLegend = () => {
    const wanted = JSON.stringify(model.get("legend"));
    if (wanted === legend) return;
    const focused = parts.legend.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    legend = wanted;
    parts.legend.replaceChildren(...legendOf(model.get("legend"), hidden, toggle));
    for (const button of parts.legend.querySelectorAll("button")) {
      if (button.dataset.key === focused) button.focus();
    }
    show();
  };
  const apply = () => {
    for (const [id, attributes] of Object.entries(model.get("settings"))) {
      doc.get_model_by_id(id)?.setv(attributes);
    }
    for (const [id, columns] of Object.entries(columnsOf(model))) {
      const source = doc.get_model_by_id(id);
      if (source) setColumns(source, columns);
    }
    say();
    drawLegend();
    color();
  };
  let last = "";
  const color = () => {
    const colors = pageColors(parts.box);
    if (JSON.stringify(colors) === last) return;
    last = JSON.stringify(colors);
    parts.box.style.color = colors.text;
    paint(doc._all_models.values(), colors);
  };

  const stop = whenThemeChanges(() => requestAnimationFrame(color));
  model.on("change", apply); // once, whatever has changed
  apply();
  return () => {
    stop();
    model.off("change", apply);
    view.remove();
    const index = bokeh.documents.indexOf(doc);
    if (index >= 0) bokeh.documents.splice(index, 1);
  };
}

export default { render };
