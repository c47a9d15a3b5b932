// Draws each chart from its kind and the data beside it. Texts are values only, and are shown as text.
const kinds = JSON.parse(document.getElementById("kinds").textContent);
const tip = document.getElementById("tip");
const drawn = [];

function rows(columns, names) {
  const keys = Object.keys(columns);
  return Array.from(columns[keys[0]], (_, place) =>
    Object.fromEntries(keys.map((key) => [key, names[key] ? names[key][columns[key][place]] : columns[key][place]])),
  );
}

function showTip(_, event, __, text) {
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const right = Math.min(event.clientX + 14, document.documentElement.clientWidth - tip.offsetWidth - 8);
  const above = event.clientY + 18 + tip.offsetHeight > innerHeight;
  tip.style.left = `${Math.max(8, right)}px`;
  tip.style.top = `${above ? event.clientY - tip.offsetHeight - 12 : event.clientY + 18}px`;
}

async function draw(place) {
  if (place.dataset.drawn || !place.clientWidth) return; // closed details have no width yet
  place.dataset.drawn = "yes";
  const { data, names, values } = JSON.parse(place.nextElementSibling.textContent);
  const kind = kinds[place.dataset.kind];
  const specification = {
    ...kind,
    data: kind.data.map((one) => (data[one.name] ? { ...one, values: rows(data[one.name], names) } : one)),
    signals: kind.signals.map((one) => (one.name in values ? { ...one, value: values[one.name] } : one)),
  };
  // ast: without it, Vega makes functions of its expressions, which the page's policy forbids.
  const options = { mode: "vega", ast: true, renderer: "svg", actions: false, defaultStyle: false, tooltip: showTip, logLevel: 1 };
  const { view } = await window.vegaEmbed(place, specification, options);
  drawn.push([place, view]);
}

function resize(widthOf) {
  for (const [place, view] of drawn) view.width(widthOf(place)).run();
}

// A4 without its margins; two small charts stand side by side.
addEventListener("beforeprint", () => resize((place) => (place.closest(".multiples") ? 310 : 660)));
addEventListener("afterprint", () => resize((place) => place.clientWidth));
for (const details of document.querySelectorAll("details")) {
  details.addEventListener("toggle", () => details.querySelectorAll(".chart").forEach(draw));
}
for (const place of document.querySelectorAll(".chart")) await draw(place);
document.documentElement.dataset.ready = "yes";
