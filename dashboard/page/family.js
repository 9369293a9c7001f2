// Who descends from whom: the tree, and the order in which relatives stand side by side.

import { draw, plain, scale } from "./charts.js";
import { tone } from "./dom.js";

export function familyTree(host, lineage, onSelect) {
  const of = new Map(lineage.nodes.map((node) => [node.id, node]));
  const line = new Set(lineage.champion);
  const chosen = descent(of, line);
  const traces = [
    lifelines(lineage.nodes),
    edges(lineage.nodes, of, (child, parent) => !chosen.has(`${parent}>${child}`), { color: tone("edge"), width: 0.5 }, "parents"),
    championLine(lineage.champion.map((id) => of.get(id))),
    dots(lineage.nodes, line),
  ];
  const last = Math.max(1, ...lineage.nodes.map((node) => node.generation));
  const done = draw(host, traces, {
    xaxis: { title: { text: "generation of birth" }, range: [-0.7, last + 0.9], zeroline: false, dtick: Math.ceil(last / 25) },
    yaxis: { title: { text: "slot" }, autorange: "reversed", zeroline: false },
    margin: { l: 44, r: 8, t: 8, b: 40 }, dragmode: "pan",
  });
  return done.then(() => {
    host.removeAllListeners?.("plotly_click");
    host.on?.("plotly_click", ({ points }) => points[0]?.customdata !== undefined && onSelect(points[0].customdata));
  });
}

function descent(of, line) {
  const ids = [...line];
  return new Set(ids.slice(1).map((child, i) => `${ids[i]}>${child}`));
}

// A bar in its slot for as long as each lived
function lifelines(nodes) {
  const [x, y] = [[], []];
  for (const node of nodes) {
    const lived = Object.keys(node.fitness).map(Number);
    if (lived.length < 2) continue;
    x.push(node.generation, Math.max(...lived), null);
    y.push(node.slot, node.slot, null);
  }
  return { x, y, mode: "lines", line: { color: tone("edge"), width: 3 }, hoverinfo: "skip", name: "lives" };
}

function edges(nodes, of, isWanted, line, name) {
  const [x, y] = [[], []];
  for (const child of nodes) {
    for (const id of child.parents) {
      const parent = of.get(id);
      if (!parent || !isWanted(child.id, id)) continue;
      x.push(Math.max(parent.generation, child.generation - 1), child.generation, null);
      y.push(parent.slot, child.slot, null);
    }
  }
  return { x, y, mode: "lines", line, hoverinfo: "skip", name };
}

// From birth to birth, along the bar of each forebear as long as it took
function championLine(line) {
  const [x, y] = [[], []];
  line.forEach((node, i) => {
    const child = line[i + 1];
    const end = child ? child.generation - 1 : Math.max(...Object.keys(node.fitness).map(Number));
    x.push(node.generation, Math.max(node.generation, end));
    y.push(node.slot, node.slot);
  });
  return { x, y, mode: "lines", line: { color: tone("champion"), width: 3 }, hoverinfo: "skip", name: "champion's line" };
}

function dots(nodes, line) {
  const first = (node) => node.fitness[node.generation] ?? null;
  const about = (node) => plain(`individual ${node.id}, ${node.operator}`) + `<br>parents ${node.parents.join(", ") || "none"}<br>`
    + (first(node) === null ? "not measured yet" : `fitness ${first(node).toFixed(2)} when young`) + `, lived ${Object.keys(node.fitness).length} generations`;
  return {
    x: nodes.map((node) => node.generation), y: nodes.map((node) => node.slot), mode: "markers", name: "individuals",
    customdata: nodes.map((node) => node.id), text: nodes.map(about), hovertemplate: "%{text}<extra></extra>",
    marker: {
      size: nodes.map((node) => (line.has(node.id) ? 12 : 8)), opacity: 1, color: nodes.map(first), colorscale: scale(), showscale: true,
      colorbar: { thickness: 10, title: { text: "fitness", font: { size: 10 } } },
      line: { width: nodes.map((node) => (line.has(node.id) ? 2 : 0)), color: tone("champion") },
    },
  };
}

// Slots ordered so that relatives stand together: by the line of forebears from the founder on
export function byFamily(ids, nodes) {
  const of = new Map(nodes.map((node) => [node.id, node]));
  const forebears = (id) => {
    const line = [];
    for (let node = of.get(id); node; node = of.get(node.parents[0])) line.unshift(node.id);
    return line;
  };
  const lines = ids.map(forebears);
  return ids.map((_, slot) => slot).sort((a, b) => compare(lines[a], lines[b]) || a - b);
}

function compare(one, other) {
  for (let i = 0; i < Math.min(one.length, other.length); i++) {
    if (one[i] !== other[i]) return one[i] - other[i];
  }
  return one.length - other.length;
}
