// The page of the admin port. Everything that it shows is put in as text, never as markup.
"use strict";

// Rows of the live table; older ones go.
const ROWS = 200;
// Milliseconds between two looks at the tables.
const EVERY = 5000;

const element = (id) => document.getElementById(id);

function cell(text, kind) {
  const td = document.createElement("td");
  td.textContent = text === undefined || text === null ? "" : String(text);
  if (kind) td.className = kind;
  return td;
}

// A time to the millisecond.
function moment(time) {
  return cell(String(time || "").replace(/(\.\d{3})\d+/, "$1"), "time");
}

function row(cells) {
  const tr = document.createElement("tr");
  tr.append(...cells);
  return tr;
}

function fill(id, rows, width) {
  const none = cell("nothing yet");
  none.colSpan = width;
  element(id).replaceChildren(...(rows.length ? rows : [row([none])]));
}

function terms(list) {
  const all = [];
  for (const [name, value] of list) {
    const dt = document.createElement("dt");
    const dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value;
    all.push(dt, dd);
  }
  element("force").replaceChildren(...all);
}

async function look() {
  try {
    const answer = await fetch("/ui/summary", { cache: "no-store" });
    if (!answer.ok) throw new Error(await answer.text());
    const found = await answer.json();
    const state = element("state");
    state.textContent = [found.state, found.version, ...found.problems].join(" · ");
    state.className = found.state === "LIVE" && found.problems.length === 0 ? "allowed" : "refused";
    terms([
      ["configuration", found.current ? "what the files say is in force" : "the files, as last read, are not in force"],
      ["accepted, rejected", `${found.accepted}, ${found.rejected}`],
      ["outbound policy", found.outbound_policy],
      ["services", String(found.services)],
      ["destinations", String(found.clusters)],
      ["egress policies", String(found.egress_policies)],
      ["workloads", String(found.workloads)],
    ]);
    fill("refusals", found.refusals.map((one) => row([
      cell(one.times), cell(one.workload), cell(one.destination),
      cell(one.detail ? `${one.reason}: ${one.detail}` : one.reason, "refused"), moment(one.last),
    ])), 5);
    fill("talks", found.talks.map((one) => row([
      cell(one.times), cell(one.workload), cell(one.service), cell(one.protocol),
    ])), 4);
  } catch (error) {
    const state = element("state");
    state.textContent = `not answered: ${error.message}`;
    state.className = "refused";
  }
}

function workload(flow) {
  const name = flow.workload ? `${flow.namespace}/${flow.workload}` : "";
  return [name, flow.source_address].filter(Boolean).join(" ");
}

function destination(flow) {
  const port = flow.destination_port ? `:${flow.destination_port}` : "";
  return `${flow.host || flow.destination_address || "?"}${port}`;
}

function verdict(flow) {
  const words = { allow: "allowed", deny: "refused", redirect: "redirected", fail: "failed" };
  const word = (flow.audit ? "would be " : "") + (words[flow.verdict] || flow.verdict);
  return [word, flow.reason, flow.detail].filter(Boolean).join(": ");
}

function isWanted(tr) {
  const text = element("filter").value.trim().toLowerCase();
  return (!element("denied").checked || tr.dataset.refused === "yes")
    && (!text || tr.textContent.toLowerCase().includes(text));
}

function sieve() {
  for (const tr of element("flows").children) tr.hidden = !isWanted(tr);
}

function show(flow) {
  const refused = flow.verdict === "deny" || flow.verdict === "fail";
  const tr = row([
    moment(flow.time), cell(workload(flow)), cell(destination(flow)), cell(flow.protocol),
    cell(verdict(flow), refused ? "refused" : "allowed"),
  ]);
  tr.dataset.refused = refused ? "yes" : "no";
  tr.hidden = !isWanted(tr);
  const table = element("flows");
  table.prepend(tr);
  while (table.children.length > ROWS) table.lastChild.remove();
}

function follow() {
  const live = element("live");
  const source = new EventSource("/ui/flows");
  source.onopen = () => { live.textContent = "following"; };
  source.onmessage = (event) => show(JSON.parse(event.data));
  source.addEventListener("lost", (event) => { live.textContent = `${event.data} flows were lost: this page is too slow`; });
  source.onerror = () => { live.textContent = "not following: the gateway has ended, or too many follow already"; };
}

element("filter").addEventListener("input", sieve);
element("denied").addEventListener("change", sieve);
look();
setInterval(look, EVERY);
follow();
