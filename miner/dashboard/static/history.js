// The page "History": recent tasks from the journal, filtered and paged.

import { $, WORDS, ago, bytes, el, seconds, short, show, thumbnail } from "./dom.js";

const STAGES = ["prepare", "queue", "render", "deliver"];
let news = null; // shown
let wanted = null; // latest

const chosen = () => Object.fromEntries([...new FormData($("filters"))].filter(([, value]) => value));

function stages(task) {
  const known = STAGES.filter((stage) => task.seconds[stage] !== null);
  if (!known.length) return null;
  const bar = el("div", { className: "stages", "aria-hidden": "true" }, ...known.map((stage) => {
    const part = el("span", { className: stage });
    part.style.flexGrow = Math.max(task.seconds[stage] / (task.seconds.total || 1), 0.02) * 100;
    return part;
  }));
  const words = known.map((stage) => el("span", { className: stage }, `${stage} ${seconds(task.seconds[stage])}`));
  return el("div", { className: "took" }, bar, el("p", { className: "quiet" }, ...words));
}

function row(task) {
  const size = [task.pixels && `${task.pixels[0]} × ${task.pixels[1]}`, task.size && bytes(task.size)].filter(Boolean).join(", ");
  return el("li", {}, thumbnail(task),
    el("div", { className: "what" },
      el("p", { className: "headline" },
        el("span", { className: `tag ${task.outcome}` }, WORDS[task.outcome]),
        el("strong", {}, task.workflow || task.task_type || "unknown"), ago(task.ended_at)),
      el("p", { className: "quiet" }, el("code", { title: task.task_id }, short(task.task_id)),
        size && ` · ${size}`, task.seconds.total !== null ? ` · ${seconds(task.seconds.total)} total` : ""),
      task.reason && el("p", { className: "reason", title: task.reason }, task.reason)),
    stages(task));
}

async function load(before) {
  const query = new URLSearchParams({ ...chosen(), ...(before ? { before } : {}) });
  const reply = await fetch(`/api/history?${query}`);
  if (!reply.ok) throw new Error((await reply.json()).message);
  const { tasks, more } = await reply.json();
  const rows = tasks.map(row);
  if (before) $("past").append(...rows);
  else $("past").replaceChildren(...rows);
  show($("more"), more);
  $("more").dataset.before = tasks.at(-1)?.ended_at ?? "";
  const nothing = !before && !tasks.length;
  show($("no-past"), nothing);
  $("no-past").textContent = Object.keys(chosen()).length
    ? "No recent task matches these filters."
    : "No finished tasks yet.";
}

async function refresh() {
  news = wanted;
  try {
    await load();
  } catch {
    news = null; // the stream shows the lost connection; the next news retries
  }
}

/** Fetch news while the page is visible, but keep its older rows. */
export function noteNews(number) {
  wanted = number;
  const reading = $("past").children.length > 40;
  if (!$("page-history").hidden && news !== wanted && !reading) refresh();
}

export function openHistory() {
  if (news !== wanted || news === null) refresh();
}

export function nameWorkflows(names) {
  const select = $("filters").elements.workflow;
  const old = [...select.options].slice(1).map((option) => option.value);
  if (old.join() === names.join()) return;
  select.replaceChildren(select.options[0], ...names.map((name) => el("option", { value: name }, name)));
}

$("filters").addEventListener("change", refresh);
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("more").addEventListener("click", () => load($("more").dataset.before).catch(() => {}));
