// The address keeps the state: all that a person set stands in the fragment, so that a reload, a bookmark and "back" work.

export type View = "gallery" | "map" | "review" | "cross" | "compare";
export type Sort = "-confidence" | "confidence" | "path";

export interface Route {
  view: View;
  by: string; // slug of the interest; "" is the first
  beside: string; // slug of a second interest shown beside it, or ""
  q: string;
  sort: Sort;
  size: number; // height of a thumbnail in pixels
  least: number; // clusters with fewer pictures are hidden
  also: string; // "slug:cluster": only pictures that are also in that cluster of another interest
  level: string; // a level other than the run's own, or ""
  image: string; // the picture that is open, or ""
}

export const SIZES = { least: 48, most: 320, usual: 112 };
const VIEWS: readonly View[] = ["gallery", "map", "review", "cross", "compare"];
const SORTS: readonly Sort[] = ["-confidence", "confidence", "path"];

const oneOf = <T extends string>(value: string | null, known: readonly T[]): T => known.find((one) => one === value) ?? known[0]!;
const between = (value: string | null, least: number, most: number, usual: number): number => {
  const given = Number(value ?? NaN);
  return Number.isFinite(given) ? Math.min(most, Math.max(least, Math.round(given))) : usual;
};

function read(fragment: string): Route {
  const given = new URLSearchParams(fragment.replace(/^#\/?/, ""));
  return {
    view: oneOf(given.get("view"), VIEWS),
    by: given.get("by") ?? "",
    beside: given.get("beside") ?? "",
    q: given.get("q") ?? "",
    sort: oneOf(given.get("sort"), SORTS),
    size: between(given.get("size"), SIZES.least, SIZES.most, SIZES.usual),
    least: between(given.get("least"), 1, 1_000_000, 1),
    also: given.get("also") ?? "",
    level: given.get("level") ?? "",
    image: given.get("image") ?? "",
  };
}

const USUAL = read("");

function write(state: Route): string {
  const told = new URLSearchParams();
  for (const key of Object.keys(USUAL) as (keyof Route)[]) {
    if (state[key] !== USUAL[key]) told.set(key, String(state[key]));
  }
  return "#" + told.toString();
}

export const route: Route = $state(read(location.hash));

/** Changes the state and the address. "push" where "back" should undo it, "replace" for what changes with every key. */
export function go(change: Partial<Route>, how: "push" | "replace" = "push"): void {
  Object.assign(route, change);
  const address = write(route);
  if (address === location.hash || (address === "#" && !location.hash)) return;
  history[how === "push" ? "pushState" : "replaceState"](null, "", address);
}

addEventListener("popstate", () => Object.assign(route, read(location.hash)));
addEventListener("hashchange", () => Object.assign(route, read(location.hash)));
