// Draws a recorded episode: land, food, homes, and the agents between their steps.

import { tone } from "./dom.js";

const ROOFS = ["#8a5a33", "#3c5f9e", "#7b3f8f", "#2f7d6b"];
const MOURNING = 12; // steps in which a headstone fades

// All equally light, so that each stands out from the page in both themes
export function colourOf(agent, agents) {
  return `oklch(0.62 0.17 ${(agent * 360) / agents + 25})`;
}

export class World {
  constructor(canvas, film) {
    this.canvas = canvas;
    this.film = film;
    this.places = [];
  }

  // time: in steps, 3.5 is half-way between two
  draw(time, selected) {
    const { canvas, film } = this;
    const wide = Math.max(1, canvas.clientWidth);
    const cell = Math.max(4, Math.round((wide * devicePixelRatio) / film.width));
    if (canvas.width !== cell * film.width || canvas.height !== cell * film.height) {
      canvas.width = cell * film.width;
      canvas.height = cell * film.height;
    }
    const pen = canvas.getContext("2d");
    pen.drawImage(this.land(cell), 0, 0);
    const step = Math.min(film.steps, Math.floor(time));
    this.drawFood(pen, cell, step);
    this.drawAgents(pen, cell, step, time - step, selected);
    if (film.isNight(step)) this.drawNight(pen, cell);
  }

  land(cell) {
    const key = `${cell}${document.documentElement.dataset.theme}`;
    if (this.landKey === key) return this.landPicture;
    const { film } = this;
    const tint = Object.fromEntries(["grass", "grass2", "sand", "sand2", "rock", "rock2"].map((name) => [name, tone(name)]));
    const picture = document.createElement("canvas");
    picture.width = cell * film.width;
    picture.height = cell * film.height;
    const pen = picture.getContext("2d");
    for (let i = 0; i < film.cells; i++) {
      const [row, column] = [Math.floor(i / film.width), i % film.width];
      const odd = (row + column) % 2 ? "2" : "";
      pen.fillStyle = tint[(film.raw.fertile[i] ? "grass" : "sand") + odd];
      pen.fillRect(column * cell, row * cell, cell, cell);
      if (film.raw.rock[i]) {
        pen.fillStyle = tint.rock;
        round(pen, column * cell + cell * 0.04, row * cell + cell * 0.06, cell * 0.92, cell * 0.9, cell * 0.28);
        pen.fillStyle = tint.rock2;
        round(pen, column * cell + cell * 0.12, row * cell + cell * 0.1, cell * 0.6, cell * 0.4, cell * 0.2);
      }
    }
    film.home.forEach(([row, column], population) => drawHome(pen, cell, row, column, ROOFS[population % 4]));
    [this.landKey, this.landPicture] = [key, picture];
    return picture;
  }

  drawFood(pen, cell, step) {
    const food = this.film.food(step);
    const berry = tone("berry");
    for (let i = 0; i < food.length; i++) {
      if (!food[i]) continue;
      const [row, column] = [Math.floor(i / this.film.width), i % this.film.width];
      const [x, y] = [(column + 0.5) * cell, (row + 0.55) * cell];
      pen.fillStyle = berry;
      disc(pen, x, y, cell * 0.2);
      pen.fillStyle = "#ffffff88";
      disc(pen, x - cell * 0.06, y - cell * 0.07, cell * 0.055);
      pen.strokeStyle = "#3f7d35";
      pen.lineWidth = Math.max(1, cell * 0.06);
      pen.beginPath();
      pen.moveTo(x, y - cell * 0.18);
      pen.lineTo(x + cell * 0.1, y - cell * 0.32);
      pen.stroke();
    }
  }

  drawAgents(pen, cell, step, share, selected) {
    const { film } = this;
    const next = Math.min(step + 1, film.steps);
    const company = new Map();
    const outline = tone("outline");
    this.places = [];
    for (let n = 0; n < film.agents; n++) {
      if (!film.isAlive(step, n)) {
        this.drawGrave(pen, cell, step, n);
        continue;
      }
      const [row, column] = film.position(step, n);
      const [row2, column2] = film.isAlive(next, n) ? film.position(next, n) : [row, column];
      const ease = share * share * (3 - 2 * share);
      const place = `${row},${column}`;
      const order = company.get(place) ?? 0;
      company.set(place, order + 1);
      const turn = order * 2.4;
      const out = order ? 0.22 : 0;
      const x = (column + (column2 - column) * ease + 0.5 + out * Math.cos(turn)) * cell;
      const y = (row + (row2 - row) * ease + 0.5 + out * Math.sin(turn)) * cell;
      this.places.push({ agent: n, x, y });
      this.drawAgent(pen, cell, n, x, y, film.energy(step, n) / film.energy_max, n === selected, outline);
    }
  }

