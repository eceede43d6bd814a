// The page: connects, hands messages to chart, table and shapes, and turns buttons and keys into views.

import { Chart } from "./chart.js";
import { Rows } from "./rows.js";
import { Shapes } from "./shapes.js";

const LONGEST_WAIT = 10; // seconds between two attempts to connect
const SILENCE = 5; // seconds without a message, of which there is one a second, until the connection counts as lost

const byId = (id) => document.getElementById(id);
const state = byId("state");
let socket = null;
let text = "";
let wait = 1;
let heard = 0;

const rows = new Rows(byId("rows"), (pv) => chart.select(pv));
const shapes = new Shapes(byId("shapes"));
const chart = new Chart(byId("chart"), {
  ask: (from, to) => socket?.readyState === WebSocket.OPEN && socket.send(JSON.stringify({ from, to })),
  pointed: (values) => rows.pointed(values),
  viewed: showView,
});

function showView() {
  byId("pause").textContent = chart.isLive ? "pause" : "live";
  byId("own").setAttribute("aria-pressed", chart.own);
  byId("log").setAttribute("aria-pressed", chart.log);
  rows.select(chart.selected);
}

function showState(message, lost) {
  state.textContent = message;
  state.classList.toggle("lost", lost);
}

function take(message) {
  if (message.names) {
    chart.begin(message.names, message.span);
    rows.begin(message.names);
    shapes.begin(message.names);
    document.title = `${message.names.slice(0, 3).join(", ")} - k2eg`;
    showView();
  }
  if (message.now !== undefined) chart.synchronize(message.now);
  for (const part of message.points ?? []) chart.add(part);
  if (message.rows) {
    rows.take(message.rows);
    chart.takeLimits(message.rows);
  }
  if (message.detail) chart.takeDetail(message);
  if (message.state !== undefined) text = message.state;
  showState(text, false);
}

function connect() {
  const url = new URL("updates", location.href);
  url.protocol = location.protocol.replace("http", "ws");
  url.search = location.search;
  socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  heard = performance.now();
  socket.onmessage = (event) => {
    heard = performance.now();
    wait = 1;
    if (typeof event.data === "string") take(JSON.parse(event.data));
    else shapes.take(event.data);
  };
  socket.onclose = () => {
    showState(`not connected to k2eg web; next attempt in ${wait} s`, true);
    setTimeout(connect, wait * 1000);
    wait = Math.min(wait * 2, LONGEST_WAIT);
  };
}

const actions = {
  pause: () => chart.pause(),
  in: () => chart.zoom(0.5),
  out: () => chart.zoom(2),
  earlier: () => chart.pan(-0.25),
  later: () => chart.pan(0.25),
  own: () => chart.change({ own: !chart.own }),
  log: () => chart.change({ log: !chart.log }),
};
const keys = { " ": "pause", "+": "in", "=": "in", "-": "out", ArrowLeft: "earlier", ArrowRight: "later", o: "own", l: "log" };
for (const [id, act] of Object.entries(actions)) byId(id).addEventListener("click", act);
addEventListener("keydown", (event) => {
  const isTyping = event.target instanceof HTMLInputElement;
  const isButton = event.target instanceof HTMLButtonElement && event.key === " ";
  if (isTyping || isButton || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "Escape") chart.goLive();
  else if (keys[event.key]) actions[keys[event.key]]();
  else return;
  event.preventDefault();
});
byId("filter").addEventListener("input", (event) => rows.choose({ text: event.target.value.trim().toLowerCase() }));
byId("alarms").addEventListener("change", (event) => rows.choose({ alarms: event.target.checked }));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { chart.rebuild(); shapes.rebuild(); });
setInterval(() => {
  chart.draw();
  rows.draw(chart.now);
  const silent = (performance.now() - heard) / 1000;
  if (socket.readyState === WebSocket.OPEN && silent > SILENCE) showState(`no message for ${Math.round(silent)} s`, true);
}, 100);
connect();
