// The page: what the reader chooses and types, and the pictures of the present step.

import { html } from "./dom.js";
import { instanceText } from "./instance.js";
import { hasMemory, makeNetwork } from "./network.js";
import { drawOutputs } from "./outputs.js";
import { drawMap, drawNumbers, mapRow } from "./pictures.js";
import { Run } from "./run.js";
import { getTask, InstanceError } from "./tasks.js";
import { drawTree, pathProbability, pathRows, percent } from "./tree.js";

const LENGTHS = [8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024];
const MOST_CELLS = 1024;
/** Leaves of a data structure that is empty at first. */
const LEAVES_AT_FIRST = 8;
/** Longest share of a frame for computing, in milliseconds. */
const SLICE = 14;
/** Least time between two drawings of a run that is being computed, in milliseconds. */
const BETWEEN_DRAWINGS = 150;
const SLOWEST_STEP = 950;
const LONGEST_PLAY = 24_000;
const LONGEST_LINK = 1500;

const models = globalThis.lightningHamModels;
const networks = new Map();
const find = (id) => document.getElementById(id);
const state = { model: null, task: null, run: null, others: [], step: 0, isPlaying: false, timer: 0, leaves: 1, drawn: -Infinity };

/** Return the network of an exported model, made once. */
function networkOf(model) {
  if (!networks.has(model)) networks.set(model, makeNetwork(model));
  return networks.get(model);
}

/** Answer an instance, given as a value or as text: the answer, and what each access did. For tests and consoles. */
function solve(name, instance) {
  const model = models.find((candidate) => candidate.name === name);
  if (!model) throw new Error(`Expected one of ${models.map((candidate) => candidate.name).join(", ")}, but got ${name}.`);
  const task = getTask(model.task);
  const read = checked(task, typeof instance === "string" ? instance : instanceText(instance));
  const run = new Run(networkOf(model), task, read);
  run.advance();
  const steps = run.steps.map((step) => ({ leaf: step.leaf, right: step.right && [...step.right] }));
  return { answer: instanceText(run.answer), outputs: run.outputs, numLeaves: run.capacity, steps, wrong: run.wrong };
}

/** Return the instance in a text, if it is one of the task. */
function checked(task, text) {
  const instance = task.read(text);
  task.check(instance);
  if (task.length(instance) > MOST_CELLS) {
    throw new InstanceError(
      `Expected at most ${MOST_CELLS.toLocaleString("en")} cells on this page, but got ${task.length(instance).toLocaleString("en")}; ` +
        "python -m lightning_ham.solve takes more.",
    );
  }
  return instance;
}

/** Models with a choice on the page: all but those that only stand beside another model of their task. */
function chosenModels() {
  return models.filter((model) => !isBeside(model));
}

function isBeside(model) {
  return !hasMemory(model) && models.some((other) => other.task === model.task && hasMemory(other));
}

function titleOf(model) {
  const isAlone = chosenModels().filter((other) => other.task === model.task).length === 1;
  return isAlone ? getTask(model.task).title : model.name;
}

/** How a model beside another one is called. */
function kindOf(model) {
  return { lstm: "LSTM, no memory", lstm_attention: "LSTM with attention" }[model.config.controller] ?? model.name;
}

// What the reader does.

function choose(model, text) {
  state.model = model;
  state.task = getTask(model.task);
  const { task } = state;
  for (const input of find("models").querySelectorAll("input")) input.checked = input.value === model.name;
  find("purpose").textContent = task.purpose;
  find("instance-form-words").textContent = `As JSON: ${task.form}.`;
  find("instance-label").textContent = task.isStructure ? "Operations" : "Instance";
  find("operations").hidden = !task.isStructure;
  find("operands").replaceChildren(
    ...(task.operands ?? []).map((name) =>
      html("label", {}, name, html("input", { type: "number", min: 0, max: 31, value: 7, id: `operand-${name}`, required: "" })),
    ),
  );
  document.title = `${task.title} · Watch a learned algorithm`;
  drawAbout();
  if (!submit(text ?? task.example)) start(checked(task, task.example));
}

