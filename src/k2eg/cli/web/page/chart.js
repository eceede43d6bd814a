// The chart of values over time: what the browser keeps of each PV, the view, and the drawing by uPlot.

const MOST_POINTS = 20000; // of a PV in the browser; the server has more and sends them on request
const LEAST_SPAN = 0.1;
const MOST_SPAN = 366 * 86400;
const CURVES = 6;
const JUST_BEFORE = 1e-5; // seconds: less cannot be told apart in a time since 1970
const EXPANDED = 2; // of uPlot.join: a gap lasts until the PV's next point, whatever points others have
const REDRAW = 500; // milliseconds until a chart without new data moves on

const two = (number) => String(number).padStart(2, "0");

// The labels of round times that are so many seconds apart.
function timeLabels(times, step) {
  return times.map((time) => {
    const at = new Date(time * 1000);
    if (step >= 86400) return `${two(at.getMonth() + 1)}-${two(at.getDate())}`;
    const label = `${two(at.getHours())}:${two(at.getMinutes())}`;
    if (step >= 60) return label;
    return `${label}:${two(at.getSeconds())}${step < 1 ? `.${String(at.getMilliseconds()).padStart(3, "0")}` : ""}`;
  });
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const bisect = (times, time) => {
  let low = 0;
  let high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] <= time) low = middle + 1;
    else high = middle;
  }
  return low;
};

export class Chart {
  constructor(element, { ask, pointed, viewed }) {
    Object.assign(this, { element, ask, pointed, viewed });
    Object.assign(this, { own: false, log: false, selected: 0, span: 600, end: null, detail: null, series: [] });
    Object.assign(this, { plot: null, isChanged: false, drawn: 0, ahead: 0, limits: [] });
    new ResizeObserver(() => this.plot?.setSize(this.size)).observe(element);
  }

  get now() { return Date.now() / 1000 + this.ahead; }
  get isLive() { return this.end === null; }
  get window() { return [(this.end ?? this.now) - this.span, this.end ?? this.now]; }

  begin(names, span) {
    const isSame = names.length === this.series.length && names.every((name, pv) => name === this.series[pv].name);
    this.series = names.map((name) => ({ name, t: [], v: [], gap: null }));
    this.limits = names.map(() => ({}));
    if (!isSame) Object.assign(this, { span, end: null, selected: 0 });
    this.detail = null;
    this.rebuild();
  }

  synchronize(now) { this.ahead = now - Date.now() / 1000; }

  add({ pv, gap, new: isNew, t, v }) {
    const series = this.series[pv];
    const isFirst = !series.v.some((value) => value !== null);
    if (isNew) Object.assign(series, { t: [], v: [] });
    series.t.push(...t);
    series.v.push(...v);
    if (gap !== null) series.gap = gap;
    if (series.t.length > MOST_POINTS * 1.1) {
      series.t.splice(0, series.t.length - MOST_POINTS);
      series.v.splice(0, series.v.length - MOST_POINTS);
    }
    this.isChanged = true;
    if (isFirst && v.some((value) => value !== null)) this.rebuild();
  }

  takeLimits(rows) {
    for (const { pv, minor, major, state } of rows) this.limits[pv] = { minor, major, isLost: state === "disconnected" };
    this.isChanged = true;
  }

  takeDetail({ detail, from, to }) {
    const [start, stop] = this.window;
    if (this.isLive || from > start + 0.001 || to < stop - 0.001) return; // of a view that was left
    this.detail = detail;
    this.isChanged = true;
  }

  change(view) {
    Object.assign(this, view);
    this.rebuild();
    this.viewed();
  }

  select(pv) { this.change({ selected: pv }); }
  pause() { this.show(this.span, this.isLive ? this.now : null); }
  goLive() { this.show(this.span, null); }

  pan(part) {
    const end = this.window[1] + part * this.span;
    this.show(this.span, end < this.now ? end : null);
  }

  zoom(factor) {
    this.show(this.span * factor, this.end);
  }

  show(span, end) {
    this.span = Math.min(Math.max(span, LEAST_SPAN), MOST_SPAN);
    this.end = end;
    this.detail = null;
    this.isChanged = true;
    if (end !== null) this.ask(...this.window);
    this.viewed();
  }

