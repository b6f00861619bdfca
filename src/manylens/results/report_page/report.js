"use strict";
// Every text from the data reaches the page through textContent; nothing is ever parsed as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const FIRST_FRAMES = 120; // per cluster, before "Show all": a page of 20,000 images must still scroll
// Confidence below it is marked; wording in the footer says so.
const DOUBT = 0.7;
const whole = new Intl.NumberFormat("en");
const number = (n) => whole.format(n);
const percent = (x) => (x * 100).toFixed(0) + "%";
const sureness = (x) => percent(x < 1 ? Math.min(x, 0.99) : x); // what is not certain is never called 100% sure
const share = (x) => (x * 100).toFixed(1) + "%";
const plural = (n, one, many) => number(n) + " " + (n === 1 ? one : many);

function element(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "class") node.className = value;
    else if (value !== null) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== ""));
  return node;
}
const named = (text) => element("span", { class: "name" }, text);

// image index -> interest index -> [cluster id, confidence, reason, decided by]; cluster 0 is unassigned, -1 a failed look, -2 none
const places = data.images.map(() => []);
data.interests.forEach((interest, which) => {
  interest.byId = new Map(interest.clusters.map((cluster) => [cluster.id, cluster]));
  interest.members = new Map();
  for (const [image, cluster, confidence, reason, decided] of interest.assignments) {
    places[image][which] = [cluster, confidence, reason, decided];
    if (!interest.members.has(cluster)) interest.members.set(cluster, []);
    interest.members.get(cluster).push(image);
  }
  for (const [image, reason] of interest.failed) places[image][which] = [-1, 0, reason, ""];
  for (const image of interest.notLooked) places[image][which] = [-2, 0, "the budget was spent", ""];
});
const clusterName = (which, image) => {
  const place = places[image][which];
  if (!place || place[0] === 0) return "unassigned";
  if (place[0] === -2) return "not looked at";
  return place[0] === -1 ? "could not be read by the model" : data.interests[which].byId.get(place[0]).name;
};

const state = { also: null, which: 0, find: "", sort: "typical", opened: new Set() };
// also: [interest, cluster]: only images that this other interest has there
const alike = (image) => !state.also || (places[image][state.also[0]] || [-2])[0] === state.also[1];
const shown = (image) => alike(image) && (!state.find || data.images[image].paths.some((path) => path.toLowerCase().includes(state.find)));
const confidence = (image) => places[image][state.which][1];
const source = (thumb) => data.thumbnails ? data.thumbnails + "/" + thumb : "data:image/jpeg;base64," + thumb;

// What a cluster's images come to; the page of a very large run knows a part of them, and is told.
function totals(cluster, images) {
  const given = data.interests[state.which].totals[cluster];
  if (given) return given;
  const bins = new Array(20).fill(0);
  for (const image of images) bins[Math.min(19, Math.floor(confidence(image) * 20))] += 1;
  return {
    images: images.length,
    files: images.reduce((sum, image) => sum + data.images[image].paths.length, 0),
    mean: images.reduce((sum, image) => sum + confidence(image), 0) / images.length,
    low: images.filter((image) => confidence(image) < DOUBT).length,
    bins,
  };
}
const byName = (a, b) => a - b; // images are numbered in file name order

function ordered(images, exemplars) {
  const lead = new Map(exemplars.map((image, position) => [image, position]));
  const rank = (image) => (lead.has(image) ? lead.get(image) : Infinity);
  const orders = {
    typical: (a, b) => (rank(a) === rank(b) ? 0 : rank(a) - rank(b)) || confidence(b) - confidence(a) || byName(a, b),
    doubt: (a, b) => confidence(a) - confidence(b) || byName(a, b),
    name: byName,
  };
  return images.filter(shown).sort(orders[state.sort]);
}

