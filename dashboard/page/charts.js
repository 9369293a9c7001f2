// Charts by Plotly, in the colours of the page. Names from a run are shown as text, whatever is in them.

import { tone } from "./dom.js";

export const RUNS = 8; // colours that style.css has
export const STROKES = ["solid", "dot", "dash", "dashdot"];
const BASELINES = { planner: "dot", forager: "dashdot", frozen: "longdash", random: "dash" };

function ofPopulations(figure) {
  return [0, 1, 2, 3].map((population) => [`${figure}_${population}`, `population ${population}`]);
}

// Each: title, explanation, the lines of it as [key, name], the figure whose baselines are drawn
export const CURVES = [
  ["Fitness", "Mean return in worlds common to all agents, after learning. The band is one standard deviation of the agents.", [["fitness_mean", "mean"], ["fitness_max", "best"]], "fitness", "fitness_std"],
  ["Food eaten", "Items an agent eats in an episode, mean over the agents. Dashed: random, frozen model, planner, in held-out worlds.", [["food_eaten_mean", "food"]], "food_eaten"],
  ["Success", "Share of episodes that succeeded, by the world's own word, mean over the agents: in worlds common to all, after learning; and in those they learn from, where short episodes weigh more. Dashed: random, frozen model, in held-out worlds.", [["success_mean", "in common worlds"], ["rollout_success_mean", "while learning"]], "success"],
  ["Lifetime", "Steps lived, mean over the agents.", [["lifetime_mean", "steps"]], "lifetime"],
  ["Reward", "Mean reward of a step while learning.", [["reward_mean", "reward"]]],
  ["Entropy", "Of the actions, in nats: 1.6 is pure chance among five, 0 is certainty. And the mutual information of action and text: 0 if what is read does not matter.", [["entropy", "entropy"], ["mutual_information", "mutual information"]]],
  ["KL", "How far policies have moved: in one rollout, from the model without adapters, and children from their parents.", [["approx_kl", "in a rollout"], ["kl_to_base", "from the base"], ["kl_to_parent", "from parents"]]],
  ["Explained variance", "Share of the returns' variance that the critic foresees; 1 is all.", [["explained_variance", "explained variance"]]],
  ["Rating", "Of each population's champion, on Elo's scale, from all matches of champions so far; 400 points more are odds of ten to one.", ofPopulations("rating")],
  ["Matches won", "Share of worlds in which a population's champion ate more than past champions of the others.", ofPopulations("won")],
  ["Examples", "Steps of others that an agent saw in a rollout and may imitate, mean over the agents.", [["examples_mean", "examples"]]],
  ["Distance from the teacher", "KL of the student's actions from its teacher's on what the student read, both softened alike; mean over what it learns from a rollout.", [["teacher_kl", "KL"]]],
  ["Diversity", "Mean distance between what two adapters do.", [["diversity", "diversity"]]],
  ["Decision time", "Milliseconds in which all agents together decide, median over a rollout.", [["decide_ms", "ms"]]],
  ["Learning time", "Seconds in which all adapters learn from a rollout.", [["learn_s", "s"]]],
];

let library = null;

export function plotly() {
  library ??= new Promise((done, fail) => {
    const script = document.createElement("script");
    script.src = "plotly.js";
    script.onload = () => done(window.Plotly);
    script.onerror = fail;
    document.head.append(script);
  });
  return library;
}

export function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

export function colourOfRun(run) {
  return tone(`run-${run % RUNS}`);
}

// Colours from low to high, none of which is lost in the page: of Viridis what stands out from the theme that is on, and
// by day an ochre for its yellow
export function scale() {
  const colours = tone("scale").split(" ");
  return colours.map((colour, i) => [i / (colours.length - 1), colour]);
}

function look(more = {}) {
  const [ink, line] = [tone("ink"), tone("line")];
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: 11 },
    margin: { l: 42, r: 12, t: 8, b: 30 }, showlegend: false, hovermode: "closest",
    hoverlabel: { font: { size: 11 } }, ...more,
    xaxis: { ...axis, ...more.xaxis }, yaxis: { ...axis, ...more.yaxis },
  };
}

