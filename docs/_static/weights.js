// Move the weight of a linear model beside one network; `weights` has the published numbers.
(() => {
  const place = document.querySelector(".weights");
  if (!place || typeof weights === "undefined" || !Object.keys(weights).length) return;
  const width = 640, height = 360, left = 60, right = 20, top = 20, bottom = 50;
  const blue = "#0072B2", orange = "#D55E00", grey = "#666";
  const percent = (value) => (100 * value).toFixed(1);
  const inWords = ([value, low, high]) => `${percent(value)} % [${percent(low)}, ${percent(high)}]`;

  const make = (tag, parent, attributes = {}, text = "") => {
    const svg = ["svg", "g", "line", "path", "circle", "rect", "text"].includes(tag);
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.textContent = text;
    parent.append(node);
    return node;
  };

  const form = make("p", place);
  const corpus = make("select", make("label", form, {}, "Corpus and network: "));
  for (const name of Object.keys(weights)) make("option", corpus, { value: name }, name);
  const weight = make("input", make("label", form, {}, " Weight of the linear model: "), { type: "range", min: 0 });
  const picture = make("svg", place, { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const words = make("p", place, { "aria-live": "polite" });
  make("em", make("p", place), {}, "Move the weight: one network mixed with a linear model (line and circle) beside "
    + "ensembles (squares, with their size). Further left fewer answers change, higher more are right; whiskers are 95 % intervals over "
    + "new retrainings and new queries.");

  const draw = () => {
    const { curve, others } = weights[corpus.value];
    weight.max = curve.length - 1;
    const chosen = curve[Number(weight.value)];
    const all = [...curve, ...others];
    const ends = (metric) => [
      Math.min(...all.map((point) => point[metric][1])), Math.max(...all.map((point) => point[metric][2]))];
    const most = ends("churn")[1] * 1.05, [least, best] = ends("accuracy"), room = (best - least) * 0.08;
    const x = (value) => left + (value / most) * (width - left - right);
    const y = (value) => height - bottom - ((value - least + room) / (best - least + 2 * room)) * (height - top - bottom);
    const whiskers = (point, colour) => {
      const [churn, low, high] = point.churn, [accuracy, lower, higher] = point.accuracy;
      make("line", picture, { x1: x(low), x2: x(high), y1: y(accuracy), y2: y(accuracy), stroke: colour });
      make("line", picture, { x1: x(churn), x2: x(churn), y1: y(lower), y2: y(higher), stroke: colour });
    };
    picture.replaceChildren();
    for (let tick = 0; tick <= most; tick += most > 0.07 ? 0.02 : 0.01)
      make("text", picture, { x: x(tick), y: height - bottom + 18, "text-anchor": "middle", fill: grey }, percent(tick));
    for (let tick = Math.ceil(least * 100) / 100; tick <= best; tick += 0.01)
      make("text", picture, { x: left - 8, y: y(tick) + 4, "text-anchor": "end", fill: grey }, percent(tick));
    make("path", picture, { d: `M${left},${top}V${height - bottom}H${width - right}`, stroke: grey, fill: "none" });
    make("text", picture, { x: (left + width) / 2, y: height - 8, "text-anchor": "middle", fill: "currentColor" },
      "answers that differ between two runs (churn, %)");
    make("text", picture, { x: 14, y: height / 2, transform: `rotate(-90 14 ${height / 2})`, "text-anchor": "middle",
      fill: "currentColor" }, "accuracy (%)");
    for (const point of others) {
      const [across, up] = [x(point.churn[0]), y(point.accuracy[0])];
      make("rect", picture, { x: across - 5, y: up - 5, width: 10, height: 10, fill: orange });
      make("text", picture, { x: across, y: up - 10, "text-anchor": "middle", fill: orange }, point.name.split(" ").at(-1));
    }
    const line = curve.map((point) => `${x(point.churn[0])},${y(point.accuracy[0])}`).join("L");
    make("path", picture, { d: `M${line}`, stroke: blue, fill: "none", "stroke-width": 2 });
    for (const [point, name, anchor] of [[curve[0], "network alone", "end"], [curve.at(-1), "linear model alone", "start"]])
      make("text", picture, { x: x(point.churn[0]) + (anchor === "start" ? 8 : 0), y: y(point.accuracy[0]) + 20,
        "text-anchor": anchor, fill: blue }, name);
    whiskers(chosen, blue);
    make("circle", picture, { cx: x(chosen.churn[0]), cy: y(chosen.accuracy[0]), r: 7, fill: blue });
    words.textContent = `${chosen.name}: churn ${inWords(chosen.churn)}, accuracy ${inWords(chosen.accuracy)}`;
    picture.setAttribute("aria-label", words.textContent);
  };

  corpus.addEventListener("change", draw);
  weight.addEventListener("input", draw);
  weight.max = weights[corpus.value].curve.length - 1;
  weight.value = 7;
  draw();
})();