function frame(image, first) {
  const { paths, thumb } = data.images[image];
  const [cluster, sure, reason] = places[image][state.which];
  const picture = thumb
    ? element("img", { src: source(thumb), alt: "", loading: "lazy", decoding: "async" })
    : element("span", { class: "blank" }, paths[0].split("/").pop());
  const label = paths[0] + ". " + (cluster > 0 ? "Confidence " + percent(sure) + ". " : "") + reason;
  const button = element("button", { type: "button", tabindex: first ? "0" : "-1", "aria-label": label, "data-image": String(image) }, picture);
  const item = element("li", { class: cluster > 0 && sure < DOUBT ? "doubt" : "" }, button);
  item.style.setProperty("--sure", cluster > 0 ? percent(sure) : "0");
  return item;
}

function frames(images, lead, offset) {
  return element("ul", { class: lead ? "frames lead" : "frames" }, ...images.map((image, position) => frame(image, position + offset === 0)));
}

function spread({ bins, low }) {
  const most = Math.max(...bins);
  const space = "http://www.w3.org/2000/svg";
  const chart = document.createElementNS(space, "svg");
  chart.setAttribute("viewBox", "0 0 200 34");
  chart.setAttribute("preserveAspectRatio", "none");
  chart.setAttribute("role", "img");
  chart.setAttribute("aria-label", "Confidence of its images: " + number(low) + " below " + percent(DOUBT));
  const shape = (tag, values) => {
    const node = document.createElementNS(space, tag);
    for (const [key, value] of Object.entries(values)) node.setAttribute(key, String(value));
    chart.append(node);
  };
  bins.forEach((count, bin) => {
    if (!count) return;
    const height = Math.max(2, (count / most) * 32);
    shape("rect", { x: bin * 10 + 1, y: 33 - height, width: 8, height, class: (bin + 1) / 20 <= DOUBT ? "low" : "" });
  });
  shape("line", { x1: 0, x2: 200, y1: 33.5, y2: 33.5 });
  return element("div", { class: "spread" }, chart, element("p", {}, element("span", {}, "0%"), element("span", {}, "confidence"), element("span", {}, "100%")));
}

function measures(pairs) {
  const list = element("dl", { class: "measures" });
  for (const [term, value] of pairs) list.append(element("dt", {}, term), element("dd", {}, value));
  return list;
}

function section(key, title, definition, images, exemplars, rest, cluster) {
  const visible = ordered(images, exemplars);
  if (!visible.length) return null;
  const label = element("div", { class: "label" }, element("h2", { id: "title-" + key }, named(title)));
  if (definition) label.append(element("p", { class: "definition" }, definition));
  const all = totals(rest ? 0 : cluster.id, images);
  const size = visible.length === images.length ? number(all.images) : number(visible.length) + " of " + number(all.images);
  const counts = [["images", size], ...(all.files > all.images ? [["files, with copies", number(all.files)]] : [])];
  if (rest) label.append(measures(counts));
  else {
    const kinds = cluster.parent && cluster.parent !== cluster.name ? [["coarser kind", cluster.parent]] : [];
    const wrong = cluster.misplaced ? [["misplaced, estimated", share(cluster.misplaced.share) + " (" + share(cluster.misplaced.low) + " to " + share(cluster.misplaced.high) + ")"]] : [];
    label.append(measures([...counts, ...kinds, ["mean confidence", sureness(all.mean)], ...wrong]), spread(all));
  }
  const body = element("div", {});
  const lead = state.sort === "typical" && !rest ? visible.filter((image) => exemplars.includes(image)) : [];
  const others = visible.slice(lead.length);
  if (lead.length) body.append(frames(lead, true, 0));
  const limit = state.opened.has(key) ? others.length : FIRST_FRAMES;
  if (others.length) body.append(frames(others.slice(0, limit), false, lead.length));
  if (others.length > limit) {
    const more = element("button", { type: "button", class: "more" }, "Show the other " + number(others.length - limit));
    more.addEventListener("click", () => {
      state.opened.add(key);
      draw();
      const grid = $(key).querySelectorAll(".frames button");
      if (grid[lead.length + limit]) reach(grid[lead.length + limit]);
    });
    body.append(more);
  }
  return element("section", { class: rest ? "cluster rest" : "cluster", id: key, "aria-labelledby": "title-" + key }, label, body);
}

