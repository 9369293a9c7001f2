// The page as a whole: which run, which view, what is new, which keys.

import { AgentPanel } from "./agent.js";
import { CURVES, RUNS, STROKES, curve, distances, norms, plotly } from "./charts.js";
import { Compare } from "./compare.js";
import { element } from "./dom.js";
import { byFamily, familyTree } from "./family.js";
import { get } from "./film.js";
import { Scene, whyNoFilm } from "./scene.js";

const VIEWS = ["world", "curves", "adapters", "family", "compare"];
const EMPTY = {
  world: whyNoFilm,
  curves: () => "No generation is complete yet.\nCurves begin with the end of the first one.",
  adapters: () => "No adapters have been measured yet.\nThey are, at the end of each generation.",
  family: () => "Nobody has been born yet.",
  compare: (run) => `Nothing to compare yet.\n${whyNoFilm(run)} Give several folders, python -m dashboard RUN_DIR RUN_DIR, to compare runs.`,
};
const at = (id) => document.getElementById(id);

const page = { runs: [], run: 0, view: "world", data: new Map(), shown: new Set(), isRefused: false };
const panel = new AgentPanel(at("agent"), (slot) => scene.select(slot));
const scene = new Scene(at("scene"), (s) => panel.show(s));
const compare = new Compare(at("left"), at("right"), at("together"));

// Each part of a run is asked for once, and anew after news of it; one that is damaged counts as empty
function part(run, name) {
  const key = `${run}/${name}`;
  if (!page.data.has(key)) page.data.set(key, get(`runs/${run}/${name}`).catch(() => []));
  return page.data.get(key);
}

// What is damaged in any run; with its name where there are several
function showDamage() {
  const named = page.runs.flatMap(({ name, damage }) => damage.map((what) => (page.runs.length > 1 ? `${name}: ${what}` : what)));
  const shown = [...at("damage").children].map((line) => line.textContent);
  if (named.join("\n") !== shown.join("\n")) at("damage").replaceChildren(...named.map((line) => element("li", { textContent: line })));
  at("damage").hidden = !named.length;
}

// What the server answered instead; nothing more is asked of one that refuses, as after a restart with another token
function showRefusal({ status, message }) {
  page.isRefused = status === 403;
  at("status").textContent = page.isRefused ? "refused" : "no connection";
  at("status").className = "chip";
  if (!status) return;
  at("damage").replaceChildren(element("li", { textContent: message }));
  at("damage").hidden = false;
}

async function refreshRuns() {
  page.runs = await get("runs");
  const names = page.runs.map((run) => run.name);
  if (at("run").options.length !== names.length) {
    at("run").replaceChildren(...names.map((name, i) => element("option", { value: i, textContent: name })));
    page.shown = new Set(names.keys());
    at("runs").replaceChildren(...names.map(runBox));
  }
  const run = page.runs[page.run];
  at("status").textContent = run.status;
  at("status").className = `chip ${run.status}`;
  const facts = [`${run.preset} · seed ${run.seed} · ${run.model} · ${run.algorithm}${run.evolves ? "" : " without evolution"}`, `generation ${run.done} of ${run.generations}`];
  at("facts").textContent = "generations" in run ? facts.join(" · ") : "what it is cannot be read";
  showDamage();
  document.title = `${run.name}: Terrarium`;
}

function runBox(name, number) {
  const box = element("input", { type: "checkbox", checked: true });
  const swatch = element("span", { className: "swatch" });
  swatch.style.background = `var(--run-${number % RUNS})`;
  box.onchange = () => {
    if (box.checked) page.shown.add(number);
    else page.shown.delete(number);
    show();
  };
  return element("label", {}, [box, swatch, name]);
}

