// Keeps a page up to date: when the farm says that something happened, the page is fetched again (which costs little while it has
// not changed) and the parts that differ are put in place. Without this script the pages still show everything.
"use strict";

const main = document.getElementById("main");
const connection = document.getElementById("connection");

// Times, told again each second.
function words(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min";
  if (s < 86400) return Math.floor(s / 3600) + " h";
  return Math.floor(s / 86400) + " d";
}

function tellTimes() {
  const now = Date.now();
  for (const time of document.querySelectorAll("time[data-ago], time[data-for]")) {
    const ago = "ago" in time.dataset;
    const then = Number(ago ? time.dataset.ago : time.dataset.for);
    const text = then ? words(now - then) + (ago ? " ago" : "") : "never";
    if (time.textContent !== text) time.textContent = text;
    if (then && !time.title) time.title = new Date(then).toLocaleString();
  }
}

// Puts the new text of an element in place of the old one, as deep down as they differ, so that focus, open details and selections
// stay where they are.
function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  const same = old.nodeName === fresh.nodeName && old.id === fresh.id;
  if (!same || old.nodeType !== Node.ELEMENT_NODE) {
    old.replaceWith(fresh.cloneNode(true));
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(name === "open" || name === "title")) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) {
      old.setAttribute(name, value);
      if (name === "class" && old.classList.contains("cell")) old.classList.add("changed");
    }
  }
  if (old.nodeName === "TIME" || old === document.activeElement && "value" in old) return;
  const before = [...old.childNodes], after = [...fresh.childNodes];
  const keyed = new Map(before.filter((n) => n.id).map((n) => [n.id, n]));
  let at = old.firstChild;
  for (const node of after) {
    const match = node.id ? keyed.get(node.id) : at && !at.id ? at : null;
    if (match) {
      if (match !== at) old.insertBefore(match, at);
      const next = match.nextSibling;
      morph(match, node);
      at = next;
    } else {
      old.insertBefore(node.cloneNode(true), at);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

// What takes more to make than the rest, and changes less often, is fetched with every so many of the others, and at the end.
const WHOLE_EVERY = 5;
let fetching = false, again = false, turn = 0;
async function refresh(whole) {
  if (fetching) { again = true; return; }
  fetching = true;
  turn += 1;
  const { often } = main.dataset;
  const part = often && whole !== true && turn % WHOLE_EVERY !== 0;
  let ended = false;
  try {
    const response = await fetch(part ? often : location.href, { headers: { accept: "text/html" }, cache: "no-cache" });
    if (response.ok) {
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
      document.title = fresh.title;
      for (const piece of fresh.querySelectorAll("#main > [id], #main > section > [id]")) {
        const old = document.getElementById(piece.id);
        if (old && old.id !== "logs") morph(old, piece);
        else if (!old) morph(main, fresh.getElementById("main"));
      }
      tellTimes();
      connection.textContent = "";
      ended = !fresh.getElementById("main").dataset.live;
    } else {
      connection.textContent = "the coordinator answers " + response.status;
    }
  } catch {
    connection.textContent = "the coordinator can't be reached; trying again";
  }
  fetching = false;
  if (ended) {
    stop();
    if (part) { refresh(true); return; }
  }
  if (again) { again = false; setTimeout(refresh, 500); }
}

// Many events make one refresh.
let due = null;
function soon() {
  if (due === null) due = setTimeout(() => { due = null; refresh(); }, 400);
}

let source = null, poll = null;
function stop() {
  if (source) source.close();
  if (poll) clearInterval(poll);
  source = poll = null;
}

function start() {
  const { live, stream } = main.dataset;
  if (!live) return;
  if (live === "poll") { poll = setInterval(() => { if (!document.hidden) refresh(); }, 2000); return; }
  source = new EventSource(stream);
  for (const kind of ["happened", "ended", "changes"]) source.addEventListener(kind, soon);
  source.addEventListener("ended", () => source && source.close());
  source.onopen = () => { connection.textContent = "live"; };
  source.onerror = () => { connection.textContent = "not connected; trying again"; };
  // What an attempt is doing is no event.
  if (live === "events") poll = setInterval(() => { if (!document.hidden) refresh(); }, 3000);
}

// Logs: followed as they grow, with find.
const log = { source: null, text: "", url: "" };
function showLog() {
  const pre = document.getElementById("log-text"), found = document.getElementById("log-found");
  const wanted = document.getElementById("log-find").value;
  pre.textContent = "";
  if (!wanted) { pre.textContent = log.text; found.textContent = ""; }
  else {
    const lower = log.text.toLowerCase(), needle = wanted.toLowerCase();
    let at = 0, count = 0;
    for (let hit = lower.indexOf(needle); hit >= 0 && count < 2000; hit = lower.indexOf(needle, at)) {
      pre.append(log.text.slice(at, hit));
      const mark = document.createElement("mark");
      mark.textContent = log.text.slice(hit, hit + needle.length);
      pre.append(mark);
      at = hit + needle.length;
      count += 1;
    }
    pre.append(log.text.slice(at));
    found.textContent = count === 1 ? "1 place" : count + " places";
    const first = pre.querySelector("mark");
    if (first) first.scrollIntoView({ block: "nearest" });
  }
  if (document.getElementById("log-follow").checked && !wanted) pre.scrollTop = pre.scrollHeight;
}

function openLog(url) {
  const panel = document.getElementById("logs");
  if (log.source) log.source.close();
  log.text = "";
  log.url = url;
  panel.hidden = false;
  showLog();
  log.source = new EventSource(url);
  log.source.addEventListener("piece", (event) => { log.text += JSON.parse(event.data).text; showLog(); });
  const end = () => log.source.close();
  log.source.addEventListener("ended", end);
  log.source.addEventListener("failed", (event) => { log.text += "\n" + JSON.parse(event.data).detail; showLog(); end(); });
  panel.scrollIntoView({ block: "nearest" });
  document.getElementById("log-text").focus();
}

// Whoever came by keyboard is back where the log was opened; the link may have been put in place anew since.
function closeLog() {
  log.source.close();
  document.getElementById("logs").hidden = true;
  const link = [...document.querySelectorAll("a[data-log]")].find((a) => a.dataset.log === log.url);
  if (link) link.focus();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-log]");
  if (link && !event.ctrlKey && !event.metaKey) { event.preventDefault(); openLog(link.dataset.log); }
  if (event.target.id === "log-close") closeLog();
});
document.addEventListener("input", (event) => { if (event.target.id === "log-find") showLog(); });

// Escape closes the log, and the arrows walk the matrix.
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && event.target.closest("#logs")) closeLog();
  const cell = event.target.closest("table[data-grid] a.cell");
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!cell || !step) return;
  const td = cell.parentElement, rows = [...td.closest("tbody").rows];
  const row = rows[rows.indexOf(td.parentElement) + step[0]];
  const next = row && row.cells[td.cellIndex + step[1]];
  const link = next && next.querySelector("a.cell");
  if (link) { event.preventDefault(); link.focus(); }
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  const question = form.dataset.confirm;
  if (question && !confirm(question)) { event.preventDefault(); return; }
  const state = form.querySelector("input[name=state]");
  if (state) state.value = [...form.querySelectorAll("[data-state]:checked")].map((box) => box.value).join(",");
});

tellTimes();
setInterval(tellTimes, 1000);
start();