function listing(key, title, definition, rows) {
  const kept = rows.filter(([path]) => !state.find || path.toLowerCase().includes(state.find));
  if (!kept.length) return null;
  const table = element("table", { class: "listing" }, element("tbody", {}, ...kept.map(([path, reason]) => element("tr", {}, element("td", {}, named(path)), element("td", {}, reason)))));
  const label = element("div", { class: "label" }, element("h2", { id: "title-" + key }, title), element("p", { class: "definition" }, definition), measures([["files", number(kept.length)]]));
  return element("section", { class: "cluster rest", id: key, "aria-labelledby": "title-" + key }, label, element("div", {}, table));
}

function overview(interest) {
  const part = (href, text, size, className) => {
    const item = element("li", { class: className }, element("a", { href, title: text + ": " + number(size), "aria-label": text + ", " + plural(size, "image", "images") }, element("span", {}, text), element("small", {}, number(size))));
    item.style.flexGrow = String(size);
    return item;
  };
  const many = (cluster) => (interest.totals[cluster] || { images: (interest.members.get(cluster) || []).length }).images;
  const loose = many(0);
  const parts = interest.clusters.map((cluster) => part("#c" + cluster.id, cluster.name, many(cluster.id), ""));
  if (loose) parts.push(part("#loose", "unassigned", loose, "loose"));
  const looked = interest.looked;
  const total = interest.images;
  const calls = interest.calls.look + interest.calls.judge + interest.calls.choose + interest.calls.complete;
  const facts = element("p", { class: "facts" });
  const say = (bold, text) => facts.append(element("b", {}, bold), text);
  say(plural(interest.clusters.length, "cluster", "clusters"), " found in ");
  say((looked < total ? number(looked) + " of " : "") + plural(total, "image", "images"), ", asked with ");
  say(plural(calls, "model call", "model calls"), looked ? " (" + (calls / looked).toFixed(2) + " an image). " : ". ");
  if (interest.misplaced) facts.append("An estimated ", element("b", {}, share(interest.misplaced.share)), " of the assigned images are misplaced (95% interval " + share(interest.misplaced.low) + " to " + share(interest.misplaced.high) + ")" + (interest.misplaced.basis === "looks" ? ", by how sure the model says it is: it cannot check its own answers." : "."));
  else if (interest.clusters.length) facts.append("How many images are misplaced is not known.");
  const box = element("div", { class: "overview" });
  if (interest.verdict) box.append(element("p", { class: "verdict" }, interest.verdict));
  if (parts.length) box.append(element("ul", { class: "strip", "aria-label": "Clusters by size" }, ...parts));
  box.append(facts);
  const pairs = data.crossed.filter(([one, two]) => one === state.which || two === state.which);
  if (pairs.length) box.append(element("div", { class: "pairs" }, ...pairs.map(([one, two, sentence]) => crossed(one === state.which ? two : one, sentence))));
  if (state.also) {
    const back = element("button", { type: "button", class: "more" }, "Show all");
    back.addEventListener("click", () => { state.also = null; draw(); });
    const name = state.also[1] ? data.interests[state.also[0]].byId.get(state.also[1]).name : "unassigned";
    box.append(element("p", { class: "also" }, "Only images that are in “", named(name), "” by " + data.interests[state.also[0]].text + ". ", back));
  }
  if (interest.notes.length) box.append(element("ul", { class: "notes" }, ...interest.notes.map((note) => element("li", {}, note))));
  return box;
}

