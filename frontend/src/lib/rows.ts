// Where each picture of a gallery stands: rows of equal height that fill the width, as in a contact sheet. Pure arithmetic.
import type { Layout } from "../api";

export const GAP = 6; // pixels between pictures
const BAR = 5; // below each picture: the bar of its confidence, and the air above it
/** A row is stretched to fill the width by at most so much; the last row of a cluster is not stretched at all. */
const STRETCH = 1.25;
const NARROWEST = 0.5;
const WIDEST = 2.6; // a panorama is cut to this in a tile; it is whole in the picture view

export interface Box {
  index: number; // into layout.ids
  section: number; // into Rows.sections
  x: number;
  y: number;
  width: number;
  height: number;
}

export interface Section {
  cluster: number | null;
  start: number; // first picture, into layout.ids
  count: number;
  y: number;
  height: number;
}

export interface Rows {
  sections: Section[];
  height: number;
  /** Rows in order from top to bottom: y, height, first picture, number of pictures, section. */
  tops: Float64Array;
  heights: Float32Array;
  firsts: Int32Array;
  counts: Int32Array;
  of: Int32Array;
}

export interface Frame {
  width: number; // of the whole gallery, margins included
  label: number; // width of the column of names; 0: names stand above their pictures
  head: number; // height of a name where it stands above
  least: number; // least height of a section where the name stands beside
  edge: number; // margin left and right
  size: number; // wished height of a picture
}

const PAD = 26; // above and below a section

export function rowsOf(layout: Layout, frame: Frame, least: number): Rows {
  const left = frame.edge + frame.label;
  const width = Math.max(80, frame.width - left - frame.edge);
  const tops: number[] = [];
  const heights: number[] = [];
  const firsts: number[] = [];
  const counts: number[] = [];
  const of: number[] = [];
  const sections: Section[] = [];
  let y = 0;
  for (const { cluster, start, count } of layout.sections) {
    if (!count || (cluster !== null && count < least)) continue;
    const top = y;
    y += PAD + (frame.label ? 0 : frame.head);
    let first = start;
    let sum = 0;
    const end = start + count;
    for (let at = start; at < end; at++) {
      sum += clamp(layout.aspect[at]!);
      const number = at - first + 1;
      const full = (width - GAP * (number - 1)) / sum;
      const last = at === end - 1;
      if (full > frame.size * STRETCH && !last) {
        const next = clamp(layout.aspect[at + 1]!);
        if ((width - GAP * number) / (sum + next) >= frame.size * 0.86) continue;
      } else if (full > frame.size && !last) continue;
      const height = last && full > frame.size ? frame.size : Math.min(full, frame.size * 1.6);
      tops.push(y);
      heights.push(height);
      firsts.push(first);
      counts.push(number);
      of.push(sections.length);
      y += height + BAR + GAP;
      first = at + 1;
      sum = 0;
    }
    y = Math.max(y - GAP + PAD, top + (frame.label ? frame.least : 0));
    sections.push({ cluster, start, count, y: top, height: y - top });
  }
  return {
    sections,
    height: y,
    tops: Float64Array.from(tops),
    heights: Float32Array.from(heights),
    firsts: Int32Array.from(firsts),
    counts: Int32Array.from(counts),
    of: Int32Array.from(of),
  };
}

const clamp = (aspect: number): number => Math.min(WIDEST, Math.max(NARROWEST, aspect || 1));

/** The first row that ends below y; rows.tops.length if there is none. */
export function rowAt(rows: Rows, y: number): number {
  let low = 0;
  let high = rows.tops.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows.tops[middle]! + rows.heights[middle]! + BAR < y) low = middle + 1;
    else high = middle;
  }
  return low;
}

export function boxesOf(layout: Layout, rows: Rows, frame: Frame, row: number): Box[] {
  const boxes: Box[] = [];
  const height = rows.heights[row]!;
  let x = frame.edge + frame.label;
  const first = rows.firsts[row]!;
  for (let index = first; index < first + rows.counts[row]!; index++) {
    const width = clamp(layout.aspect[index]!) * height;
    boxes.push({ index, section: rows.of[row]!, x, y: rows.tops[row]!, width, height });
    x += width + GAP;
  }
  return boxes;
}

/** The row of a picture, by its place in the layout; -1 where it is hidden. */
export function rowOf(rows: Rows, index: number): number {
  let low = 0;
  let high = rows.firsts.length - 1;
  // Sections come in the order of the layout, so the firsts ascend.
  while (low <= high) {
    const middle = (low + high) >> 1;
    const first = rows.firsts[middle]!;
    if (index < first) high = middle - 1;
    else if (index >= first + rows.counts[middle]!) low = middle + 1;
    else return middle;
  }
  return -1;
}

/** Pictures whose boxes touch a rectangle, in the coordinates of the gallery. */
export function within(layout: Layout, rows: Rows, frame: Frame, area: { x: number; y: number; width: number; height: number }): number[] {
  const found: number[] = [];
  for (let row = rowAt(rows, area.y); row < rows.tops.length && rows.tops[row]! < area.y + area.height; row++) {
    for (const box of boxesOf(layout, rows, frame, row)) {
      if (box.x < area.x + area.width && box.x + box.width > area.x && box.y < area.y + area.height && box.y + box.height > area.y) found.push(box.index);
    }
  }
  return found;
}
