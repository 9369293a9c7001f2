// A recorded episode, with its arrays taken out of their base64, and what the server is asked for.

export async function get(path) {
  const answer = await fetch(path);
  if (answer.status === 422) document.dispatchEvent(new Event("damage"));
  if (answer.ok) return answer.json();
  const isSentence = answer.headers.get("content-type")?.startsWith("text/plain"); // else it is a proxy's own page
  const message = isSentence ? await answer.text() : `the server answered ${answer.status}`;
  throw Object.assign(new Error(message), { status: answer.status });
}

export function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

export class Film {
  constructor(recording) {
    Object.assign(this, recording);
    this.cells = this.height * this.width;
    const raw = Object.fromEntries(Object.entries(recording.arrays).map(([name, text]) => [name, bytes(text)]));
    this.raw = { ...raw, text: new Uint32Array(raw.text.buffer), value: new Float32Array(raw.value.buffer) };
  }

  food(step) {
    return this.raw.food.subarray(step * this.cells, (step + 1) * this.cells);
  }

  position(step, agent) {
    const at = 2 * (step * this.agents + agent);
    return [this.raw.position[at], this.raw.position[at + 1]];
  }

  isAlive(step, agent) {
    return this.raw.is_alive[step * this.agents + agent] === 1;
  }

  energy(step, agent) {
    return (this.raw.energy[step * this.agents + agent] / 255) * this.energy_max;
  }

  eaten(step, agent) {
    return this.raw.food_eaten[step * this.agents + agent];
  }

  // The agents, first those that had eaten most in the end
  byFood() {
    const eaten = Array.from({ length: this.agents }, (_, agent) => this.eaten(this.steps, agent));
    return [...eaten.keys()].sort((a, b) => eaten[b] - eaten[a] || a - b);
  }

  isNight(step) {
    return this.raw.night[step] === 1;
  }

  population(agent) {
    return Math.floor(agent / (this.agents / this.populations));
  }

  // What an agent read and thought at a step; null at the end, and for the dead
  thought(step, agent) {
    if (step >= this.steps || !this.isAlive(step, agent)) return null;
    const at = step * this.agents + agent;
    const odds = this.raw.probability.subarray(at * this.actions.length, (at + 1) * this.actions.length);
    return {
      text: this.texts[this.raw.text[at]],
      action: this.raw.action[at],
      odds: Array.from(odds, (share) => share / 255),
      value: this.raw.value[at],
    };
  }
}