const MOST_LINES = 20; // of a cross-table, before the rest is put together
function crossed(other, sentence) {
  const [mine, its] = [state.which, other].map((which) => {
    const lines = [...data.interests[which].clusters].map((cluster) => [cluster.id, cluster.name]);
    return [...lines, [0, "unassigned"]];
  });
  const counts = new Map();
  for (const place of places) {
    if (!place[state.which] || !place[other] || place[state.which][0] < 0 || place[other][0] < 0) continue;
    const key = place[state.which][0] + "/" + place[other][0];
    counts.set(key, (counts.get(key) || 0) + 1);
  }
  const sum = (rows, columns) => rows.reduce((all, row) => all + columns.reduce((part, column) => part + (counts.get(row[0] + "/" + column[0]) || 0), 0), 0);
  const lines = (every, size) => {
    const kept = every.filter((line) => line[0] !== 0 || size(line) > 0).sort((a, b) => (a[0] === 0) - (b[0] === 0) || size(b) - size(a));
    return [kept.slice(0, MOST_LINES), kept.slice(MOST_LINES)];
  };
  const [rows, lessRows] = lines(mine, (row) => sum([row], its));
  const [columns, lessColumns] = lines(its, (column) => sum(mine, [column]));
  const cell = (rowsOf, columnsOf) => {
    const count = sum(rowsOf, columnsOf);
    const item = element("td", {});
    if (!count) return item;
    item.style.setProperty("--share", (60 * count / sum(rowsOf, its)).toFixed(0) + "%");
    if (rowsOf.length > 1 || columnsOf.length > 1) { item.append(number(count)); return item; }
    const [[row, rowName], [column, columnName]] = [rowsOf[0], columnsOf[0]];
    const button = element("button", { type: "button", "aria-label": rowName + " and " + columnName + ": " + plural(count, "image", "images") }, number(count));
    button.addEventListener("click", () => {
      state.also = [other, column];
      draw();
      const to = $(row ? "c" + row : "loose");
      if (to) to.scrollIntoView();
    });
    item.append(button);
    return item;
  };
  const heading = element("tr", {}, element("td", {}), ...columns.map(([, name]) => element("th", { scope: "col" }, named(name))), lessColumns.length ? element("th", { scope: "col" }, number(lessColumns.length) + " others") : null);
  const line = (rowsOf, name) => element("tr", {}, element("th", { scope: "row" }, named(name)), ...columns.map((column) => cell(rowsOf, [column])), lessColumns.length ? cell(rowsOf, lessColumns) : null);
  const body = element("tbody", {}, ...rows.map((row) => line([row], row[1])), lessRows.length ? line(lessRows, number(lessRows.length) + " others") : null);
  const table = element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table" }, element("table", { class: "crossed" }, element("thead", {}, heading), body));
  return element("details", {}, element("summary", {}, sentence), table);
}

function draw() {
  hide();
  const interest = data.interests[state.which];
  const sections = interest.clusters.map((cluster) => section("c" + cluster.id, cluster.name, cluster.definition, interest.members.get(cluster.id) || [], cluster.exemplars, false, cluster));
  const apart = interest.partial ? "The budget was spent before a cluster was found for these." : "No cluster fits these well enough, or they are alone of their kind; they are left apart rather than forced in.";
  sections.push(section("loose", "Unassigned", apart, interest.members.get(0) || [], [], true));
  const failed = interest.failed.flatMap(([image, reason]) => data.images[image].paths.map((path) => [path, reason]));
  sections.push(listing("failed", "Failed", "The model failed on these; running the same command again retries them.", failed));
  const notLooked = interest.notLooked.flatMap((image) => data.images[image].paths.map((path) => [path, "the budget was spent"]));
  sections.push(listing("not-looked", "Not looked at", "The budget was spent before these; running the same command with a larger one goes on with them.", notLooked));
  sections.push(listing("unreadable", "Unreadable", "Files that were found and could not be opened as a picture.", data.unreadable));
  const found = sections.filter((part) => part !== null);
  const main = $("clusters");
  main.replaceChildren(overview(interest), ...found);
  main.setAttribute("aria-labelledby", "tab-" + state.which);
  if (!found.length) main.append(element("p", { class: "plain" }, state.find ? "No file name contains “" + state.find + "”." : "There is nothing to show."));
  $("status").textContent = state.find ? plural(main.querySelectorAll(".frames li").length, "image matches", "images match") : "";
}

