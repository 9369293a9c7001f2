// A world that plays: canvas, controls, and what of it is recorded. Whoever uses it is told of each new step.

import { Film, get } from "./film.js";
import { World } from "./world.js";

const SPEEDS = [1, 2, 4, 8, 16, 32];
const FRAME_MS = 40; // a run on the same machine has better use for the processor than more pictures a second
const KINDS = { life: "learning", held_out: "held-out world" };

export class Scene {
  // onStep(scene): a new step, film or agent is shown
  constructor(host, onStep) {
    this.onStep = onStep;
    this.run = null;
    this.recordings = [];
    this.films = new Map();
    this.time = 0;
    this.speed = 8;
    this.agent = 0;
    this.isPlaying = true;
    this.followsNewest = true;
    this.build(host);
    const tick = (now) => {
      this.tick(now);
      setTimeout(() => requestAnimationFrame(tick), FRAME_MS);
    };
    requestAnimationFrame(tick);
  }

  build(host) {
    host.replaceChildren();
    this.canvas = host.appendChild(element("canvas", { className: "land", tabIndex: 0 }));
    this.canvas.setAttribute("role", "img");
    const bar = host.appendChild(element("div", { className: "controls" }));
    this.play = bar.appendChild(element("button", { className: "play playing" }));
    this.play.setAttribute("aria-label", "play or pause");
    this.play.dataset.tip = "Play or pause (space)";
    this.scrub = bar.appendChild(element("input", { type: "range", className: "scrub", min: 0, value: 0 }));
    this.scrub.setAttribute("aria-label", "step");
    this.told = bar.appendChild(element("output"));
    this.faster = bar.appendChild(element("select"));
    this.faster.setAttribute("aria-label", "speed");
    this.faster.append(...SPEEDS.map((s) => element("option", { value: s, textContent: `${s} steps/s` })));
    this.faster.value = this.speed;
    this.which = bar.appendChild(element("select", { className: "which" }));
    this.which.setAttribute("aria-label", "recorded life");
    this.follow = element("input", { type: "checkbox", checked: true });
    const label = bar.appendChild(element("label", {}, [this.follow, " newest"]));
    label.dataset.tip = "Go on to the newest life when one has been lived";
    this.play.onclick = () => this.setPlaying(!this.isPlaying);
    this.scrub.oninput = () => {
      this.setPlaying(false);
      this.seek(Number(this.scrub.value));
    };
    this.faster.onchange = () => (this.speed = Number(this.faster.value));
    this.which.onchange = () => {
      this.setFollow(false);
      this.choose(this.which.value);
    };
    this.follow.onchange = () => this.setFollow(this.follow.checked);
    this.canvas.onclick = (event) => {
      const agent = this.world?.agentAt(event);
      if (agent !== null && agent !== undefined) this.select(agent);
    };
  }

  setPlaying(isPlaying) {
    this.isPlaying = isPlaying;
    this.play.classList.toggle("playing", isPlaying);
    if (isPlaying && this.film && this.time >= this.film.steps) this.time = 0;
  }

  setFollow(follows) {
    this.followsNewest = this.follow.checked = follows;
    if (follows) this.toNewest();
  }

  changeSpeed(by) {
    const at = Math.min(SPEEDS.length - 1, Math.max(0, SPEEDS.indexOf(this.speed) + by));
    this.faster.value = this.speed = SPEEDS[at];
  }

  select(agent) {
    this.agent = agent;
    this.draw();
    this.onStep(this);
  }

  async show(run, only) {
    if (run !== this.run) {
      [this.run, this.film, this.world, this.chosen] = [run, null, null, null];
      this.films.clear();
    }
    const all = await get(`runs/${run}/recordings`);
    if (run !== this.run) return;
    this.recordings = only ? all.filter((r) => r.kind === only) : all;
    const names = this.recordings.map(nameOf);
    if (names.join() !== [...this.which.options].map((o) => o.value).join()) {
      this.which.replaceChildren(...this.recordings.map((r) =>
        element("option", { value: nameOf(r), textContent: `generation ${r.generation}, ${KINDS[r.kind]}` })));
    }
    if (this.chosen && names.includes(this.chosen)) this.which.value = this.chosen;
    if (this.followsNewest || !names.includes(this.chosen)) this.toNewest();
  }

  toNewest() {
    const lives = this.recordings.filter((r) => r.kind === "life");
    const newest = (lives.length ? lives : this.recordings).at(-1);
    if (newest && nameOf(newest) !== this.chosen) this.choose(nameOf(newest));
  }

  async choose(name) {
    this.chosen = this.which.value = name;
    const run = this.run;
    const film = await this.film_of(name).catch(() => null);
    if (run !== this.run || name !== this.chosen || !film) return;
    this.film = film;
    this.world = new World(this.canvas, film);
    this.agent = Math.min(this.agent, film.agents - 1);
    this.scrub.max = film.steps;
    this.seek(0);
  }

  async film_of(name) {
    const key = `${this.run}/${name}`;
    if (!this.films.has(key)) {
      const [kind, generation] = name.split(":");
      this.films.set(key, get(`runs/${this.run}/recordings/${kind}/${generation}`).then((told) => new Film(told)));
      while (this.films.size > 12) this.films.delete(this.films.keys().next().value);
    }
    return this.films.get(key);
  }

  turnPage(by) {
    const at = this.recordings.findIndex((r) => nameOf(r) === this.chosen) + by;
    if (!this.recordings[at]) return;
    this.setFollow(false);
    this.choose(nameOf(this.recordings[at]));
  }

  seek(step) {
    if (!this.film) return;
    this.time = Math.min(this.film.steps, Math.max(0, step));
    this.draw();
    this.tell();
  }

  tick(now) {
    const passed = Math.min(0.25, (now - (this.before ?? now)) / 1000);
    this.before = now;
    if (!this.isPlaying || !this.film || !this.canvas.offsetParent) return;
    const step = Math.floor(this.time);
    this.time = Math.min(this.film.steps, this.time + passed * this.speed);
    if (this.time >= this.film.steps && !this.isHeld) this.again();
    this.draw();
    if (Math.floor(this.time) !== step) this.tell();
  }

  // At the end of a film: after a moment, from the beginning
  again() {
    this.isHeld = true;
    setTimeout(() => {
      this.isHeld = false;
      if (this.isPlaying && this.film && this.time >= this.film.steps) this.time = 0;
    }, 1200);
  }

  draw() {
    this.world?.draw(this.time, this.agent);
  }

  get step() {
    return Math.floor(this.time);
  }

  tell() {
    this.scrub.value = this.step;
    this.told.textContent = `step ${this.step} / ${this.film.steps}`;
    const living = Array.from({ length: this.film.agents }, (_, n) => this.film.isAlive(this.step, n)).filter(Boolean);
    this.canvas.setAttribute("aria-label", `generation ${this.film.generation}, step ${this.step}: ${living.length} agents alive`);
    this.canvas.dataset.step = this.step;
    this.onStep(this);
  }
}

export function nameOf(recording) {
  return `${recording.kind}:${recording.generation}`;
}

export function element(tag, values = {}, children = []) {
  const made = Object.assign(document.createElement(tag), values);
  made.append(...children);
  return made;
}
