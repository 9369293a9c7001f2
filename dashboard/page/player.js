// A clock that plays, with its controls. All scenes that share it are at the same step.

import { element } from "./dom.js";

const SPEEDS = [1, 2, 4, 8, 16, 32];
const FRAME_MS = 40; // a run on the same machine has better use for the processor than more pictures a second

export class Player {
  constructor(label = "") {
    this.scenes = [];
    this.time = 0; // in steps, 3.5 is half-way between two
    this.speed = 8;
    this.isPlaying = true;
    this.build(label);
    const tick = (now) => {
      this.tick(now);
      setTimeout(() => requestAnimationFrame(tick), FRAME_MS);
    };
    requestAnimationFrame(tick);
  }

  build(label) {
    this.play = element("button", { className: "play playing", textContent: label });
    this.play.setAttribute("aria-label", "play or pause");
    this.play.dataset.tip = "Play or pause (space)";
    this.scrub = element("input", { type: "range", className: "scrub", min: 0, value: 0 });
    this.scrub.setAttribute("aria-label", "step");
    this.output = element("output");
    this.faster = element("select");
    this.faster.setAttribute("aria-label", "speed");
    this.faster.append(...SPEEDS.map((s) => element("option", { value: s, textContent: `${s} steps/s` })));
    this.faster.value = this.speed;
    this.controls = [this.play, this.scrub, this.output, this.faster];
    this.play.onclick = () => this.setPlaying(!this.isPlaying);
    this.scrub.oninput = () => {
      this.setPlaying(false);
      this.seek(Number(this.scrub.value));
    };
    this.faster.onchange = () => (this.speed = Number(this.faster.value));
  }

  // Until the longest film has ended
  get steps() {
    return Math.max(0, ...this.scenes.map((scene) => scene.film?.steps ?? 0));
  }

  get step() {
    return Math.floor(this.time);
  }

  setPlaying(isPlaying) {
    this.isPlaying = isPlaying;
    this.play.classList.toggle("playing", isPlaying);
    if (isPlaying && this.time >= this.steps) this.time = 0;
  }

  changeSpeed(by) {
    const at = Math.min(SPEEDS.length - 1, Math.max(0, SPEEDS.indexOf(this.speed) + by));
    this.faster.value = this.speed = SPEEDS[at];
  }

  seek(step) {
    this.time = Math.min(this.steps, Math.max(0, step));
    this.show();
  }

  show() {
    this.scenes.forEach((scene) => scene.draw());
    this.report();
  }

  tick(now) {
    const passed = Math.min(0.25, (now - (this.before ?? now)) / 1000);
    this.before = now;
    const isSeen = this.scenes.some((scene) => scene.film && scene.canvas.offsetParent);
    if (!this.isPlaying || !isSeen) return;
    const { step } = this;
    this.time = Math.min(this.steps, this.time + passed * this.speed);
    if (this.time >= this.steps && !this.isHeld) this.again();
    this.scenes.forEach((scene) => scene.draw());
    if (this.step !== step) this.report();
  }

  // At the end: after a moment, from the beginning
  again() {
    this.isHeld = true;
    setTimeout(() => {
      this.isHeld = false;
      if (this.isPlaying && this.time >= this.steps) this.time = 0;
    }, 1200);
  }

  report() {
    this.scrub.max = this.steps;
    this.scrub.value = this.step;
    this.output.textContent = `step ${this.step} / ${this.steps}`;
    this.scenes.forEach((scene) => scene.report());
  }
}