const SETTINGS = { displayModeBar: false, responsive: true };

export async function draw(host, traces, more) {
  const library = await plotly();
  return library.react(host, traces, look(more), SETTINGS);
}

const X_TITLES = { generation: "generation", steps: "steps of single agents", time: "minutes" };

function xs(metrics, axis) {
  let time = 0;
  return metrics.map((line) => {
    time += line.wall_s / 60;
    return { generation: line.generation, steps: line.env_steps + line.fitness_steps, time }[axis];
  });
}

// runs: of each {number, name, metrics, baselines}
export function curve(host, [, , keys, figure, spread], runs, axis) {
  const traces = [];
  for (const run of runs) {
    const x = xs(run.metrics, axis);
    const colour = colourOfRun(run.number);
    if (spread && run.metrics.some((line) => spread in line)) traces.push(...band(run, x, keys[0][0], spread, colour));
    keys.forEach(([key, name], i) => {
      const y = run.metrics.map((line) => line[key] ?? null);
      if (y.every((value) => value === null)) return;
      traces.push({ x, y, name: plain(runs.length > 1 ? `${run.name}: ${name}` : name), mode: "lines+markers", marker: { size: 4 }, line: { color: colour, width: i ? 1.3 : 2, dash: STROKES[i] }, hovertemplate: "%{y:.3~g}<extra>%{fullData.name}</extra>" });
    });
  }
  const shapes = figure && runs.length ? references(runs[0].baselines[figure]) : { shapes: [], annotations: [] };
  return draw(host, traces, { xaxis: { title: { text: X_TITLES[axis], font: { size: 10 } } }, ...shapes });
}

function band(run, x, key, spread, colour) {
  const edge = (sign) => run.metrics.map((line) => line[key] + sign * line[spread]);
  const common = { x, mode: "lines", line: { width: 0 }, hoverinfo: "skip" };
  return [{ ...common, y: edge(-1) }, { ...common, y: edge(1), fill: "tonexty", fillcolor: colour + "26" }];
}

function references(means = {}) {
  const known = Object.entries(BASELINES).filter(([who]) => who in means);
  const colour = tone("quiet");
  return {
    shapes: known.map(([who, dash]) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: means[who], y1: means[who], line: { color: colour, width: 1, dash } })),
    annotations: known.map(([who], i) => ({ xref: "paper", x: 1 - 0.2 * i, y: means[who], text: who, showarrow: false, xanchor: "right", yanchor: "bottom", font: { size: 9, color: colour } })),
  };
}

// line: of adapters.jsonl. order: the slots, from top to bottom
export function norms(host, line, module, order, most) {
  const of = (agent) => line.layers.map((_, k) => {
    const row = line.norms[agent][k];
    return module === "all" ? Math.hypot(...row) : row[line.modules.indexOf(module)];
  });
  const z = order.map(of);
  const y = order.map((slot) => `agent ${slot}`);
  return draw(host, [{ type: "heatmap", z, x: line.layers, y, colorscale: scale(), zmin: 0, zmax: most, xgap: 1, ygap: 1, colorbar: { thickness: 10 }, hovertemplate: "%{y}, layer %{x}: %{z:.3f}<extra></extra>" }],
    { xaxis: { title: { text: "layer" }, dtick: 1 }, yaxis: { autorange: "reversed" }, margin: { l: 64, r: 8, t: 8, b: 36 } });
}

export function distances(host, line, order) {
  const z = order.map((a) => order.map((b) => line.distances[a][b]));
  const names = order.map((slot) => `agent ${slot}`);
  return draw(host, [{ type: "heatmap", z, x: names, y: names, colorscale: scale(), zmin: 0, colorbar: { thickness: 10 }, hovertemplate: "%{y}, %{x}: %{z:.2f}<extra></extra>" }],
    { xaxis: { tickangle: -90 }, yaxis: { autorange: "reversed" }, margin: { l: 64, r: 8, t: 8, b: 60 } });
}
