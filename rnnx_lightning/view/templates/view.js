const data = JSON.parse(await unpacked("data"));
const {width, height, samples} = data;
const state = {sequence: 0, x: Math.floor(width / 2), y: Math.floor(height / 2)};
const panels = [];

const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

function clip(integers) {
  // As the pictures of `rnnx explain`: at the 99.5th percentile of the magnitudes.
  const sorted = Array.from(integers, Math.abs).sort((a, b) => a - b);
  return sorted[Math.floor(0.995 * (sorted.length - 1))] || sorted[sorted.length - 1] || 1;
}

function colours(integers) {
  const limit = clip(integers);
  const [zero, up, down] = ["--back", "--positive", "--negative"].map((name) => rgb(style(name)));
  return Array.from(integers, (value) => {
    const strength = Math.min(Math.abs(value) / limit, 1);
    return zero.map((z, i) => z + strength * ((value < 0 ? down : up)[i] - z));
  });
}

function paint(canvas, columns, rows, pixels) {
  canvas.width = columns;
  canvas.height = rows;
  canvas.style.aspectRatio = `${columns} / ${rows}`;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  pixels.forEach((colour, i) => image.data.set([...colour.map(Math.round), 255], 4 * i));
  context.putImageData(image, 0, 0);
}

function enlarged(canvas, columns, rows, pixels, factor) {
  // Painted small, then drawn large, so that frames and the point are thinner than a pixel of the picture.
  const small = document.createElement("canvas");
  paint(small, columns, rows, pixels);
  canvas.width = columns * factor;
  canvas.height = rows * factor;
  canvas.style.aspectRatio = `${columns} / ${rows}`;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  return context;
}

function frames(context, factor, colour) {
  const part = (width / samples) * factor;
  context.strokeStyle = colour;
  context.lineWidth = 3;
  data.sequences[state.sequence].majority.forEach((is, i) => {
    if (is) context.strokeRect(i * part + 1.5, 1.5, part - 3, height * factor - 3);
  });
}

const row = (panel) => data.results[panel.network][state.sequence];
const explained = (panel) => row(panel).methods[data.methods[panel.method]];

function drawMap(panel) {
  const context = enlarged(panel.map, width, height, panel.colours, 8);
  frames(context, 8, style("--frame"));
  context.strokeStyle = "#e69f00";
  context.lineWidth = 2;
  context.strokeRect(state.x * 8, state.y * 8, 8, 8);
}

function read(panel) {
  const {scale, per_sample: perSample} = explained(panel);
  const at = (x, y) => scale * panel.integers[y * width + x];
  const sample = Math.floor(state.x / (width / samples));
  const columns = width / data.steps[panel.network];
  const step = Math.floor(state.x / columns);
  let sum = 0;
  for (let x = step * columns; x < (step + 1) * columns; x++) for (let y = 0; y < height; y++) sum += at(x, y);
  const parts = [
    ["pixel", `pixel (${state.y}, ${state.x})`, at(state.x, state.y)],
    ["sample", `sample ${sample + 1}`, perSample[sample]],
    ["step", `time step ${step + 1}`, sum],
  ];
  panel.read.replaceChildren(...parts.flatMap(([kind, name, value]) => {
    const number = document.createElement("b");
    number.dataset.kind = kind;
    number.textContent = shown(value);
    return [`${name}: `, number, "   "];
  }));
}

function bars(panel) {
  const {per_sample: perSample, cosine} = explained(panel);
  const {majority} = data.sequences[state.sequence];
  panel.cosine.textContent = `cosine ${shown(cosine)}`;
  chart(panel.bars, sampleBars(perSample.map((relevance, i) => (
    {sample: `sample ${i + 1}${majority[i] ? ", majority" : ""}`, relevance, said: shown(relevance), majority: majority[i]}
  ))));
}

function layers(panel) {
  const found = explained(panel).layers;
  panel.none.hidden = found.length > 0;
  chart(panel.layers, found.length && layerMaps(found, panel.layers.clientWidth));
}