const SHOW = {
  async world() {
    const [recordings, lineage] = await Promise.all([part(page.run, "recordings"), part(page.run, "lineage")]);
    panel.setLineage(lineage.nodes ? lineage : { nodes: [] });
    if (recordings.length) await scene.show(page.run);
    return recordings.length > 0;
  },
  async curves() {
    const numbers = [...page.shown].sort((a, b) => a - b);
    const metrics = await Promise.all(numbers.map((i) => part(i, "metrics")));
    const runs = numbers.map((number, i) => ({ number, metrics: metrics[i], ...pick(page.runs[number]) }));
    const host = at("charts");
    if (!host.children.length) {
      host.append(...CURVES.map(([title, tip, keys]) => {
        const caption = element("figcaption", { textContent: title });
        caption.dataset.tip = tip;
        const strokes = keys.map(([, name], i) => element("span", {}, [element("i", { className: STROKES[i] }), name]));
        const legend = element("div", { className: "strokes" }, keys.length > 1 ? strokes : []);
        return element("figure", {}, [caption, legend, element("div", { className: "chart" })]);
      }));
    }
    if (!metrics.some((lines) => lines.length)) return page.runs.length > 1 && numbers.length === 0;
    const isKnown = ([key]) => runs.some((run) => run.metrics.some((line) => line[key] !== undefined));
    const hasFigures = ([, , keys]) => keys.some(isKnown);
    CURVES.forEach((about, i) => {
      const figure = host.children[i];
      figure.hidden = !hasFigures(about);
      [...figure.children[1].children].forEach((stroke, line) => (stroke.hidden = !isKnown(about[2][line])));
    });
    await Promise.all(CURVES.map((about, i) => hasFigures(about) && curve(host.children[i].lastChild, about, runs, at("axis").value)));
    return true;
  },
  async adapters() {
    const [lines, lineage] = await Promise.all([part(page.run, "adapters"), part(page.run, "lineage")]);
    if (!lines.length) return false;
    const slider = at("when");
    const isAtEnd = Number(slider.value) >= Number(slider.max);
    slider.max = lines.length - 1;
    if (isAtEnd) slider.value = slider.max;
    const line = lines[Number(slider.value)];
    at("when-value").textContent = line.generation;
    const kinds = ["all", ...line.modules];
    if (at("module").options.length !== kinds.length) at("module").replaceChildren(...kinds.map((kind) => element("option", { textContent: kind })));
    const module = at("module").value || "all";
    const order = byFamily(line.ids, lineage.nodes ?? []);
    const place = line.modules.indexOf(module);
    const most = Math.max(...lines.flatMap((l) => l.norms.flat().map((row) => (place < 0 ? Math.hypot(...row) : row[place]))));
    await Promise.all([norms(at("norms"), line, module, order, most), distances(at("distances"), line, order)]);
    return true;
  },
  async family() {
    const lineage = await part(page.run, "lineage");
    if (!lineage.nodes?.length) return false;
    at("family-note").textContent = `${lineage.nodes.length} individuals; the champion's line: ${lineage.champion.join(" → ") || "not known yet"}`;
    await familyTree(at("tree"), lineage, visit);
    return true;
  },
  async compare() {
    const recordings = await Promise.all(page.runs.map((_, run) => part(run, "recordings")));
    const isFull = recordings.some((of) => of.length);
    if (isFull) await compare.show(page.runs, page.run);
    return isFull;
  },
};

function pick({ name, baselines }) {
  return { name, baselines };
}

// To the world, where this individual can be seen
async function visit(id) {
  const recordings = await part(page.run, "recordings");
  const { nodes } = await part(page.run, "lineage");
  const node = nodes.find((n) => n.id === id);
  const lived = Object.keys(node.fitness).map(Number);
  const recording = recordings.find((r) => r.kind === "rollout" && lived.includes(r.generation));
  if (!recording) return;
  open("world");
  await scene.show(page.run);
  scene.setFollow(false);
  await scene.choose(`rollout:${recording.generation}`);
  if (scene.film) scene.select(scene.film.ids.indexOf(id));
}

async function show() {
  const { view } = page;
  for (const name of VIEWS) {
    at(name).hidden = name !== view;
    document.querySelector(`[data-view="${name}"]`).setAttribute("aria-selected", name === view);
  }
  const isFull = await SHOW[view]().catch((error) => {
    console.info(error); // a file that can be read, but holds something else than it should
    return false;
  });
  if (view !== page.view || !page.runs.length) return; // another was chosen meanwhile, or a key came before the runs
  at(view).hidden = !isFull;
  at("empty").hidden = isFull;
  const run = page.runs[page.run];
  at("empty").textContent = run.damage.length ? "There is nothing to show yet, or it is damaged, as said above." : EMPTY[view](run);
}