/** Run the instance in a text and return true, or say what is wrong with it. */
function submit(text) {
  if (find("instance").value !== text) find("instance").value = text;
  try {
    const instance = checked(state.task, text);
    complain("");
    state.leaves = 1;
    start(instance);
    return true;
  } catch (error) {
    if (!(error instanceof InstanceError)) throw error;
    complain(error.message);
    return false;
  }
}

function complain(message) {
  find("problem").textContent = message;
  find("instance").setAttribute("aria-invalid", String(Boolean(message)));
}

/** Begin a run, and go on with it between frames. */
function start(instance, step = 0) {
  pause();
  state.run = new Run(networkOf(state.model), state.task, instance, state.leaves);
  state.others = models
    .filter((model) => model !== state.model && model.task === state.model.task && isBeside(model))
    .map((model) => ({ model, run: new Run(networkOf(model), state.task, instance) }));
  state.step = step;
  showLength();
  remember();
  state.drawn = -Infinity;
  proceed(state.run);
}

function proceed(run) {
  if (run !== state.run) return;
  const unfinished = [run, ...state.others.map((other) => other.run)].find((candidate) => !candidate.isDone);
  unfinished?.advance(SLICE);
  if (!unfinished || performance.now() - state.drawn > BETWEEN_DRAWINGS) draw();
  if (unfinished) setTimeout(() => proceed(run));
}

function operate(operation) {
  const { run, task } = state;
  const instance = [...run.instance, operation];
  try {
    task.check(instance);
    checked(task, instanceText(instance));
  } catch (error) {
    if (!(error instanceof InstanceError)) throw error;
    complain(error.message);
    return;
  }
  complain("");
  pause();
  find("instance").value = instanceText(instance);
  state.isMoving = true;
  if (run.isDone && run.operate(operation)) {
    state.step = run.length - 1;
    showLength();
    remember();
    draw();
  } else {
    start(instance, instance.length - 1);
  }
}

function shuffle(length) {
  const least = state.task.minLength;
  submit(instanceText(state.task.sample(Math.max(length, least), Math.random)));
}

function go(step, isMoving = false) {
  const { run } = state;
  state.step = Math.max(0, Math.min(step, run.steps.length - 1));
  state.isMoving = isMoving;
  draw();
}

function play() {
  if (state.isPlaying) return pause();
  state.isPlaying = true;
  if (state.step >= state.run.length - 1) state.step = -1;
  return tick();
}

function tick() {
  const pauseBetween = Math.min(SLOWEST_STEP, LONGEST_PLAY / state.run.length);
  const stride = Math.max(1, Math.round(25 / pauseBetween));
  go(state.step + stride, pauseBetween > 400);
  if (state.step >= state.run.length - 1) return pause();
  state.timer = setTimeout(tick, pauseBetween * stride);
  return undefined;
}

function pause() {
  clearTimeout(state.timer);
  state.isPlaying = false;
  if (state.run) drawControls();
}

/** Put model and instance into the address, so that it can be passed on. */
function remember() {
  if (find("problem").textContent) return;
  const text = encodeURIComponent(find("instance").value);
  const address = `#${encodeURIComponent(state.model.name)}${text.length <= LONGEST_LINK ? `/${text}` : ""}`;
  history.replaceState(null, "", address);
}

