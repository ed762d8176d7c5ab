// The page "Now": a card per lane, figures of the last day, latest pictures, GPUs.

import { $, ago, bytes, clock, el, percent, say, seconds, short, show, thumbnail } from "./dom.js";
import { chart } from "./chart.js";

const STAGES = ["prepare", "queue", "render", "deliver"];
const DOING = { prepare: "Preparing", queue: "In ComfyUI's queue", render: "Rendering", deliver: "Delivering", answer: "Answering" };
const lanes = new Map();
let older = null; // the tasks that were rendering when this page was opened

const capital = (text) => `${text.slice(0, 1).toUpperCase()}${text.slice(1)}`;

/** The task to show for the lane: the furthest. */
function foremost(tasks) {
  const order = ["render", "deliver", "queue", "prepare", "answer"];
  return [...tasks].sort((a, b) => order.indexOf(a.stage) - order.indexOf(b.stage))[0];
}

class LaneCard {
  constructor(name) {
    this.task = null;
    this.title = el("h3", {});
    this.device = el("p", { className: "quiet" });
    this.picture = el("img", { className: "preview", alt: "Preview of the render", hidden: true });
    this.blank = el("div", { className: "preview blank", "aria-hidden": "true" }, el("span", {}));
    this.screen = el("div", { className: "screen" }, this.picture, this.blank);
    this.steps = el("ol", { className: "steps" }, ...STAGES.map((stage) => el("li", { className: stage }, stage)));
    this.whole = this.bar("Whole task");
    this.node = this.bar("Current node");
    this.left = el("p", { className: "left" });
    this.others = el("ul", { className: "others" });
    this.busy = el("div", { className: "busy" }, this.steps, this.whole.row, this.node.row, this.left, this.others);
    this.idle = el("p", { className: "idle" });
    this.root = el("article", { className: "lane", "aria-label": `Lane ${name}` },
      this.screen,
      el("div", { className: "detail" }, this.device, this.title, this.idle, this.busy));
  }

  bar(title) {
    const value = el("span", { className: "value" });
    const progress = el("progress", { max: 1, value: 0, "aria-label": title });
    const row = el("div", { className: "progress" }, el("span", {}, title), value, progress);
    return { row, value, progress };
  }

  update(lane, alone) {
    this.lane = lane;
    this.task = foremost(lane.tasks) ?? null;
    const device = [alone ? "" : `Lane ${lane.name}`, lane.device, lane.comfyui_version && `ComfyUI ${lane.comfyui_version}`];
    say(this.device, device.filter(Boolean).join(" · "));
    show(this.busy, this.task);
    show(this.idle, !this.task);
    show(this.screen, this.task);
    this.root.classList.toggle("away", !lane.comfyui_ready);
    if (this.task) this.showTask(this.task, lane.tasks);
    else {
      say(this.title, lane.comfyui_ready ? "Idle" : "ComfyUI is not ready");
      say(this.idle, alone ? "The next task appears here." : `${capital(lane.says)}.`);
      this.show("");
    }
    this.tick();
  }

  showTask(task, tasks) {
    say(this.title, [task.task_type, task.workflow].filter(Boolean).join(" · ") || "a task");
    const reached = task.stage === "answer" ? STAGES.length : STAGES.indexOf(task.stage);
    [...this.steps.children].forEach((step, index) => {
      step.classList.toggle("past", index < reached);
      if (index === reached) step.setAttribute("aria-current", "step");
      else step.removeAttribute("aria-current");
    });
    const rendering = task.stage === "render";
    show(this.whole.row, rendering);
    show(this.node.row, rendering && task.steps > 1);
    this.whole.progress.value = task.share ?? 0;
    say(this.whole.value, percent(task.share ?? 0));
    this.node.progress.max = task.steps || 1;
    this.node.progress.value = task.step ?? 0;
    say(this.node.value, `${task.step ?? 0} of ${task.steps ?? 1}`);
    if (!rendering) this.show("");
    const others = tasks.filter((other) => other !== task);
    const lines = others.map((other) => `${DOING[other.stage]}: ${[other.workflow || other.task_type, short(other.task_id, 9)].join(" ")}`);
    if (lines.join() !== [...this.others.children].map((line) => line.textContent).join()) {
      this.others.replaceChildren(...lines.map((line) => el("li", {}, line)));
    }
    show(this.others, lines.length);
  }

  show(src) {
    if (src && this.task?.stage !== "render") return;
    if (src) this.picture.src = src;
    show(this.picture, src);
    show(this.blank, !src);
    // ComfyUI decides when a render starts whether to draw previews, and the miner wants them only for an open page
    const words = older?.has(this.task?.task_id) ? "previews begin with the next task" : "no preview yet";
    say(this.blank.firstChild, this.task ? words : "");
  }

  /** Update the times. */
  tick() {
    const task = this.task;
    if (!task) return;
    const taken = Math.max(clock() - task.since, 0);
    const left = task.usual_seconds - taken;
    let words = `${DOING[task.stage]} ${short(task.task_id, 9)} for ${seconds(taken)}`;
    if (task.stage === "render" && task.usual_seconds) {
      words += left > 0 ? `, about ${seconds(left)} left` : `; usually ${seconds(task.usual_seconds)}`;
    }
    say(this.left, words);
  }
}

export function showNow(now) {
  older ??= new Set(now.lanes.flatMap((lane) => lane.tasks).filter((task) => task.stage === "render").map((task) => task.task_id));
  const list = $("lanes");
  const names = new Set(now.lanes.map((lane) => lane.name));
  for (const [name, card] of lanes) {
    if (!names.has(name)) {
      card.root.remove();
      lanes.delete(name);
    }
  }
  for (const lane of now.lanes) {
    if (!lanes.has(lane.name)) {
      const card = new LaneCard(lane.name);
      lanes.set(lane.name, card);
      list.append(card.root);
    }
    lanes.get(lane.name).update(lane, now.lanes.length === 1);
  }
}

export function showPreview({ lane, src }) {
  lanes.get(lane)?.show(src);
}

export function tickNow() {
  lanes.forEach((card) => card.tick());
}

export function showDay(past) {
  const day = past.day;
  const ended = day.done + day.failed;
  const figures = [
    ["Done", day.done], ["Failed", day.failed], ["Refused", day.refused], ["Lost", day.lost],
    ["Success", ended ? percent(day.done / ended) : "–"], ["Rendering", seconds(day.render_seconds)],
  ];
  $("figures").replaceChildren(...figures.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value)))));
  const pictures = past.latest.map((task) => el("li", {}, thumbnail(task),
    el("p", {}, el("strong", {}, task.workflow), " ", ago(task.ended_at))));
  $("latest").replaceChildren(...pictures);
  show($("latest"), pictures.length);
  show($("no-latest"), !pictures.length);
}

export function showCards(cards) {
  $("cards").replaceChildren(...cards.map((card) => {
    const points = (key) => card.samples.map((sample) => [sample.at, sample[key]]);
    return el("section", { className: "gpu", "aria-label": `GPU ${card.index}` },
      el("h3", {}, `GPU ${card.index}: ${card.name}`),
      el("div", { className: "charts" }, ...[
        chart({ title: "Load", points: points("load"), most: 1, text: percent }),
        chart({ title: "Memory", points: points("memory"), most: card.memory_total, text: bytes }),
        chart({ title: "Temperature", points: points("temperature"), most: 100, text: (value) => `${Math.round(value)} °C` }),
        chart({ title: "Power", points: points("power"), text: (value) => `${Math.round(value)} W` }),
      ].filter(Boolean)));
  }));
}