  // The points of a PV within the view; a value holds until the next one, at most until now.
  points(pv) {
    const { gap } = this.series[pv];
    const { t, v } = this.detail?.[pv] ?? this.series[pv];
    const [start, stop] = this.window;
    const first = Math.max(bisect(t, start) - 1, 0);
    const last = bisect(t, stop);
    const times = t.slice(first, last);
    const values = v.slice(first, last);
    if (times.length && times[0] < start) times[0] = start;
    const until = Math.min(stop, t[last] ?? this.now);
    const before = t[last - 1];
    const isSilent = gap !== null && (t[last] ?? this.now) - before > gap;
    const isLost = last === t.length && this.limits[pv].isLost;
    if (times.length && values.at(-1) !== null && !isSilent && !isLost && until > times.at(-1)) {
      times.push(until);
      values.push(values.at(-1));
    }
    return [times, this.log ? values.map((value) => (value > 0 ? value : null)) : values];
  }

  // The same for uPlot, which makes a gap as wide as the nearest points of other PVs: a value holds until the gap begins.
  steps(pv) {
    const steps = [[], []];
    const [times, values] = this.points(pv);
    times.forEach((time, place) => {
      const before = values[place - 1] ?? null;
      if (values[place] === null && before !== null && time - JUST_BEFORE > times[place - 1]) {
        steps[0].push(time - JUST_BEFORE);
        steps[1].push(before);
      }
      steps[0].push(time);
      steps[1].push(values[place]);
    });
    return steps;
  }

  get curves() {
    const found = [];
    this.series.forEach((series, pv) => { if (series.v.some((value) => value !== null)) found.push(pv); });
    return found;
  }

  data(curves) {
    const tables = curves.map((pv) => this.steps(pv));
    return tables.length > 1 ? uPlot.join(tables, tables.map(() => [0, EXPANDED])) : tables[0];
  }

  get size() { return { width: Math.max(this.element.clientWidth, 200), height: innerWidth < 640 ? 260 : 360 }; }

  rebuild() {
    this.plot?.destroy();
    this.plot = null;
    const curves = this.curves;
    if (!curves.length) return;
    const scaleOf = (pv) => (this.own ? `y${pv}` : "y");
    const chosen = curves.includes(this.selected) ? this.selected : curves[0];
    const scales = { x: { time: true, range: () => this.window } };
    for (const pv of curves) scales[scaleOf(pv)] = { distr: this.log ? 3 : 1 };
    const lines = { stroke: colour("--dim"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
    this.shown = curves;
    this.plot = new uPlot({
      ...this.size,
      legend: { show: false },
      cursor: { drag: { x: true, y: false, setScale: false }, points: { show: false }, bind: { dblclick: () => () => this.goLive() } },
      scales,
      axes: [{ ...lines, space: 80, values: (plot, times, axis, space, step) => timeLabels(times, step) }, { ...lines, scale: scaleOf(chosen), size: 64, stroke: this.own ? colour(`--curve${chosen % CURVES}`) : lines.stroke }],
      series: [{}, ...curves.map((pv) => ({
        scale: scaleOf(pv),
        stroke: colour(`--curve${pv % CURVES}`),
        width: 1.5,
        points: { show: false },
        paths: uPlot.paths.stepped({ align: 1 }),
      }))],
      hooks: {
        draw: [(plot) => this.drawLimits(plot, scaleOf(chosen), this.limits[chosen])],
        setSelect: [(plot) => this.zoomTo(plot)],
        setCursor: [(plot) => this.point(plot)],
      },
    }, this.data(curves), this.element);
  }

  draw() {
    if (!this.plot) return;
    const isDue = this.isChanged || (this.isLive && performance.now() - this.drawn > REDRAW);
    if (!isDue) return;
    this.isChanged = false;
    this.drawn = performance.now();
    this.plot.setData(this.data(this.shown));
  }

  drawLimits(plot, scale, limits) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.setLineDash([6, 6]);
    for (const name of ["minor", "major"]) {
      ctx.strokeStyle = colour(`--${name}`);
      for (const value of limits?.[name] ?? []) {
        const { min, max } = plot.scales[scale];
        if (min === null || value < min || value > max) continue;
        const y = Math.round(plot.valToPos(value, scale, true));
        ctx.beginPath();
        ctx.moveTo(bbox.left, y);
        ctx.lineTo(bbox.left + bbox.width, y);
        ctx.stroke();
      }
    }
    ctx.restore();
  }

  zoomTo(plot) {
    const { left, width } = plot.select;
    if (width < 3) return;
    const [start, stop] = [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")];
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.show(stop - start, stop);
  }

  point(plot) {
    const { left } = plot.cursor;
    if (left === undefined || left < 0) return this.pointed(null);
    const time = plot.posToVal(left, "x");
    const values = new Map();
    for (const pv of this.shown) {
      const [t, v] = this.points(pv);
      values.set(pv, v[bisect(t, time) - 1] ?? null);
    }
    return this.pointed(values);
  }
}