/** The model and the text that an address names. */
function remembered() {
  const [name, text] = location.hash.slice(1).split("/").map(decoded);
  return { model: chosenModels().find((model) => model.name === name) ?? chosenModels()[0], text };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

// What the page shows.

function draw() {
  const { run, task } = state;
  const step = run.steps[state.step];
  const isTree = hasMemory(state.model);
  find("memory").hidden = !isTree;
  find("words").replaceChildren(...sentence(step));
  if (isTree) {
    const visits = new Set(run.steps.slice(0, state.step).map((earlier) => earlier.leaf));
    drawTree(find("tree"), {
      width: find("tree").parentElement.clientWidth,
      numLeaves: run.capacity,
      step,
      ...leafTexts(visits),
      groups: task.groups?.(run.instance),
    });
    find("details").hidden = !step;
    if (step) drawDetails(step);
  }
  find("stage").classList.toggle("moving", Boolean(state.isMoving));
  drawControls();
  drawVerdict();
  drawOutputs(find("outputs"), {
    timesteps: run.timesteps,
    current: step?.timestep ?? 0,
    rows: outputRows(),
    go: (timestep) => go((timestep + 1) * Math.max(run.network.accesses, 1) - 1),
  });
  if (task.isStructure) drawInside();
  state.drawn = performance.now();
}

/** Labels and classes of the leaves at the present step. */
function leafTexts(visits) {
  const { run, task } = state;
  if (!task.isStructure) {
    const labels = task.labels(run.instance);
    const kinds = Array.from({ length: run.capacity }, (_, i) => (i >= labels.length ? "blank" : visits.has(i) ? "visited" : ""));
    return { labels, kinds };
  }
  const labels = Array(run.capacity).fill(null);
  const steps = run.steps.slice(0, state.step + 1);
  for (const { leaf, content, timestep } of steps) {
    const isPopped = timestep === state.step && run.instance[timestep][0] === "pop"; // shown as it was read
    if (!isPopped) labels[leaf] = task.content([...content].map((logit) => (logit > 0 ? 1 : 0)));
  }
  return { labels, kinds: labels.map((label) => (label ? "holds" : "blank")) };
}

/** Say in words what happens at a step. */
function sentence(step) {
  const { run, task } = state;
  if (!step) return [task.isStructure && !run.timesteps ? "The structure is empty. Push something." : "Computing."];
  const { timestep } = step;
  const said = [];
  if (task.isStructure) said.push(html("strong", {}, run.instance[timestep].join(" ")), ": ");
  if (hasMemory(state.model)) said.push(said.length ? descent(step).replace("G", "g") : descent(step));
  if (!step.output) return [...said, " The next descent will complete the output."];
  const right = run.rightWords[timestep];
  const word = run.word(timestep);
  if (right === null) said.push(task.isStructure ? " It puts out nothing that counts." : " Nothing is put out yet.");
  else if (word === right) said.push(" It puts out ", html("strong", {}, word), word === "end" ? ", and is done." : ", which is right.");
  else said.push(" It puts out ", html("strong", {}, word), ", which is wrong: ", html("strong", {}, right), " is right.");
  return said;
}

/** Say which way a descent goes. */
function descent(step) {
  const { run, task } = state;
  const turns = pathRows(run.capacity, step.leaf).map((row) => (row & 1 ? "right" : "left"));
  const label = task.isStructure ? null : task.labels(run.instance)[step.leaf]?.join(", ");
  const where = label === undefined ? "a blank leaf" : `leaf ${step.leaf + 1}${label ? ` (${label})` : ""}`;
  const way = turns.length ? `Goes ${turns.join(", ")} to ${where}` : `Goes nowhere: there is only ${where}`;
  return `${way}, with probability ${percent(pathProbability(step))}.`;
}

function drawDetails(step) {
  drawMap(find("map"), state.run, state.step);
  const scale = Math.max(...[...step.read, ...step.written].map(Math.abs), 0.01);
  drawNumbers(find("read"), step.read, scale);
  drawNumbers(find("written"), step.written, scale);
}

function drawControls() {
  const { run } = state;
  const last = Math.max(run.length - 1, 0);
  const scrubber = find("step");
  scrubber.max = last;
  scrubber.value = Math.max(state.step, 0);
  const place = `${(run.length ? state.step + 1 : 0).toLocaleString("en")} of ${run.length.toLocaleString("en")}`;
  find("place").textContent = place;
  scrubber.setAttribute("aria-valuetext", `step ${place}`);
  for (const id of ["first", "previous"]) find(id).disabled = state.step <= 0;
  for (const id of ["next", "last"]) find(id).disabled = state.step >= last;
  find("play").disabled = run.length < 2;
  find("play").setAttribute("aria-label", state.isPlaying ? "Pause" : "Play");
  find("play").toggleAttribute("data-playing", state.isPlaying);
}

function drawVerdict() {
  const parts = [[networkName(), state.run], ...state.others.map(({ model, run }) => [kindOf(model), run])];
  find("verdict").replaceChildren(...parts.map(([name, run]) => verdict(name, run)));
}

/** What to call the network that the page plays. */
function networkName() {
  return hasMemory(state.model) ? "This network" : kindOf(state.model);
}

/** How many outputs of a run are right, and a button that leads to the first wrong one. */
function verdict(name, run) {
  const { wrong, scored } = run;
  if (!run.isDone) return html("span", {}, `${name}: ${run.outputs.length} of ${run.timesteps.toLocaleString("en")} computed`);
  if (!scored) return html("span", {}, `${name}: no output that counts yet`);
  if (!wrong.length) return html("span", {}, `${name}: ${scored > 1 ? `all ${scored.toLocaleString("en")} outputs` : "the output is"} right`);
  const isFirst = run === state.run;
  const text = `${name}: ${wrong.length.toLocaleString("en")} of ${scored.toLocaleString("en")} outputs wrong, first at ${wrong[0] + 1}`;
  const button = html("button", { type: "button", class: "quiet" }, isFirst ? "Next wrong one" : "Go there");
  button.addEventListener("click", () => {
    const now = state.run.steps[state.step]?.timestep ?? -1;
    const next = isFirst ? (wrong.find((timestep) => timestep > now) ?? wrong[0]) : wrong[0];
    go((next + 1) * Math.max(state.run.network.accesses, 1) - 1);
  });
  return html("span", {}, html("span", { class: "bad" }, text), button);
}

function outputRows() {
  const { run, task, others } = state;
  const words = (of) => of.outputs.map((_, timestep) => of.word(timestep));
  const never = () => false;
  return [
    ...(task.isStructure ? [{ title: "operation", words: run.instance.map((operation) => operation.join(" ")), isWrong: never }] : []),
    { title: "this network", words: words(run), isWrong: (timestep) => run.isWrong(timestep), comesLater: true },
    { title: "right answer", words: run.rightWords, isWrong: never },
    ...others.map((other) => ({
      title: kindOf(other.model),
      words: words(other.run),
      isWrong: (timestep) => other.run.isWrong(timestep),
      comesLater: true,
    })),
  ];
}

function drawInside() {
  const { run, task } = state;
  const inside = run.timesteps ? task.contents(run.instance)[state.step + 1] : [];
  const shown = inside.slice(0, 12).map((operands) => html("b", {}, operands.join(", ")));
  if (inside.length > 12) shown.push(`and ${inside.length - 12} more`);
  find("inside").replaceChildren(...(inside.length ? shown : ["nothing"]));
  find("pop").disabled = !task.contents(run.instance).at(-1).length;
}

function showLength() {
  const length = state.run.cells.length;
  const place = LENGTHS.findLastIndex((stop) => stop <= length);
  find("length").value = Math.max(place, 0);
  find("length-words").textContent = state.task.size(length);
  find("length").setAttribute("aria-valuetext", state.task.size(length));
}

/** What training told a model. */
function supervisionWords(kinds) {
  const known = { echo: "an echo of what is read", state: "the state of each leaf", guide: "the leaf to go to", hints: "hints" };
  const more = kinds.filter((kind) => kind !== "answers").map((kind) => known[kind] ?? kind);
  if (!more.length) return kinds.length ? "the right answers only" : "";
  return `the right answers, with ${more.join(", ").replace(/, ([^,]*)$/, " and $1")}`;
}

function drawAbout() {
  const { model } = state;
  const parameters = Object.values(model.weights).reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0);
  const controllers = { lstm_ham: "an LSTM that walks the tree", raw_ham: "the tree alone, without an LSTM" };
  const wrong = Object.entries(model.results).map(([lengths, share]) => `${percent(share)} at lengths ${lengths}`);
  const facts = {
    Name: model.name,
    Network: `${controllers[model.config.controller] ?? kindOf(model)}, ${parameters.toLocaleString("en")} parameters`,
    "Learned from": supervisionWords(model.supervision),
    "Wrong sequences": wrong.join(", "),
  };
  for (const other of models.filter((candidate) => candidate.task === model.task && isBeside(candidate))) {
    const shares = Object.entries(other.results).map(([lengths, share]) => `${percent(share)} at lengths ${lengths}`);
    facts[`Beside it: ${kindOf(other)}`] = shares.length ? `wrong sequences: ${shares.join(", ")}` : other.name;
  }
  find("about").replaceChildren(
    ...Object.entries(facts).filter(([, text]) => text).flatMap(([name, text]) => [html("dt", {}, name), html("dd", {}, text)]),
  );
}

