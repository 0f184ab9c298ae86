"use strict";
// Sorts the list of images by the column whose heading is pressed; dashes always come last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const compareNames = new Intl.Collator(undefined, { numeric: true }).compare;
  const press = (column) => {
    const rising = heads[column].getAttribute("aria-sort") !== "ascending";
    heads.forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
    const rows = [...body.rows].map((row) => {
      const text = row.cells[column].textContent.trim();
      return { row, key: column === 0 ? text : parseFloat(text) };
    });
    const sign = rising ? 1 : -1;
    rows.sort((a, b) => {
      if (column === 0) return sign * compareNames(a.key, b.key);
      if (isNaN(a.key) || isNaN(b.key)) return isNaN(a.key) - isNaN(b.key);
      return sign * (a.key - b.key);
    });
    body.append(...rows.map((entry) => entry.row));
  };
  heads.forEach((head, i) => head.querySelector("button")?.addEventListener("click", () => press(i)));
}

// Small pictures: made when they come into view, and shown large with a mask over them.
const held = document.getElementById("pictures");
if (held) {
  const pictures = JSON.parse(held.textContent);
  const types = ["webp", "png", "png", "png"];
  const source = (index, layer) => `data:image/${types[layer]};base64,${pictures[index][layer]}`;
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        const picture = new Image();
        picture.src = source(entry.target.dataset.picture, 0);
        picture.alt = "";
        entry.target.append(picture);
        watcher.unobserve(entry.target);
      }
    },
    { rootMargin: "300px" },
  );
  const viewer = document.getElementById("viewer");
  const [photo, layer, frame, name, opacity] = ["photo", "layer", "picture", "name", "opacity"].map((id) =>
    document.getElementById(`viewer-${id}`),
  );
  // The picture is moved and made larger inside of its frame, never so that the frame shows.
  const layers = document.getElementById("viewer-layers");
  const [smallest, largest] = [1, 12];
  let view = { scale: 1, x: 0, y: 0 };
  const place = (scale, x, y) => {
    const kept = (value, room) => Math.min(0, Math.max(room * (1 - scale), value));
    view = { scale, x: kept(x, frame.clientWidth), y: kept(y, frame.clientHeight) };
    layers.style.transform = `translate(${view.x}px, ${view.y}px) scale(${scale})`;
  };
  const zoom = (factor, x = frame.clientWidth / 2, y = frame.clientHeight / 2) => {
    const scale = Math.min(largest, Math.max(smallest, view.scale * factor));
    const ratio = scale / view.scale;
    place(scale, x - ratio * (x - view.x), y - ratio * (y - view.y)); // what lies under the pointer stays there
  };
  const nameOf = (thumb) => thumb.closest("th").textContent.trim();
  let shown = null;
  const show = (thumb) => {
    if (!thumb) return;
    const isAnother = thumb !== shown;
    shown = thumb;
    const index = thumb.dataset.picture;
    const [height, width] = pictures[index].slice(4);
    const room = Math.min((0.92 * Math.min(innerWidth, 1040)) / width, (0.7 * innerHeight) / height);
    frame.style.width = `${Math.round(width * room)}px`;
    frame.style.height = `${Math.round(height * room)}px`;
    name.textContent = nameOf(thumb);
    photo.src = source(index, 0);
    layer.src = source(index, Number(viewer.querySelector("[name=layer]:checked").value));
    layer.style.opacity = opacity.value / 100;
    if (!viewer.open) viewer.showModal();
    if (isAnother) place(1, 0, 0);
  };
  const neighbour = (step) => {
    const thumbs = [...document.querySelectorAll(".thumb")];
    show(thumbs[thumbs.indexOf(shown) + step]);
  };
  for (const thumb of document.querySelectorAll(".thumb")) {
    watcher.observe(thumb);
    thumb.addEventListener("click", () => show(thumb));
  }
  for (const look of document.querySelectorAll(".look")) {
    look.addEventListener("click", () =>
      show([...document.querySelectorAll(".thumb")].find((thumb) => nameOf(thumb) === look.dataset.name)),
    );
  }
  viewer.querySelectorAll("[name=layer]").forEach((choice) => choice.addEventListener("change", () => show(shown)));
  opacity.addEventListener("input", () => (layer.style.opacity = opacity.value / 100));
  frame.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const box = frame.getBoundingClientRect();
      zoom(Math.exp(-event.deltaY / 300), event.clientX - box.left, event.clientY - box.top);
    },
    { passive: false },
  );
  frame.addEventListener("pointerdown", (event) => frame.setPointerCapture(event.pointerId));
  frame.addEventListener("pointermove", (event) => {
    if (!frame.hasPointerCapture(event.pointerId)) return;
    place(view.scale, view.x + event.movementX, view.y + event.movementY);
  });
  document.getElementById("viewer-in").addEventListener("click", () => zoom(1.5));
  document.getElementById("viewer-out").addEventListener("click", () => zoom(1 / 1.5));
  document.getElementById("viewer-previous").addEventListener("click", () => neighbour(-1));
  document.getElementById("viewer-next").addEventListener("click", () => neighbour(1));
  viewer.addEventListener("click", (event) => event.target === viewer && viewer.close());
  viewer.addEventListener("keydown", (event) => {
    if (event.target.matches("input")) return;
    if (event.key === "ArrowLeft") neighbour(-1);
    if (event.key === "ArrowRight") neighbour(1);
    if (event.key === "+") zoom(1.5);
    if (event.key === "-") zoom(1 / 1.5);
  });
}
