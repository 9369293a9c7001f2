// One agent: what it read, how likely each action was, what it expected, remembered, had eaten; its family.

import { get } from "./film.js";
import { element, tone } from "./dom.js";
import { colourOf } from "./world.js";

const MAP = { "#": "rock", f: "food", g: "grew", h: "home", ".": "free", " ": "unseen" };
const NAMES = { rock: "rock", food: "food", grew: "where food grew", home: "home", free: "free", unseen: "never seen" };

export class AgentPanel {
  constructor(host, onSelect) {
    this.host = host;
    this.onSelect = onSelect;
    this.lineage = { nodes: [] };
    this.key = null;
  }

  setLineage(lineage) {
    this.lineage = lineage;
    this.key = null;
  }

  show(scene) {
    if (!scene.film) {
      this.key = null;
      return this.host.replaceChildren();
    }
    const { film, agent, step } = scene;
    const key = `${scene.run}/${scene.chosen}/${agent}`;
    if (key !== this.key) this.build(scene, key);
    this.update(film, agent, step);
    this.drawEnergy(film, agent, step);
    this.drawMap(this.maps[step] ?? []);
  }

  build(scene, key) {
    this.key = key;
    this.maps = [];
    this.askForMaps(scene, key);
    const { film, agent } = scene;
    const id = film.ids[agent];
    const node = this.lineage.nodes.find((n) => n.id === id);
    const title = element("h2", {}, [element("span", { className: "swatch" }), `agent ${agent}`, element("span", { className: "quiet", textContent: `  individual ${id}` })]);
    title.querySelector(".swatch").style.background = colourOf(agent, film.agents);
    this.state = element("div", { className: "quiet" });
    this.text = element("div", { className: "text", id: "read" });
    this.choices = film.actions.map((word) => {
      const fill = element("div", { className: "fill" });
      const share = element("span");
      const row = element("div", { className: "choice" }, [element("span", { textContent: word }), element("div", { className: "track" }, [fill]), share]);
      return { row, fill, share };
    });
    this.energy = element("canvas", { className: "energy", height: 140, width: 320 });
    this.energy.setAttribute("role", "img");
    this.map = element("canvas", { height: 310, width: 310 });
    this.map.setAttribute("role", "img");
    this.map.setAttribute("aria-label", "the map that the agent keeps");
    this.host.replaceChildren(
      title, this.state,
      heading("it read", "The whole observation, as the model reads it after its instructions"), this.text,
      heading("and chose", "Probability of each action; illegal ones have none"), ...this.choices.map((c) => c.row),
      element("div", { className: "columns" }, [
        element("div", {}, [heading("energy", "Energy over its life; the line is now"), this.energy]),
        element("div", {}, [heading("memory", "The map that it keeps, itself in the middle"), this.map, mapLegend()]),
      ]),
      ...this.family(node, scene),
    );
  }

  family(node, scene) {
    if (!node) return [];
    const born = element("div", { className: "quiet", textContent: `born in generation ${node.generation}, by ${node.operator}` });
    const children = this.lineage.nodes.filter((n) => n.parents.includes(node.id)).map((n) => n.id);
    const list = (title, ids) => [heading(title), element("div", { className: "kin" }, ids.length ? ids.map((id) => this.link(id, scene)) : [element("span", { className: "quiet", textContent: "none" })])];
    return [heading("family"), born, ...list("parents", node.parents), ...list("children", children.slice(0, 30))];
  }

  // Somebody who lives in this film can be chosen; others are only named
  link(id, scene) {
    const slot = scene.film.ids.indexOf(id);
    const button = element("button", { textContent: id, disabled: slot < 0 });
    button.dataset.tip = slot < 0 ? "lives in another generation" : `agent ${slot}`;
    button.onclick = () => this.onSelect(slot);
    return button;
  }

  update(film, agent, step) {
    const thought = film.thought(step, agent);
    const isAlive = film.isAlive(step, agent);
    this.state.textContent = isAlive
      ? `energy ${film.energy(step, agent).toFixed(0)} of ${film.energy_max}, eaten ${film.eaten(step, agent)}` + (thought ? `, expects ${thought.value.toFixed(2)}` : "")
      : `starved, after eating ${film.eaten(step, agent)}`;
    this.text.textContent = thought ? thought.text.trim() : isAlive ? "the end of its life" : "";
    this.choices.forEach(({ row, fill, share }, i) => {
      const odds = thought ? thought.odds[i] : 0;
      fill.style.width = `${100 * odds}%`;
      share.textContent = thought ? `${Math.round(100 * odds)} %` : "";
      row.classList.toggle("chosen", thought?.action === i);
    });
  }

  drawEnergy(film, agent, step) {
    const { energy: canvas } = this;
    const pen = canvas.getContext("2d");
    const x = (t) => (t / film.steps) * canvas.width;
    const y = (t) => (1 - film.energy(t, agent) / film.energy_max) * (canvas.height - 6) + 3;
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.strokeStyle = tone("accent");
    pen.lineWidth = 3;
    pen.beginPath();
    for (let t = 0; t <= film.steps && (t === 0 || film.isAlive(t - 1, agent)); t++) pen.lineTo(x(t), y(t));
    pen.stroke();
    pen.fillStyle = tone("warm");
    pen.fillRect(x(step) - 1.5, 0, 3, canvas.height);
    canvas.setAttribute("aria-label", `energy now ${film.energy(step, agent).toFixed(0)}`);
  }

  async askForMaps(scene, key) {
    const [kind, generation] = scene.chosen.split(":");
    const remembered = await get(`runs/${scene.run}/recordings/${kind}/${generation}/memory/${scene.agent}`).catch(() => ({ maps: [] }));
    if (key !== this.key) return;
    this.maps = remembered.maps;
    this.drawMap(this.maps[scene.step] ?? []);
  }

  drawMap(rows) {
    const pen = this.map.getContext("2d");
    const side = this.map.width / Math.max(1, rows.length);
    const paint = Object.fromEntries(Object.entries(MAP).map(([letter, what]) => [letter, tone(`map-${what}`)]));
    pen.fillStyle = paint[" "];
    pen.fillRect(0, 0, this.map.width, this.map.height);
    rows.forEach((row, y) => [...row].forEach((letter, x) => {
      pen.fillStyle = paint[letter];
      pen.fillRect(x * side, y * side, side, side);
    }));
    pen.beginPath();
    pen.arc(this.map.width / 2, this.map.height / 2, side * 0.6, 0, 7);
    pen.fillStyle = tone("map-free");
    pen.fill();
    pen.strokeStyle = tone("ink");
    pen.lineWidth = Math.max(2, side * 0.3);
    pen.stroke();
  }
}

function mapLegend() {
  const entry = ([what, name]) => {
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = `var(--map-${what})`;
    return element("span", {}, [swatch, name]);
  };
  return element("div", { className: "legend" }, Object.entries(NAMES).map(entry));
}

function heading(text, tip) {
  const made = element("h3", { textContent: text });
  if (tip) made.dataset.tip = tip;
  return made;
}