// --- the loupe: one image's file, reason and place in every interest
let held = false;
let current = null;
function show(button, hold) {
  const image = Number(button.dataset.image);
  const { paths, thumb, size, frames } = data.images[image];
  const [cluster, sure, reason, decided] = places[image][state.which];
  const text = element("div", { class: "text" }, ...paths.map((path) => element("p", { class: "file" }, named(path))));
  if (reason) text.append(element("p", { class: "reason" }, reason));
  const list = element("dl", {});
  if (cluster > 0) list.append(element("dt", {}, "confidence"), element("dd", { class: sure < DOUBT ? "low" : "" }, sureness(sure) + ({ choice: ", asked about itself", description: ", by its description", look: ", by its look", person: ", placed by a person" }[decided] || "")));
  data.interests.forEach((interest, which) => list.append(element("dt", { title: interest.text }, interest.text), element("dd", {}, clusterName(which, image))));
  list.append(element("dt", {}, "size"), element("dd", {}, size[0] + " × " + size[1] + " px"));
  if (frames) list.append(element("dt", {}, "shown"), element("dd", {}, "the middle one of " + number(frames) + " frames"));
  text.append(list);
  const close = element("button", { type: "button", class: "close", "aria-label": "Close" }, "×");
  close.addEventListener("click", () => { button.focus(); hide(); });
  const loupe = $("loupe");
  const glass = thumb ? element("div", { class: "glass" }, element("img", { src: source(thumb), alt: "" })) : null;
  loupe.replaceChildren(...[glass, text, close].filter((part) => part !== null));
  loupe.hidden = false;
  held = hold;
  loupe.classList.toggle("held", hold);
  if (current) current.removeAttribute("aria-pressed");
  current = button;
  if (hold) button.setAttribute("aria-pressed", "true");
  const at = button.getBoundingClientRect();
  const right = at.right + 12 + loupe.offsetWidth < innerWidth;
  loupe.style.left = Math.max(8, right ? at.right + 12 : at.left - loupe.offsetWidth - 12) + "px";
  loupe.style.top = Math.max(8, Math.min(at.top, innerHeight - loupe.offsetHeight - 12)) + "px";
}
function hide() {
  $("loupe").hidden = true;
  held = false;
  if (current) current.removeAttribute("aria-pressed");
  current = null;
}
const framed = (event) => event.target instanceof Element ? event.target.closest(".frames button") : null;
const main = $("clusters");
main.addEventListener("pointerover", (event) => { const button = framed(event); if (button && !held && event.pointerType === "mouse") show(button, false); });
main.addEventListener("pointerout", (event) => { if (framed(event) && !held && event.pointerType === "mouse") hide(); });
main.addEventListener("focusin", (event) => { const button = framed(event); if (button && !held && button.matches(":focus-visible")) show(button, false); });
main.addEventListener("focusout", () => { if (!held) hide(); });
document.addEventListener("click", (event) => {
  const button = framed(event);
  if (button) { if (held && current === button) hide(); else show(button, true); }
  else if (held && !$("loupe").contains(event.target)) hide();
});
addEventListener("scroll", () => { if (!held) hide(); }, { passive: true });

