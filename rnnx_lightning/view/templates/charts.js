// The charts are Vega-Lite's. The page can be used before its code is unpacked.
const library = unpacked("vega").then((code) => {
  const script = document.createElement("script");
  script.textContent = code;
  document.head.append(script);
  return window.vegaEmbed;
});

const latest = new Map(); // what each place shows, or will show

async function chart(place, spec) {
  latest.set(place, spec);
  if (!spec) {
    place.replaceChildren();
    return;
  }
  const embed = await library;
  if (latest.get(place) !== spec) return;
  const fresh = document.createElement("div");
  place.replaceChildren(fresh);
  const actions = {export: true, source: false, compiled: false, editor: false};
  await embed(fresh, {...spec, config: themed()}, {actions, renderer: "svg", mode: "vega-lite"});
}

function themed() {
  const [text, soft, line, background] = ["--text", "--soft", "--line", "--back"].map(style);
  const font = "system-ui, sans-serif";
  const axis = {labelColor: text, titleColor: text, domainColor: soft, tickColor: soft, gridColor: line};
  return {background, font, axis, view: {stroke: null}, title: {color: soft, anchor: "start", fontWeight: "normal"}};
}

function sampleBars(values) {
  const sides = {condition: {test: "datum.relevance < 0", value: style("--negative")}, value: style("--positive")};
  const frame = {condition: {test: "datum.majority", value: style("--frame")}, value: null};
  const labelAngle = values.length > 5 ? -40 : 0;
  const x = {field: "sample", type: "nominal", sort: null, axis: {title: null, labelAngle, labelLimit: 0}};
  const y = {field: "relevance", type: "quantitative", axis: {title: "relevance", tickCount: 3}};
  const number = {type: "text", dy: {expr: "datum.relevance < 0 ? 9 : -9"}, color: style("--text"), fontSize: 12};
  return {
    width: "container", height: 110, data: {values}, encoding: {x, y},
    layer: [
      {mark: {type: "bar", width: {band: 0.5}}, encoding: {color: sides, stroke: frame}},
      {mark: number, encoding: {text: {field: "said"}}},
    ],
  };
}

function layerMaps(layers, width) {
  const range = ["--negative", "--back", "--positive"].map(style);
  const maps = layers.map((layer) => {
    const integers = bytes(layer.values, Int8Array);
    const limit = clip(integers);
    const values = Array.from(integers, (integer, i) => {
      const [step, column] = [Math.floor(i / layer.units), i % layer.units];
      const relevance = layer.scale * integer;
      const said = `step ${step + 1}, column ${column + 1}: ${shown(relevance)}`;
      return {step: step + 1, column: column + 1, relevance, total: layer.sums[step], said};
    });
    const number = (field, title) => ({field, type: "quantitative", format: ".4~g", title});
    return {
      title: `${layer.name}: ${layer.steps} steps from top to bottom, ${layer.units} columns`,
      width: width - 70, height: 10 * layer.steps, data: {values}, mark: "rect",
      encoding: {
        x: {field: "column", type: "ordinal", axis: null},
        y: {field: "step", type: "ordinal", axis: {title: "step", labelOverlap: true, ticks: false}},
        color: {
          field: "relevance", type: "quantitative", legend: null,
          scale: {domain: [-limit * layer.scale, 0, limit * layer.scale], range, clamp: true, interpolate: "rgb"},
        },
        description: {field: "said"},
        tooltip: [
          {field: "step"}, {field: "column"}, number("relevance", "relevance of the column"),
          number("total", "relevance of the step"),
        ],
      },
    };
  });
  return {vconcat: maps, resolve: {scale: {color: "independent", x: "independent", y: "independent"}}};
}