// Light and dark.

const darkness = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : darkness.matches;
}

function showTheme() {
  find("theme").textContent = isDark() ? "Light" : "Dark";
  find("theme").setAttribute("aria-label", isDark() ? "Switch to light colours" : "Switch to dark colours");
  if (state.run) draw();
}

/** Keep a choice between visits, where the browser allows it. */
function stored(name, value) {
  try {
    if (value !== undefined) localStorage.setItem(name, value);
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

// Where events come from.

/** Keys anywhere but in fields that use them for themselves. */
function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("textarea, input, select")) return;
  if (event.key === " " && event.target.matches("button, a, label")) return;
  const actions = {
    ArrowRight: () => stepBy(1),
    ArrowLeft: () => stepBy(-1),
    Home: () => stepTo(0),
    End: () => stepTo(state.run.length - 1),
    " ": play,
  };
  if (!actions[event.key]) return;
  event.preventDefault();
  actions[event.key]();
}

function stepBy(difference) {
  stepTo(state.step + difference, true);
}

function stepTo(step, isMoving = false) {
  pause();
  go(step, isMoving);
}

function followMap(event) {
  if (event.type === "pointermove" && !event.buttons) return;
  const y = event.clientY - find("map").getBoundingClientRect().top;
  stepTo(Math.floor(y / mapRow(state.run.length)));
}