  drawAgent(pen, cell, agent, x, y, energy, isSelected, outline) {
    const size = cell * 0.3;
    if (isSelected) {
      pen.strokeStyle = "#ffffff";
      pen.lineWidth = cell * 0.16;
      ring(pen, x, y, size * 1.55);
      pen.strokeStyle = "#111111";
      pen.lineWidth = cell * 0.07;
      ring(pen, x, y, size * 1.55);
    }
    pen.fillStyle = colourOf(agent, this.film.agents);
    pen.strokeStyle = outline;
    pen.lineWidth = Math.max(1, cell * 0.05);
    if (this.film.population(agent) % 2) {
      pen.fillRect(x - size, y - size, 2 * size, 2 * size);
      pen.strokeRect(x - size, y - size, 2 * size, 2 * size);
    } else {
      disc(pen, x, y, size);
      ring(pen, x, y, size);
    }
    pen.fillStyle = "#1b1b1b";
    disc(pen, x - size * 0.35, y - size * 0.2, size * 0.16);
    disc(pen, x + size * 0.35, y - size * 0.2, size * 0.16);
    pen.fillStyle = "#1b1b1b";
    pen.fillRect(x - size, y + size * 1.15, 2 * size, cell * 0.08);
    pen.fillStyle = energy > 0.5 ? "#35a853" : energy > 0.2 ? "#e8a33d" : "#d93a2b";
    pen.fillRect(x - size, y + size * 1.15, 2 * size * energy, cell * 0.08);
  }

  drawGrave(pen, cell, step, agent) {
    let since = 0;
    while (since <= MOURNING && step - since >= 0 && !this.film.isAlive(step - since, agent)) since++;
    if (since > MOURNING) return;
    const [row, column] = this.film.position(step, agent);
    pen.globalAlpha = 0.8 * (1 - since / (MOURNING + 1));
    pen.fillStyle = tone("grave");
    round(pen, (column + 0.34) * cell, (row + 0.3) * cell, cell * 0.32, cell * 0.45, cell * 0.15);
    pen.globalAlpha = 1;
  }

  drawNight(pen, cell) {
    pen.fillStyle = "rgba(12, 20, 60, 0.5)";
    pen.fillRect(0, 0, pen.canvas.width, pen.canvas.height);
    for (const [row, column] of this.film.home) {
      const [x, y] = [(column + 0.5) * cell, (row + 0.5) * cell];
      const glow = pen.createRadialGradient(x, y, 0, x, y, cell * 2.5);
      glow.addColorStop(0, "rgba(255, 210, 120, 0.75)");
      glow.addColorStop(1, "rgba(255, 210, 120, 0)");
      pen.fillStyle = glow;
      pen.fillRect(x - cell * 2.5, y - cell * 2.5, cell * 5, cell * 5);
    }
  }

  // The agent under a click, or the nearest within a cell; null if there is none
  agentAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = this.canvas.width / box.width;
    const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    const cell = this.canvas.width / this.film.width;
    const near = this.places.map((p) => [Math.hypot(p.x - x, p.y - y), p.agent]).sort((a, b) => a[0] - b[0])[0];
    return near && near[0] < cell ? near[1] : null;
  }
}

function disc(pen, x, y, radius) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 7);
  pen.fill();
}

function ring(pen, x, y, radius) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 7);
  pen.stroke();
}

function round(pen, x, y, width, height, radius) {
  pen.beginPath();
  pen.roundRect(x, y, width, height, radius);
  pen.fill();
}

function drawHome(pen, cell, row, column, roof) {
  const [x, y] = [column * cell, row * cell];
  pen.fillStyle = "#f3e3c3";
  pen.fillRect(x + cell * 0.18, y + cell * 0.45, cell * 0.64, cell * 0.48);
  pen.fillStyle = roof;
  pen.beginPath();
  pen.moveTo(x + cell * 0.05, y + cell * 0.5);
  pen.lineTo(x + cell * 0.5, y + cell * 0.08);
  pen.lineTo(x + cell * 0.95, y + cell * 0.5);
  pen.fill();
  pen.fillStyle = "#5d4327";
  pen.fillRect(x + cell * 0.42, y + cell * 0.62, cell * 0.16, cell * 0.31);
}