// One stop of the Tab key per cluster; arrows walk inside it.
function reach(button) {
  for (const other of button.closest(".cluster").querySelectorAll(".frames button")) other.tabIndex = other === button ? 0 : -1;
  button.focus();
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !$("loupe").hidden) {
    const back = current;
    if (back && document.activeElement !== back) back.focus(); // before hiding: focus would show it again
    hide();
    return;
  }
  const tab = event.target instanceof Element ? event.target.closest("[role=tab]") : null;
  const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
  if (tab && event.key in steps) {
    event.preventDefault();
    const last = data.interests.length - 1;
    const to = state.which + steps[event.key];
    select(Number.isFinite(to) ? (to + last + 1) % (last + 1) : to < 0 ? 0 : last);
    $("tab-" + state.which).focus();
    return;
  }
  const button = framed(event);
  if (!button || !(event.key in steps || event.key === "ArrowDown" || event.key === "ArrowUp")) return;
  event.preventDefault();
  const all = [...button.closest(".cluster").querySelectorAll(".frames button")];
  const from = all.indexOf(button);
  let to = event.key in steps ? Math.max(0, Math.min(all.length - 1, from + steps[event.key])) : from;
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const here = button.getBoundingClientRect();
    const down = event.key === "ArrowDown" ? 1 : -1;
    let best = Infinity;
    all.forEach((other, position) => {
      const there = other.getBoundingClientRect();
      if (Math.sign(Math.round(there.top - here.top)) !== down) return;
      const far = Math.abs(there.top - here.top) * 1e4 + Math.abs(there.left - here.left);
      if (far < best) { best = far; to = position; }
    });
  }
  reach(all[to]);
});

function select(which) {
  state.which = which;
  state.also = null;
  state.opened.clear();
  document.querySelectorAll("[role=tab]").forEach((tab, position) => {
    tab.setAttribute("aria-selected", String(position === which));
    tab.tabIndex = position === which ? 0 : -1;
  });
  $("tab-" + which).scrollIntoView({ block: "nearest", inline: "nearest" });
  draw();
}

function start() {
  const ways = data.interests.length;
  const times = ["", "one way", "two ways", "three ways", "four ways", "five ways"][ways] || number(ways) + " ways";
  const files = data.images.reduce((sum, image) => sum + image.paths.length, 0);
  $("headline").append(plural(files, "picture", "pictures") + ", sorted " + times);
  if (data.unreadable.length) {
    const link = element("a", { href: "#unreadable" }, plural(data.unreadable.length, "file", "files") + " could not be read");
    $("aside").append(link, ", and " + (data.unreadable.length === 1 ? "is" : "are") + " listed with the reason.");
    $("aside").hidden = false;
  }
  document.title = data.interests.map((interest) => interest.text).join(", ") + " · manylens";
  data.interests.forEach((interest, which) => {
    const tab = element("button", { type: "button", role: "tab", id: "tab-" + which, "aria-controls": "clusters", title: interest.text }, named(interest.text), element("small", {}, number(interest.clusters.length)));
    tab.addEventListener("click", () => select(which));
    $("tabs").append(tab);
  });
  const models = [...new Set(data.interests.map((interest) => interest.model))].join(", ");
  const copies = files - data.images.length;
  const lines = ["Read by " + models + ", sorted by manylens " + data.version + ". A red mark is a confidence below " + percent(DOUBT) + ": look there first."];
  if (copies) lines.push(plural(copies, "file is", "files are") + " a copy of another and shown once.");
  if (data.unpictured) lines.push(plural(data.unpictured, "image is", "images are") + " listed by name only, to keep this file small.");
  if (data.unlisted) lines.push("Of each cluster the surest and the most doubtful images are shown; " + plural(data.unlisted, "other", "others") + " are in assignments.csv.");
  lines.push(data.thumbnails ? "This page loads its pictures from the folder " + data.thumbnails + " beside it, and sends nothing." : "This page loads nothing and sends nothing.");
  $("colophon").textContent = lines.join(" ");
  let waiting = 0;
  $("find").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { state.find = $("find").value.trim().toLowerCase(); draw(); }, 120);
  });
  $("sort").addEventListener("change", () => { state.sort = $("sort").value; draw(); });
  const asked = data.interests.findIndex((interest) => "#" + encodeURIComponent(interest.slug) === location.hash || "#" + interest.slug === location.hash);
  select(asked < 0 ? 0 : asked);
}
if (data.interests.length) start();
