// The newest arrays as curves, images as pictures, tables as tables.

const HEIGHT = 220;
const sizeOf = (element) => ({ width: Math.max(element.clientWidth, 200), height: HEIGHT });
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class Shapes {
  constructor(element) { Object.assign(this, { element, names: [], shown: new Map() }); }

  begin(names) {
    this.names = names;
    this.element.replaceChildren();
    for (const shape of this.shown.values()) shape.plot?.destroy();
    this.shown.clear();
  }

  take(buffer) {
    const length = new DataView(buffer).getUint32(0);
    const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    const shape = this.shapeOf(head.pv);
    shape.about.textContent = ` ${head.text}`;
    if (shape.kind !== head.kind) {
      shape.plot?.destroy();
      shape.plot = null;
      shape.body.replaceChildren();
      shape.kind = head.kind;
    }
    shape.head = head;
    if (head.kind === "image") this.drawImage(shape, new Uint8Array(buffer, 4 + length));
    else if (head.kind === "array") this.drawArray(shape);
    else if (head.kind === "table") this.drawTable(shape);
  }

  shapeOf(pv) {
    if (!this.shown.has(pv)) {
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      const about = document.createElement("span");
      const body = document.createElement("div");
      caption.append(this.names[pv], about);
      figure.append(caption, body);
      this.element.append(figure);
      const shape = { figure, about, body, kind: "", plot: null, head: null };
      new ResizeObserver(() => shape.plot?.setSize(sizeOf(body))).observe(body);
      this.shown.set(pv, shape);
    }
    return this.shown.get(pv);
  }

  drawImage({ body, head }, pixels) {
    const canvas = body.firstChild ?? document.createElement("canvas");
    canvas.className = "image";
    if (!canvas.parentNode) body.append(canvas);
    if (canvas.width !== head.width) canvas.width = head.width;
    if (canvas.height !== head.height) canvas.height = head.height;
    const image = new ImageData(head.width, head.height);
    const { channels } = head;
    for (let place = 0; place < head.width * head.height; place += 1) {
      const first = place * channels;
      image.data[place * 4] = pixels[first];
      image.data[place * 4 + 1] = pixels[channels === 1 ? first : first + 1];
      image.data[place * 4 + 2] = pixels[channels === 1 ? first : first + 2];
      image.data[place * 4 + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  drawArray(shape) {
    const data = [shape.head.x, shape.head.y];
    if (shape.plot) {
      shape.plot.setData(data);
      return;
    }
    const lines = { stroke: colour("--dim"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
    shape.plot = new uPlot({
      ...sizeOf(shape.body),
      legend: { show: false },
      scales: { x: { time: false } },
      axes: [lines, { ...lines, size: 60 }],
      series: [{}, { stroke: colour("--curve0"), width: 1.5, points: { show: false } }],
    }, data, shape.body);
  }

  drawTable({ body, head }) {
    const table = document.createElement("table");
    const titles = table.createTHead().insertRow();
    for (const name of head.names) {
      const cell = document.createElement("th");
      cell.textContent = name;
      titles.append(cell);
    }
    const rows = Math.max(0, ...head.columns.map((column) => column.length));
    const lines = table.createTBody();
    for (let row = 0; row < rows; row += 1) {
      const line = lines.insertRow();
      for (const column of head.columns) line.insertCell().textContent = column[row] ?? "";
    }
    body.replaceChildren(table);
  }

  rebuild() {
    for (const shape of this.shown.values()) {
      if (!shape.plot) continue;
      shape.plot.destroy();
      shape.plot = null;
      this.drawArray(shape);
    }
  }
}