function open(view) {
  page.view = view;
  if (location.hash !== `#${view}`) history.replaceState(null, "", `#${view}`);
  return show();
}

function listen() {
  const news = new URL("news", location.href);
  news.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(news);
  socket.onmessage = async (message) => {
    const { changed } = JSON.parse(message.data);
    for (const [run, parts] of Object.entries(changed)) {
      for (const name of parts) page.data.delete(`${run}/${name}`);
    }
    await refreshRuns();
    await show();
  };
  socket.onclose = () => setTimeout(async () => {
    page.data.clear();
    await refreshRuns().then(show, showRefusal);
    if (!page.isRefused) listen();
  }, 3000);
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
  if (page.runs.length) show();
  for (const { player } of [scene, compare]) player.show();
}

const KEYS = {
  " ": () => playing().setPlaying(!playing().isPlaying),
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
  "[": () => scene.turnPage(-1),
  "]": () => scene.turnPage(1),
  a: () => turn(1),
  A: () => turn(-1),
  "+": () => playing().changeSpeed(1),
  "-": () => playing().changeSpeed(-1),
  t: () => at("theme").click(),
  "?": () => at("keys").showModal(),
};

function step(by) {
  playing().setPlaying(false);
  playing().seek(playing().step + by);
}

function playing() {
  return page.view === "compare" ? compare.player : scene.player;
}

function turn(by) {
  if (scene.film) scene.select((scene.agent + by + scene.film.agents) % scene.film.agents);
}

function onKey(event) {
  const isTyping = event.target.matches("select, input") && !["[", "]", "?"].includes(event.key);
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || at("keys").open) return;
  if (event.target.matches("button") && event.key === " ") return;
  if (event.key >= "1" && event.key <= "5") open(VIEWS[event.key - 1]);
  else if (KEYS[event.key]) KEYS[event.key]();
  else return;
  event.preventDefault();
}

// Explanations on hover, on focus, and, as a finger has no hover, on touch
function explain() {
  const tip = element("div", { id: "tip", hidden: true });
  document.body.append(tip);
  const about = (event) => {
    const explained = event.target.closest?.("[data-tip]");
    tip.hidden = !explained;
    if (!explained) return;
    tip.textContent = explained.dataset.tip;
    const box = explained.getBoundingClientRect();
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(6, Math.min(box.left, innerWidth - width - 6))}px`;
    tip.style.top = `${box.bottom + height + 10 > innerHeight ? box.top - height - 6 : box.bottom + 6}px`;
  };
  document.addEventListener("mouseover", about);
  document.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && about(event));
  for (const kind of ["mouseout", "focusout", "scroll", "mousedown", "keydown"]) document.addEventListener(kind, () => (tip.hidden = true), true);
}

async function begin() {
  setTheme(localStorage.getItem("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  for (const button of document.querySelectorAll("[data-view]")) button.onclick = () => open(button.dataset.view);
  at("theme").onclick = () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  at("help").onclick = () => at("keys").showModal();
  at("axis").onchange = at("when").oninput = at("module").onchange = show;
  at("run").onchange = async () => {
    page.run = Number(at("run").value);
    await refreshRuns();
    show();
  };
  document.addEventListener("keydown", onKey);
  document.addEventListener("damage", () => refreshRuns().catch(() => null)); // `get` has met some that was not known
  if (location.search) history.replaceState(null, "", location.pathname + location.hash); // the token is in a cookie now
  addEventListener("hashchange", () => VIEWS.includes(location.hash.slice(1)) && open(location.hash.slice(1)));
  explain();
  await refreshRuns();
  listen();
  await open(VIEWS.includes(location.hash.slice(1)) ? location.hash.slice(1) : "world");
  setInterval(() => page.isRefused || refreshRuns().catch(showRefusal), 15000); // a run that is interrupted writes no news
  plotly();
}

begin();