function listen() {
  find("instance-form").addEventListener("submit", (event) => {
    event.preventDefault();
    submit(find("instance").value);
  });
  find("instance").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit(find("instance").value);
  });
  find("shuffle").addEventListener("click", () => shuffle(state.run.cells.length));
  find("length").max = LENGTHS.length - 1;
  find("length").addEventListener("input", (event) => shuffle(LENGTHS[event.target.value]));
  find("operations").addEventListener("submit", (event) => {
    event.preventDefault();
    operate(["push", ...state.task.operands.map((name) => find(`operand-${name}`).valueAsNumber)]);
  });
  find("pop").addEventListener("click", () => operate(["pop"]));
  find("clear").addEventListener("click", () => {
    complain("");
    find("instance").value = "";
    state.leaves = LEAVES_AT_FIRST;
    start([]);
  });
  find("first").addEventListener("click", () => stepTo(0));
  find("previous").addEventListener("click", () => stepBy(-1));
  find("play").addEventListener("click", play);
  find("next").addEventListener("click", () => stepBy(1));
  find("last").addEventListener("click", () => stepTo(state.run.length - 1));
  find("step").addEventListener("input", (event) => stepTo(Number(event.target.value)));
  find("map").addEventListener("pointerdown", followMap);
  find("map").addEventListener("pointermove", followMap);
  find("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = stored("theme", isDark() ? "light" : "dark") ?? (isDark() ? "light" : "dark");
    showTheme();
  });
  document.addEventListener("keydown", press);
  darkness.addEventListener("change", showTheme);
  let width = 0;
  new ResizeObserver(([{ contentRect }]) => {
    if (contentRect.width === width) return;
    ({ width } = contentRect);
    state.isMoving = false;
    if (state.run) draw();
  }).observe(find("stage"));
  addEventListener("hashchange", () => {
    const { model, text } = remembered();
    choose(model, text);
  });
}

function begin() {
  const chosen = stored("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
  showTheme();
  for (const model of chosenModels()) {
    const input = html("input", { type: "radio", name: "model", value: model.name });
    input.addEventListener("change", () => choose(model));
    find("models").append(html("label", {}, input, html("span", {}, titleOf(model))));
  }
  listen();
  const { model, text } = remembered();
  choose(model, text);
}

globalThis.lightningHam = { models: models.map(({ name }) => name), solve };
begin();
