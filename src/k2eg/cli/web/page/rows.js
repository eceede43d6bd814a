// The table of newest values.

const COLUMNS = ["name", "there", "value", "units", "severity", "since", "age", "rate", "trend"];
const TITLES = { name: "PV", there: "at cursor" };
const SORTED = ["name", "value", "severity", "age", "rate"];
const SEVERITIES = ["", "MINOR", "MAJOR", "INVALID", "UNDEFINED"];
const CURVES = 6;

function duration(seconds) {
  if (seconds < 10) return `${Math.max(seconds, 0).toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} d`;
}

const frequency = (rate) => (rate === 0 ? "" : `${rate < 10 ? rate.toPrecision(2) : Math.round(rate)} Hz`);

export class Rows {
  constructor(table, select) {
    Object.assign(this, { table, choice: { text: "", alarms: false }, sort: null, entries: [], selected: 0 });
    this.onSelect = select;
    for (const name of COLUMNS) {
      const cell = document.createElement("th");
      cell.textContent = TITLES[name] ?? name;
      cell.className = name;
      if (name === "there") cell.hidden = true;
      if (SORTED.includes(name)) {
        cell.dataset.sort = name;
        cell.addEventListener("click", () => this.sortBy(name));
      }
      table.tHead.rows[0].append(cell);
    }
  }

  begin(names) {
    this.table.tBodies[0].replaceChildren();
    this.entries = names.map((name, pv) => {
      const line = this.table.tBodies[0].insertRow();
      const cells = {};
      for (const column of COLUMNS) {
        cells[column] = line.insertCell();
        cells[column].className = column;
      }
      cells.there.hidden = true;
      const swatch = document.createElement("span");
      swatch.className = `swatch curve${pv % CURVES}`;
      cells.name.append(swatch, name);
      cells.name.addEventListener("click", () => this.onSelect(pv));
      return { pv, name, line, cells, row: { value: "", state: "no value", severity: "", rate: 0 }, arrived: null };
    });
    this.arrange();
  }

  take(rows) {
    for (const row of rows) {
      const entry = this.entries[row.pv];
      if (row.arrived !== null && row.arrived !== entry.row.arrived) entry.arrived = performance.now() / 1000;
      entry.row = row;
      const { cells } = entry;
      for (const name of ["value", "units", "trend"]) cells[name].textContent = row[name];
      cells.rate.textContent = frequency(row.rate);
      cells.severity.textContent = [row.severity, row.state].filter(Boolean).join(", ");
      cells.severity.className = `severity ${row.severity}`;
      entry.line.classList.remove("stale", "disconnected", "no");
      if (row.state) entry.line.classList.add(row.state.split(" ")[0]);
    }
    this.arrange();
  }

  draw(now) {
    for (const { row, cells, arrived } of this.entries) {
      const age = arrived === null ? "" : duration(performance.now() / 1000 - arrived);
      const since = row.since === null || row.since === undefined ? "" : duration(now - row.since);
      if (cells.age.textContent !== age) cells.age.textContent = age;
      if (cells.since.textContent !== since) cells.since.textContent = since;
    }
  }

  pointed(values) {
    const cells = [this.table.tHead.rows[0].querySelector(".there"), ...this.entries.map((entry) => entry.cells.there)];
    for (const cell of cells) cell.hidden = values === null;
    for (const { pv, cells: { there } } of this.entries) {
      const value = values?.get(pv) ?? null;
      there.textContent = value === null ? "" : String(Number(value.toPrecision(6)));
    }
  }

  select(pv) {
    this.entries.forEach((entry) => entry.line.classList.toggle("selected", entry.pv === pv && this.entries.length > 1));
  }

  choose(choice) {
    Object.assign(this.choice, choice);
    this.arrange();
  }

  sortBy(name) {
    this.sort = this.sort === name ? null : name;
    this.arrange();
  }

  // Hides what is not chosen and puts the rest into order; lines move only if the order has changed.
  arrange() {
    const { text, alarms } = this.choice;
    for (const { name, line, row } of this.entries) {
      line.hidden = !name.toLowerCase().includes(text) || (alarms && !row.severity && !row.state);
    }
    const key = {
      name: (entry) => entry.name,
      value: (entry) => -Number.parseFloat(entry.row.value) || 0,
      severity: (entry) => -SEVERITIES.indexOf(entry.row.severity),
      age: (entry) => -(entry.arrived ?? -Infinity),
      rate: (entry) => -entry.row.rate,
    }[this.sort];
    const order = [...this.entries];
    if (key) order.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : a.pv - b.pv));
    const body = this.table.tBodies[0];
    order.forEach((entry, place) => {
      if (body.rows[place] !== entry.line) body.insertBefore(entry.line, body.rows[place] ?? null);
    });
    for (const cell of this.table.tHead.rows[0].cells) {
      if (cell.dataset.sort === this.sort) cell.setAttribute("aria-sort", "other");
      else cell.removeAttribute("aria-sort");
    }
  }
}
