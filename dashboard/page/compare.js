// Two recorded episodes side by side by one clock: a run's first generation and its last, or two runs.

import { colourOfRun, draw, plain } from "./charts.js";
import { element } from "./dom.js";
import { Player } from "./player.js";
import { Scene, whyNoFilm } from "./scene.js";

export class Compare {
  constructor(left, right, together) {
    this.player = new Player("both");
    this.chart = element("div", { className: "chart" });
    this.sides = [left, right].map((host, i) => this.side(host, i));
    const caption = element("figcaption", { textContent: "Food eaten so far by the two agents" });
    const figure = element("figure", {}, [caption, this.chart]);
    together.replaceChildren(element("div", { className: "controls" }, this.player.controls), figure);
  }

  side(host, number) {
    const run = element("select");
    run.setAttribute("aria-label", `run on the ${number ? "right" : "left"}`);
    const agent = element("select");
    agent.setAttribute("aria-label", `agent on the ${number ? "right" : "left"}`);
    const stage = element("div", { className: "scene" });
    const note = element("p", { className: "empty" });
    host.replaceChildren(element("div", { className: "bar" }, [run, agent]), stage, note);
    const scene = new Scene(stage, () => this.onStep(number), this.player, (recordings) => this.pick(number, recordings));
    run.onchange = () => {
      this.scenes.forEach((one) => (one.run = null)); // what is picked on a side depends on the other
      this.refresh();
    };
    agent.onchange = () => scene.select(Number(agent.value));
    return { run, agent, stage, note, scene };
  }

  get scenes() {
    return this.sides.map((side) => side.scene);
  }

  // Of one run the first generation and the last, of two runs the last of both; in the same held-out world if it can be
  pick(number, recordings) {
    const isOneRun = this.sides[0].run.value === this.sides[1].run.value;
    const [rollouts, held] = ["rollout", "held_out"].map((kind) => recordings.filter((r) => r.kind === kind));
    const most = isOneRun && held.length < 2 && rollouts.length > held.length ? rollouts : held.length ? held : rollouts;
    this.sides[number].scene.rank = isOneRun && number && most.length === 1 ? 1 : 0; // one episode: its two best
    return most.at(isOneRun && !number ? 0 : -1);
  }

  // runs: the overviews of all; current: the number of that on the left to begin with
  async show(runs, current) {
    this.runs = runs;
    for (const [number, { run }] of this.sides.entries()) {
      const before = run.value;
      run.replaceChildren(...runs.map((r, i) => element("option", { value: i, textContent: r.name })));
      run.value = before || (number && runs.length > 1 ? (current + 1) % runs.length : current);
    }
    await this.refresh();
  }

  async refresh() {
    await Promise.all(this.sides.map(async ({ run, agent, stage, note, scene }) => {
      await scene.show(Number(run.value));
      const isEmpty = !scene.recordings.length;
      stage.hidden = agent.hidden = isEmpty;
      note.hidden = !isEmpty;
      note.textContent = isEmpty ? whyNoFilm(this.runs[run.value]) : "";
    }));
    this.player.show();
  }

  onStep(number) {
    const { scene, agent } = this.sides[number];
    if (!scene.film) return;
    const who = scene.film.ids.join();
    if (agent.dataset.who !== who) {
      agent.dataset.who = who;
      agent.replaceChildren(...scene.film.ids.map((id, slot) => element("option", { value: slot, textContent: `agent ${slot} (individual ${id})` })));
    }
    agent.value = scene.agent;
    const theme = document.documentElement.dataset.theme;
    const key = [theme, ...this.sides.map((s) => `${s.run.value}/${s.scene.film && s.scene.chosen}/${s.scene.agent}`)].join();
    if (key !== this.drawn) {
      this.drawn = key;
      this.drawChart();
    }
  }

  drawChart() {
    const traces = this.scenes.filter((scene) => scene.film).map((scene) => {
      const { film, agent } = scene;
      const i = this.scenes.indexOf(scene);
      const steps = Array.from({ length: film.steps + 1 }, (_, t) => t);
      const name = plain(`${this.runs[scene.run].name}, generation ${film.generation}, agent ${agent}`);
      return { x: steps, y: steps.map((t) => film.eaten(t, agent)), mode: "lines", name, line: { shape: "hv", width: 2, dash: i ? "dash" : "solid", color: colourOfRun(i) } };
    });
    draw(this.chart, traces, { showlegend: true, legend: { orientation: "h", y: 1.15 }, xaxis: { title: { text: "step" } } });
  }
}
