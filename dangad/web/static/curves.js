// Draws the large curves of the overview with uPlot, from the samples that the server keeps.
// Without JavaScript the section stays hidden, and the gauges show small curves.
(() => {
  "use strict";
  const LENGTH = 900;
  const section = document.querySelector("#curves");
  if (!section || !window.uPlot) return;

  let history = null;
  let plots = [];

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const inSeconds = (value) =>
    value == null ? "–" : value === 0 ? "0"
      : value < 0.9995 ? `${(value * 1000).toFixed(value < 0.01 ? 1 : 0)} ms`
        : value < 60 ? `${value.toFixed(1)} s`
          : value < 3600 ? `${(value / 60).toFixed(1)} min` : `${(value / 3600).toFixed(1)} h`;
  const asNumber = (value) => (value == null ? "–" : value.toLocaleString("en"));

  // The time of a tick; with seconds where there are many ticks a minute.
  const clock = (ticks) => {
    const seconds = ticks[ticks.length - 1] - ticks[0] < 240 ? { second: "2-digit" } : {};
    return (tick) => new Date(tick * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", ...seconds });
  };

  const columns = (figure) =>
    [history.time, ...figure.dataset.series.split(" ").map((name) => history[name])];

  function draw(figure) {
    const names = figure.dataset.names.split(", ");
    const bad = figure.dataset.series.includes("failed");
    const colors = [color("--accent"), color(bad ? "--bad" : "--work")];
    const show = figure.dataset.unit === "seconds" ? inSeconds : asNumber;
    const axis = { stroke: color("--soft"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
    return new uPlot({
      width: figure.clientWidth - 30,
      height: 150,
      cursor: { y: false },
      scales: { x: { range: (plot, first, last) => [Math.max(Math.min(first, last - 60), last - LENGTH), last] }, y: { range: (plot, least, most) => [0, most > 0 ? most * 1.1 : 1] } },
      axes: [
        { ...axis, size: 28, space: 80, values: (plot, ticks) => ticks.map(clock(ticks)) },
        { ...axis, size: 64, values: (plot, ticks) => ticks.map(show) },
      ],
      series: [
        { label: "at", value: (plot, at) => (at == null ? "–" : new Date(at * 1000).toLocaleTimeString("en-GB")) },
        ...names.map((label, place) => ({
          label,
          stroke: colors[place],
          fill: place ? undefined : `${colors[place]}22`,
          width: 1.5,
          points: { show: false },
          value: (plot, value) => show(value),
        })),
      ],
    }, columns(figure), figure);
  }

  function drawAll() {
    for (const plot of plots) plot.destroy();
    section.hidden = false;
    plots = [...section.querySelectorAll("figure")].map(draw);
  }

  async function load() {
    const answer = await fetch(section.dataset.history);
    if (!answer.ok) return;
    history = await answer.json();
    drawAll();
  }

  function add(sample) {
    const last = history.time[history.time.length - 1];
    if (sample.time === null || sample.time === last) return;
    if (sample.time - last > 3) return void load(); // the page was in the background
    for (const [name, values] of Object.entries(history)) {
      values.push(sample[name]);
      if (values.length > LENGTH) values.shift();
    }
    section.querySelectorAll("figure").forEach((figure, place) => plots[place].setData(columns(figure)));
  }

  document.addEventListener("sample", (event) => history && add(JSON.parse(event.detail.data)));
  window.addEventListener("resize", () => {
    if (!history) return;
    section.querySelectorAll("figure").forEach((figure, place) => plots[place].setSize({ width: figure.clientWidth - 30, height: 150 }));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => history && drawAll());
  load();
})();
