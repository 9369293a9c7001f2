// A world that is shown, and what of it is recorded. It reports each new step.

import { element } from "./dom.js";
import { Film, get } from "./film.js";
import { Player } from "./player.js";
import { World } from "./world.js";

const KINDS = { rollout: "learning", held_out: "held-out world" };

export class Scene {
  // onStep(scene): a new step, film or agent is shown. shared: a player by which others play, too, and
  // pick(recordings): the one to begin with, where that is not the newest
  constructor(host, onStep, shared = null, pick = newestRollout) {
    this.onStep = onStep;
    this.pick = pick;
    this.run = null;
    this.recordings = [];
    this.films = new Map();
    this.agent = this.rank = 0; // rank: which of those that ate most is shown until somebody chooses
    this.player = shared ?? new Player();
    this.player.scenes.push(this);
    this.followsNewest = !shared;
    this.build(host, shared ? [] : this.player.controls);
  }

  build(host, controls) {
    this.canvas = element("canvas", { className: "land", tabIndex: 0 });
    this.canvas.setAttribute("role", "img");
    this.which = element("select", { className: "which" });
    this.which.setAttribute("aria-label", "recorded episode");
    this.follow = element("input", { type: "checkbox", checked: this.followsNewest });
    const label = element("label", { hidden: !controls.length }, [this.follow, " newest"]);
    label.dataset.tip = "Go on to the newest rollout when there is one";
    host.replaceChildren(this.canvas, element("div", { className: "controls" }, [...controls, this.which, label]));
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

  setFollow(follows) {
    this.followsNewest = this.follow.checked = follows;
    if (follows) this.begin();
  }

  select(agent) {
    this.agent = agent;
    this.isChosen = true;
    this.draw();
    this.onStep(this);
  }

  // What there is of a run; the film goes on if it is of that run
  async show(run) {
    if (run !== this.run) {
      [this.run, this.film, this.world, this.chosen, this.isChosen] = [run, null, null, null, false];
      this.films.clear();
    }
    const all = await get(`runs/${run}/recordings`);
    if (run !== this.run) return;
    this.recordings = all;
    const names = all.map(nameOf);
    if (names.join() !== [...this.which.options].map((o) => o.value).join()) {
      this.which.replaceChildren(...all.map((r) =>
        element("option", { value: nameOf(r), textContent: `generation ${r.generation}, ${KINDS[r.kind]}` })));
    }
    if (this.chosen && names.includes(this.chosen)) this.which.value = this.chosen;
    if (this.followsNewest || !names.includes(this.chosen)) await this.begin();
  }

  async begin() {
    const picked = this.pick(this.recordings);
    if (picked && nameOf(picked) !== this.chosen) await this.choose(nameOf(picked));
  }

  async choose(name) {
    this.chosen = this.which.value = name;
    const run = this.run;
    const film = await this.film_of(name).catch(() => null);
    if (run !== this.run || name !== this.chosen) return;
    this.film = film;
    if (!film) return this.showNothing();
    this.world = new World(this.canvas, film);
    this.agent = this.isChosen ? Math.min(this.agent, film.agents - 1) : film.byFood()[Math.min(this.rank, film.agents - 1)];
    this.player.seek(0);
  }

  // The chosen recording is damaged, as the page says; another picture would look as if it were this one
  showNothing() {
    this.world = null;
    this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.canvas.setAttribute("aria-label", "this recording cannot be shown");
    delete this.canvas.dataset.step;
    this.films.delete(`${this.run}/${this.chosen}`); // it may be mended
    this.onStep(this);
  }

  async film_of(name) {
    const key = `${this.run}/${name}`;
    if (!this.films.has(key)) {
      const [kind, generation] = name.split(":");
      this.films.set(key, get(`runs/${this.run}/recordings/${kind}/${generation}`).then((recording) => new Film(recording)));
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

  // A film that is shorter than others by the same clock stays at its end
  get time() {
    return Math.min(this.film.steps, this.player.time);
  }

  get step() {
    return Math.floor(this.time);
  }

  draw() {
    if (this.film) this.world.draw(this.time, this.agent);
  }

  report() {
    if (!this.film) return;
    const living = Array.from({ length: this.film.agents }, (_, n) => this.film.isAlive(this.step, n)).filter(Boolean);
    this.canvas.setAttribute("aria-label", `generation ${this.film.generation}, step ${this.step}: ${living.length} agents alive`);
    this.canvas.dataset.step = this.step;
    this.onStep(this);
  }
}

function newestRollout(recordings) {
  const rollouts = recordings.filter((r) => r.kind === "rollout");
  return (rollouts.length ? rollouts : recordings).at(-1);
}

// run: its overview
export function whyNoFilm(run) {
  if (!run.is_forage) return `${run.name} lives in ${run.preset}: of worlds other than forage there is no picture.`;
  if (!run.records) return `${run.name} records no episodes: its log.recordings_mb is 0.`;
  return `No episode of ${run.name} has been recorded yet. The first one comes with the end of the first generation.`;
}

export function nameOf(recording) {
  return `${recording.kind}:${recording.generation}`;
}