function refresh(panel) {
  panel.integers = bytes(explained(panel).values, Int8Array);
  panel.colours = colours(panel.integers);
  panel.networkChoice.value = panel.network;
  panel.methodChoice.value = panel.method;
  const {prediction, logits} = row(panel);
  const {label} = data.sequences[state.sequence];
  panel.guess.textContent = `predicts ${data.classes[prediction]} (logit of ${data.classes[label]}: ${shown(logits[label])})`;
  panel.guess.className = prediction === label ? "guess" : "guess wrong";
  const grey = bytes(data.sequences[state.sequence].image, Uint8Array);
  frames(enlarged(panel.input, width, height, Array.from(grey, (v) => [255 - v, 255 - v, 255 - v]), 8), 8, "#222222");
  drawMap(panel);
  read(panel);
  bars(panel);
  layers(panel);
}

function remember() {
  const [a, b] = panels;
  history.replaceState(null, "", `#s=${state.sequence}&x=${state.x}&y=${state.y}` +
    `&a=${a.network}.${a.method}&b=${b.network}.${b.method}`);
}

function all() {
  const {label, number} = data.sequences[state.sequence];
  document.getElementById("sequence").value = state.sequence;
  document.getElementById("truth").textContent = `explained: ${data.classes[label]}, the true class of no. ${number}`;
  panels.forEach(refresh);
  remember();
}

function point(x, y) {
  state.x = Math.max(0, Math.min(width - 1, x));
  state.y = Math.max(0, Math.min(height - 1, y));
  panels.forEach((panel) => { drawMap(panel); read(panel); });
  remember();
}

function fill(select, names, changed) {
  names.forEach((name, i) => select.add(new Option(name, i)));
  select.addEventListener("change", () => changed(Number(select.value)));
}

function addPanel(network, method) {
  const section = document.getElementById("panel").content.cloneNode(true).firstElementChild;
  const part = (name) => section.querySelector(`.${name}`);
  const panel = {network, method, networkChoice: part("network"), methodChoice: part("method")};
  for (const name of ["input", "map", "read", "bars", "cosine", "layers", "none", "guess"]) panel[name] = part(name);
  fill(panel.networkChoice, data.networks, (i) => { panel.network = i; all(); });
  fill(panel.methodChoice, data.methods, (i) => { panel.method = i; all(); });
  panel.map.addEventListener("pointermove", (event) => {
    const box = panel.map.getBoundingClientRect();
    point(Math.floor(((event.clientX - box.left) / box.width) * width),
      Math.floor(((event.clientY - box.top) / box.height) * height));
  });
  document.getElementById("panels").append(section);
  panels.push(panel);
}

const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

function theme(name) {
  document.documentElement.dataset.theme = name || (document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  if (panels.length) all();
}

function next(panel, what, count) {
  panel[what] = (panel[what] + 1) % count;
  all();
}

document.addEventListener("keydown", (event) => {
  if (event.target.tagName === "SELECT" || event.ctrlKey || event.metaKey || event.altKey) return;
  const count = data.sequences.length;
  if (ARROWS[event.key]) point(state.x + ARROWS[event.key][0], state.y + ARROWS[event.key][1]);
  else if (event.key === "n" || event.key === "p") {
    state.sequence = (state.sequence + (event.key === "n" ? 1 : count - 1)) % count;
    all();
  } else if (event.key === "1" || event.key === "2") next(panels[event.key - 1], "method", data.methods.length);
  else if (event.key === "3" || event.key === "4") next(panels[event.key - 3], "network", data.networks.length);
  else if (event.key === "t") theme();
  else return;
  event.preventDefault();
});

function start() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const whole = (text, limit, otherwise) => {
    const value = Number.parseInt(text, 10);
    return value >= 0 && value < limit ? value : otherwise;
  };
  state.sequence = whole(asked.get("s"), data.sequences.length, 0);
  state.x = whole(asked.get("x"), width, state.x);
  state.y = whole(asked.get("y"), height, state.y);
  const last = [data.networks.length - 1, data.methods.length - 1];
  const other = data.networks.length > 1 ? [last[0], last[1]] : [0, Math.max(last[1] - 1, 0)];
  for (const [key, [network, method]] of [["a", [0, last[1]]], ["b", other]]) {
    const [n, m] = (asked.get(key) || "").split(".");
    addPanel(whole(n, data.networks.length, network), whole(m, data.methods.length, method));
  }
  fill(document.getElementById("sequence"), data.sequences.map(({number, label}) => `${number}: ${data.classes[label]}`),
    (i) => { state.sequence = i; all(); });
  document.getElementById("theme").addEventListener("click", () => theme());
  addEventListener("resize", () => panels.forEach(layers));
  theme(asked.get("theme") || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
}

start();
