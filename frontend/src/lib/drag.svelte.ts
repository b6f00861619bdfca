// Pictures in hand: from a press that moves until it is let go over something that takes them (`data-drop`).
// data-drop: the id of a cluster, "none" (unassign) or "new"; data-drop-slug: the interest.
import { selection } from "./selection.svelte";

export interface Over {
  slug: string;
  cluster: number | null;
  isNew: boolean;
}

const BEGINS = 6; // pixels: less is an unsteady click

class Drag {
  active = $state(false);
  ids = $state.raw<string[]>([]);
  slug = "";
  x = $state(0);
  y = $state(0);
  over = $state.raw<Over | null>(null);
  /** True in the click that the browser sends after a drop. */
  justEnded = false;
  dropped: (over: Over, ids: string[]) => void = () => {};
}

export const drag = new Drag();

function under(x: number, y: number): Over | null {
  for (const element of document.elementsFromPoint(x, y)) {
    const target = element.closest<HTMLElement>("[data-drop]");
    if (!target) continue;
    const drop = target.dataset.drop!;
    return { slug: target.dataset.dropSlug ?? drag.slug, cluster: drop === "none" || drop === "new" ? null : Number(drop), isNew: drop === "new" };
  }
  return null;
}

export function startDrag(event: PointerEvent, what: { slug: string; ids: () => string[] }): void {
  const from = { x: event.clientX, y: event.clientY };
  const scroller = event.target instanceof Element ? event.target.closest<HTMLElement>(".scroller") : null;
  let scrolling = 0;
  const step = () => {
    if (scroller) {
      const bounds = scroller.getBoundingClientRect();
      const inside = drag.x > bounds.left && drag.x < bounds.right;
      if (inside && drag.y > bounds.bottom - 60) scroller.scrollTop += 16;
      if (inside && drag.y < bounds.top + 60) scroller.scrollTop -= 16;
    }
    scrolling = requestAnimationFrame(step);
  };
  const move = (next: PointerEvent) => {
    if (!drag.active && Math.hypot(next.clientX - from.x, next.clientY - from.y) > BEGINS) {
      drag.active = true;
      drag.slug = what.slug;
      drag.ids = what.ids();
      scrolling = requestAnimationFrame(step);
    }
    if (!drag.active) return;
    drag.x = next.clientX;
    drag.y = next.clientY;
    const over = under(next.clientX, next.clientY);
    drag.over = over && over.slug === drag.slug ? over : null;
  };
  const end = (drop: boolean) => {
    cancelAnimationFrame(scrolling);
    removeEventListener("pointermove", move);
    removeEventListener("pointerup", up);
    removeEventListener("pointercancel", cancel);
    removeEventListener("keydown", escape, true);
    if (!drag.active) return;
    const { over, ids } = drag;
    drag.active = false;
    drag.over = null;
    drag.justEnded = true;
    setTimeout(() => (drag.justEnded = false));
    if (drop && over) {
      drag.dropped(over, ids);
      selection.clear();
    }
  };
  const up = () => end(true);
  const cancel = () => end(false);
  const escape = (key: KeyboardEvent) => {
    if (key.key === "Escape" && drag.active) {
      key.stopPropagation();
      end(false);
    }
  };
  addEventListener("pointermove", move);
  addEventListener("pointerup", up);
  addEventListener("pointercancel", cancel);
  addEventListener("keydown", escape, true);
}
