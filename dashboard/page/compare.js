// Two agents, or two runs, in recorded lives side by side, step by step together.

import { draw, plain } from "./charts.js";
import { Scene, element } from "./scene.js";
import { colourOf } from "./world.js";

export class Compare {
  constructor(left, right, together) {
    this.sides = [left, right].map((host, i) => this.side(host, i));
    this.build(together);
  }

  side(host, number) {
    const run = element("select");
    run.setAttribute("aria-label", `run on the ${number ? "right" : "left"}`);
    const agent = element("select");
    agent.setAttribute("aria-label", `agent on the ${number ? "right" : "left"}`);
    const stage = element("div", { className: "scene" });
    host.replaceChildren(element("div", { className: "bar" }, [run, agent]), stage);
    const scene = new Scene(stage, () => this.onStep(number));
    scene.setFollow(false);
    scene.agent = number;
    run.onchange = () => scene.show(Number(run.value), null);
    agent.onchange = () => scene.select(Number(agent.value));
    return { run, agent, scene };
  }

  build(host) {
    this.play = element("button", { className: "play playing", textContent: "both" });
    this.scrub = element("input", { type: "range", className: "scrub", min: 0, value: 0 });
    this.scrub.setAttribute("aria-label", "step of both");
    this.chart = element("div", { className: "chart" });
    const caption = element("figcaption", { textContent: "Food eaten so far by the two agents" });
    host.replaceChildren(element("div", { className: "controls" }, [this.play, this.scrub]), element("figure", {}, [caption, this.chart]));
    this.play.onclick = () => this.setPlaying(!this.isPlaying);
    this.scrub.oninput = () => {
      this.setPlaying(false);
      this.scenes.forEach((scene) => scene.seek(Number(this.scrub.value)));
    };
    this.isPlaying = true;
  }

  get scenes() {
    return this.sides.map((side) => side.scene);
  }

  setPlaying(isPlaying) {
    this.isPlaying = isPlaying;
    this.play.classList.toggle("playing", isPlaying);
    if (isPlaying) this.scenes.forEach((scene) => scene.seek(this.scenes[0].step));
    this.scenes.forEach((scene) => scene.setPlaying(isPlaying));
  }

  // What there is to compare; the same held-out world where it has been recorded
  async show(runs, current) {
    this.names = runs.map((r) => r.name);
    for (const [number, { run, scene }] of this.sides.entries()) {
      const before = run.value;
      run.replaceChildren(...runs.map((r, i) => element("option", { value: i, textContent: r.name })));
      run.value = before || (number && runs.length > 1 ? (current + 1) % runs.length : current);
      await scene.show(Number(run.value), null);
      const held = scene.recordings.filter((r) => r.kind === "held_out").at(-1);
      if (!before && held) await scene.choose(`held_out:${held.generation}`);
    }
  }

  onStep(number) {
    const { scene, agent, run } = this.sides[number];
    if (agent.options.length !== scene.film.agents) {
      agent.replaceChildren(...scene.film.ids.map((id, slot) => element("option", { value: slot, textContent: `agent ${slot} (individual ${id})` })));
    }
    agent.value = scene.agent;
    if (number === 0) {
      this.scrub.max = scene.film.steps;
      this.scrub.value = scene.step;
    }
    const key = this.sides.map((s) => `${s.run.value}/${s.scene.chosen}/${s.scene.agent}`).join();
    if (key !== this.drawn && this.scenes.every((s) => s.film)) {
      this.drawn = key;
      this.drawChart();
    }
  }

  drawChart() {
    const traces = this.sides.map(({ scene, run }, i) => {
      const steps = Array.from({ length: scene.film.steps + 1 }, (_, t) => t);
      const name = `${this.names?.[Number(run.value)] ?? ""}, generation ${scene.film.generation}, agent ${scene.agent}`;
      return { x: steps, y: steps.map((t) => scene.film.eaten(t, scene.agent)), mode: "lines", name: plain(name), line: { shape: "hv", width: 2, dash: i ? "dash" : "solid", color: colourOf(scene.agent, scene.film.agents, 45) } };
    });
    draw(this.chart, traces, { showlegend: true, legend: { orientation: "h", y: 1.15 }, xaxis: { title: { text: "step" } } });
  }
}
