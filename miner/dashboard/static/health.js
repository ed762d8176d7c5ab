// The pages "Workflows" and "Health".

import { $, clock, el, say, seconds, show } from "./dom.js";

const STATES = {
  offered: ["good", "Advertised"], resting: ["warning", "Paused after failures"], "not runnable": ["bad", "Cannot run here"],
  unknown: ["note", "Not checked yet"], "not enabled": ["off", "Not enabled"],
};
const SIGNS = { good: "✓", note: "i", warning: "!", bad: "✕", off: "–" };
const LEVELS = { good: "Good", note: "Note", warning: "Warning", bad: "Bad" };

const sign = (level) => el("span", { className: `sign ${level}`, "aria-hidden": "true" }, SIGNS[level]);

function why(workflow) {
  if (workflow.state === "offered") return workflow.ids.length ? `Workflow id: ${workflow.ids.join(", ")}.` : "No workflow id is mapped to it, so no task comes.";
  if (workflow.state === "resting") return `Paused after faults of this machine${workflow.trouble ? `: ${workflow.trouble}` : ""}. In ${seconds(Math.max(workflow.rests_until - clock(), 0))} the miner tries it with a render of its own.`;
  if (workflow.state === "unknown") return "Waiting for ComfyUI's list of nodes and models.";
  if (workflow.state === "not enabled") return "Not in [workflows] enabled.";
  return "";
}

function help(workflow) {
  if (workflow.state === "not enabled") return ["add it to [workflows] enabled, then reload.", `XALORA_WORKFLOWS=…,${workflow.name}`];
  return [workflow.cure, workflow.command];
}

function workflowItem(workflow) {
  const [level, word] = STATES[workflow.state];
  const [cure, command] = help(workflow);
  return el("li", { className: level },
    el("h3", {}, sign(level), workflow.name, el("span", { className: `tag ${level}` }, word)),
    el("p", {}, workflow.description),
    el("p", { className: "quiet" }, `${workflow.task_type} → ${workflow.format} · ${workflow.vram_gb ? `${workflow.vram_gb} GB of GPU memory` : "no GPU memory needed"}`),
    why(workflow) && el("p", {}, why(workflow)),
    ...workflow.variants.map((variant) => el("p", { className: "quiet" }, `Variant ${variant}.`)),
    workflow.reasons.length ? el("ul", { className: "reasons" }, ...workflow.reasons.slice(0, 5).map((reason) => el("li", {}, reason))) : null,
    workflow.reasons.length > 5 ? el("p", { className: "quiet" }, `and ${workflow.reasons.length - 5} more`) : null,
    cure && el("p", { className: "cure" }, `Next: ${cure}`),
    command && el("p", {}, el("code", {}, command)));
}

export function showWorkflows(workflows) {
  const offered = workflows.filter((workflow) => workflow.state === "offered").length;
  const enabled = workflows.filter((workflow) => workflow.state !== "not enabled").length;
  say($("workflows-lead"), offered
    ? `${offered} of ${enabled} enabled workflows advertised.`
    : "No workflow is advertised, so no task comes.");
  $("workflows").replaceChildren(...workflows.map(workflowItem));
}

export function showHealth(marks) {
  const wrong = marks.filter((mark) => mark.level === "bad" || mark.level === "warning");
  say($("health-lead"), wrong.length
    ? `${wrong.length} of ${marks.length} checks need attention.`
    : `All ${marks.length} checks passed.`);
  say($("wrong"), String(wrong.length));
  $("wrong").title = `${wrong.length} need attention`;
  show($("wrong"), wrong.length);
  const order = ["bad", "warning", "note", "good"];
  const sorted = [...marks].sort((a, b) => order.indexOf(a.level) - order.indexOf(b.level));
  $("marks").replaceChildren(...sorted.map((mark) => el("li", { className: mark.level }, sign(mark.level),
    el("div", {}, el("p", {}, el("strong", {}, mark.name), el("span", { className: "unseen" }, `, ${LEVELS[mark.level]}:`), " ", mark.says),
      mark.cure && el("p", { className: "cure" }, `Next: ${mark.cure}`)))));
}

export function showLoops(now) {
  const groups = [...now.lanes.map((lane) => [`Lane ${lane.name}`, lane.loops]), ["All lanes", [now.outbox]]];
  $("loops").replaceChildren(...groups.map(([name, loops]) => el("section", { className: "loops", "aria-label": name },
    el("h4", {}, name),
    el("dl", {}, ...loops.map((loop) => el("div", {}, el("dt", {}, loop.name),
      el("dd", {}, loop.says, loop.late ? el("strong", { className: "late" }, ` stuck for ${seconds(loop.late)}`) : "")))))));
}
