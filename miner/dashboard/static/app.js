// The page: follows the event stream, shows when it is lost, routes between the four pages, handles the buttons.

import { $, address, age, clock, el, say, seconds, setClock, show } from "./dom.js";
import { showCards, showDay, showNow, showPreview, tickNow } from "./now.js";
import { nameWorkflows, noteNews, openHistory } from "./history.js";
import { showHealth, showLoops, showWorkflows } from "./health.js";

const SILENCE = 12; // seconds; the stream sends something every 5
const AGAIN = 2000; // milliseconds
const PAGES = ["now", "history", "workflows", "health"];
const STATES = { working: "Working", paused: "Paused", draining: "Draining" };

let source = null;
let heardAt = 0;
let latest = null; // the last `now`
let cutSince = null;

// ---- the stream -----------------------------------------------------------------------------------

const readers = {
  beat: ({ at }) => setClock(at),
  now: (now) => {
    latest = now;
    showHead();
    showNow(now);
    if (!$("page-health").hidden) showLoops(now);
  },
  preview: showPreview,
  past: (past) => {
    showDay(past);
    noteNews(past.news);
  },
  workflows: (workflows) => {
    showWorkflows(workflows);
    nameWorkflows(workflows.map((workflow) => workflow.name));
  },
  health: showHealth,
  cards: showCards,
  trouble: ({ says, cure }) => complain(`${says}. ${cure}`),
};

function connect() {
  source?.close();
  source = new EventSource("/api/events");
  heardAt = Date.now();
  for (const [name, read] of Object.entries(readers)) {
    source.addEventListener(name, (event) => {
      heard();
      read(JSON.parse(event.data));
    });
  }
  source.onerror = () => {
    cut();
    if (source.readyState === EventSource.CLOSED) askWhy();
  };
}

function heard() {
  heardAt = Date.now();
  if (cutSince === null) return;
  cutSince = null;
  show($("cut"), false);
  say($("news"), "Reconnected to the miner.");
  document.body.classList.remove("is-cut");
  if (latest) showHead();
}

function cut() {
  cutSince ??= new Date();
  document.body.classList.add("is-cut");
  const after = latest?.state === "draining" ? " It was draining, and has probably exited." : "";
  complain(`No connection to the miner since ${cutSince.toLocaleTimeString()}; retrying.${after}`);
  $("state").dataset.state = "cut";
  say($("state-word"), "Disconnected");
  $("pause").disabled = $("drain").disabled = true;
}

/** The browser gave up after an error reply: perhaps the token changed. */
async function askWhy() {
  const reply = await fetch("/api/now").catch(() => null);
  if (reply?.status === 401) location.href = "/sign-in";
  else setTimeout(connect, AGAIN);
}

function complain(text) {
  show($("cut"), true);
  say($("cut"), text);
}

// ---- the head and its buttons ---------------------------------------------------------------------

function showHead() {
  const word = STATES[latest.state];
  if ($("state").dataset.state !== latest.state && cutSince === null) say($("news"), `The miner is ${word.toLowerCase()}.`);
  $("state").dataset.state = latest.state;
  say($("state-word"), word);
  say($("says"), latest.says);
  document.title = `${word} – xalora-miner`;
  say($("pause"), latest.state === "paused" ? "Resume" : "Pause");
  $("pause").disabled = $("drain").disabled = latest.state === "draining";
  tick();
}

function tick() {
  age();
  tickNow();
  if (latest) {
    const facts = [address(latest.miner_id), `up ${seconds(clock() - latest.started_at)}`, latest.sequencer, `version ${latest.version}`];
    if ($("who").children.length !== facts.length) $("who").replaceChildren(...facts.map((fact) => el("span", {}, fact)));
    $("who").children[0].title = latest.miner_id;
    facts.forEach((fact, index) => say($("who").children[index], fact));
  }
  if (Date.now() - heardAt > SILENCE * 1000) {
    cut();
    connect();
  }
}

async function press(action) {
  try {
    const reply = await fetch(`/api/${action}`, { method: "POST", headers: { "X-Xalora-Action": "1" } });
    const body = await reply.json();
    if (!reply.ok) throw new Error(body.message);
    readers.now(body);
  } catch (error) {
    complain(`${action} failed: ${error.message}`);
  }
}

$("pause").addEventListener("click", () => press(latest.state === "paused" ? "resume" : "pause"));
$("drain").addEventListener("click", () => $("sure").showModal());
$("sure").addEventListener("close", () => {
  if ($("sure").returnValue === "drain") press("drain");
});

// ---- the pages ------------------------------------------------------------------------------------

function route(event) {
  const name = PAGES.includes(location.hash.slice(1)) ? location.hash.slice(1) : "now";
  for (const page of PAGES) show($(`page-${page}`), page === name);
  document.querySelectorAll("nav a").forEach((link) => {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  if (name === "history") openHistory();
  if (name === "health" && latest) showLoops(latest);
  if (event) {
    $(`title-${name}`).focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

addEventListener("hashchange", route);
addEventListener("pageshow", () => setInterval(tick, 500), { once: true });
route();
connect();
